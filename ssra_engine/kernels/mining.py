"""Exact top-k mining under rules: an eight-bit screen in front of float32 products."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from ssra_engine import _core
from ssra_engine.kernels.arrays import Banned, Vectors, as_csr, as_ids, as_matrices, as_threads
from ssra_engine.kernels.cuda_mining import CudaMiningIndex, on_gpu

__all__ = ["Mined", "MiningIndex"]


class Mined(NamedTuple):
    """What `MiningIndex.mine` returns, best first.

    Attributes:
        scores: float32[Q, k], -inf where fewer than k documents survive the rules.
        ids: int64[Q, k], -1 there.
        counts: int64[Q], how many survive, at most k.
    """

    scores: npt.NDArray[np.float32]
    ids: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]


class MiningIndex:
    """Vectors to mine from.

    Scores are float32 inner products, or cosines (products of rows divided by their lengths, where
    a length below 1e-12 counts as 1e-12). The answer is that of brute force, equal scores by
    lowest id. Underneath, both sides are rounded at random to eight bits, and only pairs whose
    rounded score comes near enough are computed in float32. Near enough follows from Hoeffding's
    inequality (csrc/kernels/panels.h): a document that belongs in the answer is missed with a
    probability below 1e-9 in a whole call of `mine`.

    The instruction set is the best one that the processor has; the environment variable SSRA_ISA
    (bf16, vnni, avx2, portable) forces one for the indexes made while it is set.

    Memory: one byte a value and 8 to 12 bytes a vector, beside the vectors themselves, which are
    not copied where they are float32 with adjacent columns: they may be a memory map, and they
    must not be changed.

    Where the first vectors are a torch tensor on an NVIDIA GPU, all must be, and mining happens
    there: see `cuda_mining`. That needs the CUDA extension.
    """

    def __init__(
        self, dim: int, metric: Literal["ip", "cosine"] = "ip", threads: int | None = None
    ) -> None:
        """An empty index.

        Args:
            dim: columns of a vector, 1 to 65,536.
            metric: inner product or cosine.
            threads: defaults to the processors this process may use.

        Raises:
            ValueError: an argument is out of range, or SSRA_ISA names what cannot run here.
        """
        self._index = _core.MiningIndex(dim, metric)
        self._threads = as_threads(threads)
        self._dim, self._metric = dim, metric
        self._on_gpu: CudaMiningIndex | None = None

    def __len__(self) -> int:
        return self._index.size if self._on_gpu is None else len(self._on_gpu)

    @property
    def isa(self) -> str:
        """The instruction set in use."""
        return self._index.isa if self._on_gpu is None else "cuda"

    @property
    def nbytes(self) -> int:
        """Bytes held beside the vectors themselves."""
        return self._index.bytes_held if self._on_gpu is None else self._on_gpu.nbytes

    def add(self, vectors: Vectors, ids: npt.ArrayLike | None = None) -> None:
        """Append vectors.

        Args:
            vectors: floats [rows, dim]: NumPy, torch, or an Arrow FixedSizeList column.
            ids: int64[rows], not negative and not repeated; with every batch or with none. Without
                them an id is the vector's position.

        Raises:
            TypeError: values that are not floats, ids that are not integers.
            ValueError: shapes that do not fit, a row with NaN or infinity or longer than float32
                products can take, ids that are negative or too few or too many.
            RuntimeError: they are on a GPU, and the CUDA extension was not built, or CUDA refuses.
        """
        if on_gpu(vectors) or self._on_gpu is not None:
            self._add_on_gpu(vectors, ids)
            return
        given = as_ids([] if ids is None else ids, "ids")
        start = 0
        for rows in as_matrices(vectors, "vectors"):
            self._index.add(rows, given[start : start + len(rows)], self._threads)
            start += len(rows)

    def _add_on_gpu(self, vectors: Vectors, ids: npt.ArrayLike | None) -> None:
        if self._index.size or not on_gpu(vectors):
            raise ValueError("vectors: all of an index must be on one GPU, or none")
        if self._on_gpu is None:
            self._on_gpu = CudaMiningIndex(self._dim, self._metric, vectors.device)
        self._on_gpu.add(vectors, ids)

    def mine(
        self,
        queries: Vectors,
        k: int,
        *,
        banned: Banned | None = None,
        positive_scores: npt.ArrayLike | None = None,
        absolute_margin: float | None = None,
        relative_margin: float | None = None,
        min_score: float | None = None,
        max_score: float | None = None,
        skip_top: int = 0,
    ) -> Mined:
        """For each query, the k best vectors that the rules allow.

        Args:
            queries: floats [Q, dim].
            k: how many to return, at least 1.
            banned: ids a query must not get, one list per query or a CSR pair.
            positive_scores: float[Q], the score p of each query's positive, for the margins.
            absolute_margin: drop scores above p - absolute_margin.
            relative_margin: drop scores above p - |p| * relative_margin.
            min_score: drop scores below it.
            max_score: drop scores above it.
            skip_top: leave out this many of the best that the other rules allow.

        Raises:
            TypeError: values that are not floats, ids that are not integers.
            ValueError: shapes that do not fit, NaN or infinity in a query, a rule that is NaN,
                margins without positive scores.
            RuntimeError: CUDA refuses.
        """
        if self._on_gpu is not None:
            return Mined(
                *self._on_gpu.mine(
                    queries,
                    k,
                    banned=banned,
                    positive_scores=positive_scores,
                    absolute_margin=absolute_margin,
                    relative_margin=relative_margin,
                    min_score=min_score,
                    max_score=max_score,
                    skip_top=skip_top,
                )
            )
        margins = (absolute_margin, relative_margin)
        if positive_scores is None and margins != (None, None):
            raise ValueError("a margin needs positive_scores, one for each query")
        positives = np.empty(0) if positive_scores is None else np.asarray(positive_scores)
        (rows,) = as_matrices(queries, "queries", whole=True)
        offsets, ids = as_csr(banned, len(rows), "banned")
        return Mined(
            *self._index.mine(
                rows,
                k,
                offsets,
                ids,
                np.ascontiguousarray(positives, np.float32),
                absolute_margin,
                relative_margin,
                -np.inf if min_score is None else min_score,
                np.inf if max_score is None else max_score,
                skip_top,
                self._threads,
            )
        )
