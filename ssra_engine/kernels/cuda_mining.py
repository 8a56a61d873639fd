"""Exact top-k mining under rules on a GPU: scores by cuBLAS, selection by csrc/cuda.

A tile of scores (some queries, some documents) is made by one product and read once: what the rules
allow and the best so far do not beat is merged into them. Scores are never held beyond a tile.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeGuard

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ssra_engine.kernels.arrays import Banned, Vectors, as_ids, as_matrices
from ssra_engine.kernels.cuda import address, computing_on, extension, launch_on
from ssra_engine.kernels.rules import Rules, check_rules, extend_ids

if TYPE_CHECKING:
    from ssra_engine import _cuda

__all__ = ["CudaMiningIndex", "on_gpu"]

#: Queries that go together, and bytes of their scores at a time.
QUERY_ROWS = 4096
TILE_BYTES = 256 * 2**20

_LONGEST = 1e37  # squared, of rows whose products fit float32
_SHORTEST = 1e-12


class _Segment(NamedTuple):
    """One batch of documents.

    Attributes:
        rows: float32[n, dim].
        scales: float32[n], what makes their products cosines, or None.
        ids: int64[n], or None: positions.
        first: position of the first.
    """

    rows: Tensor
    scales: Tensor | None
    ids: Tensor | None
    first: int


class _Rules(NamedTuple):
    """Rules of some queries, as the kernel takes them."""

    banned_offsets: Tensor
    banned_ids: Tensor
    positives: Tensor | None
    absolute_margin: float
    relative_margin: float
    min_score: float
    max_score: float

    def of(self, rows: slice) -> _Rules:
        positives = None if self.positives is None else self.positives[rows]
        offsets = self.banned_offsets[rows.start : rows.stop + 1]
        return self._replace(banned_offsets=offsets, positives=positives)


def on_gpu(vectors: Vectors) -> TypeGuard[Tensor]:
    """Whether these are a torch tensor on an NVIDIA GPU."""
    return isinstance(vectors, Tensor) and vectors.is_cuda


class CudaMiningIndex:
    """`ssra_engine.MiningIndex` for vectors on a GPU: the same calls, rules and answers.

    Scores are float32 products or cosines as cuBLAS makes them, so near ties may rank as float32
    rounds them; equal scores rank by lowest id. k and skip_top are limited by the shared memory of
    a block: together to about 7,000 from Ampere on, 15,000 on an H100.

    Memory: the vectors, which are not copied where they are contiguous float32, 4 bytes a vector
    for cosines, and a tile of scores.
    """

    backend = "cuda"

    def __init__(self, dim: int, metric: Literal["ip", "cosine"], device: torch.device) -> None:
        """An empty index on a device.

        Raises:
            RuntimeError: the CUDA extension was not built.
        """
        self.dim, self.metric, self.device = dim, metric, device
        self._kernels = extension()
        self._segments: list[_Segment] = []
        self._names: npt.NDArray[np.int64] | None = None
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def nbytes(self) -> int:
        """Bytes held on the device beside the vectors themselves."""
        held = (x for part in self._segments for x in (part.scales, part.ids) if x is not None)
        return sum(x.nbytes for x in held)

    def add(self, vectors: Tensor, ids: npt.ArrayLike | None = None) -> None:
        """As `MiningIndex.add`, for a tensor on the index's device."""
        rows = self._usable(vectors, "vectors")
        names = None if ids is None else as_ids(ids, "ids")
        if len(rows) == 0:
            return
        self._names = extend_ids(self._names, names, self._size, len(rows))
        scales = _reciprocal_lengths(rows) if self.metric == "cosine" else None
        on_device = None if names is None else torch.from_numpy(names).to(self.device)
        self._segments.append(_Segment(rows, scales, on_device, self._size))
        self._size += len(rows)

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
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """As `MiningIndex.mine`; queries may be anywhere. The answer comes as NumPy arrays.

        Raises:
            RuntimeError: CUDA refuses.
        """
        if k < 1 or skip_top < 0:
            raise ValueError(f"k is {k} and skip_top {skip_top}, at least 1 and 0 are needed")
        rows = self._usable(self._as_tensor(queries), "queries")
        if self.metric == "cosine":
            rows = rows * _reciprocal_lengths(rows)[:, None]
        given = positive_scores
        rules = self._on_device(
            check_rules(
                len(rows),
                banned=banned,
                positive_scores=given.cpu() if isinstance(given, Tensor) else given,
                absolute_margin=absolute_margin,
                relative_margin=relative_margin,
                min_score=min_score,
                max_score=max_score,
            )
        )
        scores = np.full((len(rows), k), -np.inf, np.float32)
        ids = np.full((len(rows), k), -1, np.int64)
        counts = np.zeros(len(rows), np.int64)
        for start in range(0, len(rows), QUERY_ROWS):
            part = slice(start, min(start + QUERY_ROWS, len(rows)))
            best = self._search(rows[part], rules.of(part), min(k + skip_top, self._size))
            found = slice(0, max(best[0].shape[1] - skip_top, 0))
            scores[part, found], ids[part, found] = (
                x[:, skip_top:].cpu().numpy() for x in best[:2]
            )
            counts[part] = (best[2] - skip_top).clamp_min(0).cpu().numpy()
        return scores, ids, counts

    def _search(self, queries: Tensor, rules: _Rules, kept: int) -> tuple[Tensor, Tensor, Tensor]:
        """The best `kept` of each query: scores, ids, counts."""
        scores = queries.new_full((len(queries), kept), -torch.inf)
        ids = torch.full_like(scores, -1, dtype=torch.int64)
        counts = torch.zeros(len(queries), dtype=torch.int32, device=self.device)
        launch = launch_on(queries)
        with computing_on(self.device):
            for segment, begin, tile in self._tiles(queries):
                self._select(launch, rules, segment, begin, tile, (scores, ids, counts))
        return scores, ids, counts

    def _tiles(self, queries: Tensor) -> Iterator[tuple[_Segment, int, Tensor]]:
        """Scores of some documents at a time, in the same memory: segment, first row, scores."""
        width = max(1, TILE_BYTES // (4 * max(1, len(queries))))
        widest = max((len(segment.rows) for segment in self._segments), default=0)
        memory = queries.new_empty(len(queries) * min(width, widest))
        for segment in self._segments:
            for begin in range(0, len(segment.rows), width):
                documents = segment.rows[begin : begin + width]
                tile = memory[: len(queries) * len(documents)].view(len(queries), len(documents))
                torch.mm(queries, documents.T, out=tile)
                yield segment, begin, tile

    def _select(
        self,
        launch: _cuda.Launch,
        rules: _Rules,
        segment: _Segment,
        begin: int,
        tile: Tensor,
        best: tuple[Tensor, Tensor, Tensor],
    ) -> None:
        self._kernels.select(
            launch,
            scores=address(tile),
            row_stride=tile.stride(0),
            queries=tile.shape[0],
            columns=tile.shape[1],
            column_scales=address(None if segment.scales is None else segment.scales[begin:]),
            ids=address(None if segment.ids is None else segment.ids[begin:]),
            first_id=segment.first + begin,
            banned_offsets=address(rules.banned_offsets if len(rules.banned_ids) else None),
            banned_ids=address(rules.banned_ids),
            positives=address(rules.positives),
            absolute_margin=rules.absolute_margin,
            relative_margin=rules.relative_margin,
            min_score=rules.min_score,
            max_score=rules.max_score,
            kept=best[0].shape[1],
            best_scores=address(best[0]),
            best_ids=address(best[1]),
            counts=address(best[2]),
        )

    def _on_device(self, rules: Rules) -> _Rules:
        arrays = (rules.banned_offsets, rules.banned_ids, rules.positives)
        moved = (None if x is None else torch.tensor(x, device=self.device) for x in arrays)
        offsets, ids, positives = moved
        assert offsets is not None
        assert ids is not None
        return _Rules(offsets, ids, positives, *rules[3:])

    def _as_tensor(self, vectors: Vectors) -> Tensor:
        if isinstance(vectors, Tensor) and vectors.device == self.device:
            return vectors
        (rows,) = as_matrices(vectors, "queries", whole=True)
        return torch.tensor(rows, device=self.device)

    def _usable(self, vectors: Tensor, name: str) -> Tensor:
        """Float32 rows that the kernels can take."""
        if not vectors.is_floating_point():
            raise TypeError(f"{name}: expected floating point values, got {vectors.dtype}")
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            raise ValueError(
                f"{name}: expected shape [rows, {self.dim}], got {list(vectors.shape)}"
            )
        if vectors.device != self.device:
            raise ValueError(f"{name} are on {vectors.device}, the index is on {self.device}")
        rows = vectors.detach().float().contiguous()
        squares = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64).square()
        bad = torch.nonzero(~(squares <= _LONGEST))
        if len(bad):
            raise ValueError(f"{name}: row {int(bad[0])} holds NaN or infinity or is too long")
        return rows


def _reciprocal_lengths(rows: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)
    return lengths.clamp_min(_SHORTEST).reciprocal().float()
