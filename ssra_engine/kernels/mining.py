"""Exact top-k mining under rules: an eight-bit screen in front of float32 products."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from ssra_engine import _core
from ssra_engine.kernels.arrays import Banned, Vectors, as_csr, as_ids, as_matrices, as_threads
from ssra_engine.kernels.cuda_mining import CudaMiningIndex, on_gpu
from ssra_engine.kernels.faiss_mining import FaissBackend, FaissMiningIndex

__all__ = ["Backend", "Mined", "MiningIndex"]

#: "exact", or an index of faiss: approximate lists (IVF) or graph (HNSW), or exact on a GPU.
Backend: TypeAlias = Literal["exact"] | FaissBackend


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

    For more vectors than exact search should do, `backend` names an index of faiss, which misses
    some of them; the rules are the same (see `faiss_mining`), and `recall` tells how many.
    """

    def __init__(
        self,
        dim: int,
        metric: Literal["ip", "cosine"] = "ip",
        threads: int | None = None,
        *,
        backend: Backend = "exact",
        effort: int | None = None,
    ) -> None:
        """An empty index.

        Args:
            dim: columns of a vector, 1 to 65,536.
            metric: inner product or cosine.
            threads: defaults to the processors this process may use.
            backend: "exact", "faiss-ivf", "faiss-hnsw" or "faiss-gpu".
            effort: how far an approximate search goes; see `FaissMiningIndex`.

        Raises:
            ValueError: an argument is out of range, or SSRA_ISA names what cannot run here.
            RuntimeError: "faiss-gpu" where faiss has no GPU.
        """
        if backend not in ("exact", *get_args(FaissBackend)):
            known = ", ".join(("exact", *get_args(FaissBackend)))
            raise ValueError(f"backend is {backend!r}; there are {known}")
        if effort is not None and backend == "exact":
            raise ValueError("effort is for approximate search; 'exact' looks at everything")
        self._index = _core.MiningIndex(dim, metric)
        self._threads = as_threads(threads)
        self._dim, self._metric = dim, metric
        self._elsewhere: CudaMiningIndex | FaissMiningIndex | None = None
        if backend != "exact":
            self._elsewhere = FaissMiningIndex(dim, metric, threads, backend, effort)

    def __len__(self) -> int:
        return self._index.size if self._elsewhere is None else len(self._elsewhere)

    @property
    def isa(self) -> str:
        """The instruction set in use, "cuda", or the backend of faiss."""
        if self._elsewhere is None:
            return self._index.isa
        return self._elsewhere.backend

    @property
    def nbytes(self) -> int:
        """Bytes held beside the vectors that were given."""
        return self._index.bytes_held if self._elsewhere is None else self._elsewhere.nbytes

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
        if isinstance(self._elsewhere, FaissMiningIndex):
            self._elsewhere.add(vectors, ids)
            return
        if on_gpu(vectors) or self._elsewhere is not None:
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
        if self._elsewhere is None:
            self._elsewhere = CudaMiningIndex(self._dim, self._metric, vectors.device)
        assert isinstance(self._elsewhere, CudaMiningIndex)
        self._elsewhere.add(vectors, ids)

    def recall(self, queries: Vectors, k: int, **rules: Any) -> float:
        """How much of the exact answer `mine` finds, measured on these queries: 0 to 1.

        It is 1 for exact backends, to the bound above. For the others every query is mined again
        with all documents looked at, so a sample of a few hundred queries is enough.

        Args:
            queries: floats [Q, dim].
            k: as for `mine`.
            rules: as for `mine`.
        """
        if isinstance(self._elsewhere, FaissMiningIndex):
            return self._elsewhere.recall(queries, k, **rules)
        return 1.0

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
            RuntimeError: CUDA or faiss refuses.
        """
        if self._elsewhere is not None:
            return Mined(
                *self._elsewhere.mine(
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
