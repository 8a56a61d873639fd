"""Mining under the same rules by faiss: approximate on the CPU (IVF, HNSW), or exact on a GPU.

faiss knows no rules. It is asked for more documents than are wanted, the rules are applied to what
it gives, and queries that are short of survivors are asked about again, four times as deep each
time, in the end through all documents. So bans and upper limits never leave a query with less than
there is; below `min_score` a search ends, and an approximate one may have missed some above it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, TypeAlias

import faiss
import numpy as np
import numpy.typing as npt

from ssra_engine.kernels.arrays import Banned, Vectors, as_ids, as_matrices, as_threads
from ssra_engine.kernels.rules import Rules, check_rules, extend_ids

__all__ = ["FaissBackend", "FaissMiningIndex"]

FaissBackend: TypeAlias = Literal["faiss-ivf", "faiss-hnsw", "faiss-gpu"]

Matrix = npt.NDArray[np.float32]
Int64s = npt.NDArray[np.int64]

#: The most that faiss returns for a query on a GPU.
GPU_DEPTH = 2048

_DEEPER = 4  # how much deeper a query that is short of survivors is asked about again
_CELLS = 2**22  # answers of faiss at a time: 48 MB of scores and positions
_NEIGHBOURS = 32  # of a node of the graph, as in faiss' own examples
_TRAINING_ROWS_PER_LIST = 39  # the fewest that faiss does not warn about
_LONGEST = 1e37  # squared, of rows whose products fit float32
_SHORTEST = 1e-12


class _Found(NamedTuple):
    """Survivors of some queries, best first: -inf and -1 behind the last."""

    scores: Matrix
    ids: Int64s
    counts: Int64s


class FaissMiningIndex:
    """`ssra_engine.MiningIndex` over a faiss index: the same calls and the same rules.

    Scores are float32 products as faiss computes them, equal scores rank by lowest id, and seeds
    are fixed. The graph of HNSW is built on one thread, since it depends on the order in which
    vectors come. The lists of IVF are learned at the first `mine` from what was added before it.

    Memory: faiss copies the vectors; HNSW adds about 300 bytes for each.
    """

    def __init__(
        self,
        dim: int,
        metric: Literal["ip", "cosine"],
        threads: int | None,
        backend: FaissBackend,
        effort: int | None = None,
    ) -> None:
        """An empty index.

        Args:
            dim: columns of a vector.
            metric: inner product or cosine.
            threads: defaults to the processors this process may use.
            backend: "faiss-ivf", "faiss-hnsw" or "faiss-gpu".
            effort: lists that are looked into (IVF; by default a sixteenth of them, at least 8), or
                nodes that are kept in view (HNSW; by default 128). More finds more, and is slower.

        Raises:
            ValueError: `effort` below 1, or for "faiss-gpu", which is exact.
            RuntimeError: "faiss-gpu" where faiss was built without GPUs, or sees none.
        """
        if effort is not None and (effort < 1 or backend == "faiss-gpu"):
            raise ValueError(f"effort is {effort} for {backend}: at least 1, and none on a GPU")
        self.dim, self.metric, self.backend = dim, metric, backend
        self._threads, self._effort = as_threads(threads), effort
        self._gpu = _gpu_resources() if backend == "faiss-gpu" else None
        self._faiss: Any = None
        self._waiting: list[Matrix] = []
        self._names: Int64s | None = None
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def nbytes(self) -> int:
        """Bytes of the vectors in faiss and of the links between them, about."""
        links = 4 * 2 * _NEIGHBOURS if self.backend == "faiss-hnsw" else 8
        return self._size * (4 * self.dim + links)

    def add(self, vectors: Vectors, ids: npt.ArrayLike | None = None) -> None:
        """As `MiningIndex.add`."""
        names = None if ids is None else as_ids(ids, "ids")
        batches = [self._usable(rows, "vectors") for rows in as_matrices(vectors, "vectors")]
        rows = sum(map(len, batches))
        if rows == 0:
            return
        self._names = extend_ids(self._names, names, self._size, rows)
        self._waiting += batches
        self._size += rows

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
        exhaustive: bool = False,
    ) -> tuple[Matrix, Int64s, Int64s]:
        """As `MiningIndex.mine`; `exhaustive` looks at every document, for the recall.

        Raises:
            RuntimeError: a GPU is short of memory, or the rules ask it for more than `GPU_DEPTH`.
        """
        if k < 1 or skip_top < 0:
            raise ValueError(f"k is {k} and skip_top {skip_top}, at least 1 and 0 are needed")
        (rows,) = as_matrices(queries, "queries", whole=True)
        rows = self._usable(rows, "queries")
        rules = check_rules(
            len(rows),
            banned=banned,
            positive_scores=positive_scores,
            absolute_margin=absolute_margin,
            relative_margin=relative_margin,
            min_score=min_score,
            max_score=max_score,
        )
        found = _Found(
            np.full((len(rows), k), -np.inf, np.float32),
            np.full((len(rows), k), -1, np.int64),
            np.zeros(len(rows), np.int64),
        )
        if self._size:
            with _threads(self._threads):
                self._settle()
                self._fill(found, rows, rules, skip_top, exhaustive)
        return found

    def recall(self, queries: Vectors, k: int, **rules: Any) -> float:
        """The share of what `mine` would return with every document looked at that it does return.

        Args:
            queries: floats [Q, dim]; a sample will do.
            k: as for `mine`.
            rules: as for `mine`.
        """
        _, expected, counts = self.mine(queries, k, exhaustive=True, **rules)
        _, ids, _ = self.mine(queries, k, **rules)
        hits = sum(
            np.isin(mine, true[true >= 0]).sum() for mine, true in zip(ids, expected, strict=True)
        )
        return float(hits / counts.sum()) if counts.sum() else 1.0

    def _usable(self, rows: Matrix, name: str) -> Matrix:
        """Rows whose inner products are the scores."""
        if rows.shape[1] != self.dim:
            raise ValueError(f"{name}: expected shape [rows, {self.dim}], got {list(rows.shape)}")
        squares = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
        bad = np.flatnonzero(~(squares <= _LONGEST))
        if len(bad):
            raise ValueError(f"{name}: row {bad[0]} holds NaN or infinity or is too long")
        if self.metric == "cosine":
            rows = rows / np.maximum(np.sqrt(squares), _SHORTEST).astype(np.float32)[:, None]
        return np.ascontiguousarray(rows)

    def _settle(self) -> None:
        """Hand over to faiss what was added since."""
        if self._faiss is None:
            self._faiss = self._made()
        with _threads(1 if self.backend == "faiss-hnsw" else self._threads):
            while self._waiting:
                self._faiss.add(self._waiting[0])
                self._waiting.pop(0)

    def _made(self) -> Any:
        if self.backend == "faiss-gpu":
            return faiss.GpuIndexFlatIP(self._gpu, self.dim)
        if self.backend == "faiss-hnsw":
            return faiss.IndexHNSWFlat(self.dim, _NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
        most = max(1, self._size // _TRAINING_ROWS_PER_LIST)
        lists = min(max(1, round(4 * self._size**0.5)), most)
        index = faiss.IndexIVFFlat(
            faiss.IndexFlatIP(self.dim), self.dim, lists, faiss.METRIC_INNER_PRODUCT
        )
        index.cp.min_points_per_centroid = 1
        index.train(_every(self._waiting, 64 * lists))
        return index

    def _fill(self, found: _Found, rows: Matrix, rules: Rules, skip: int, exhaustive: bool) -> None:
        """Survivors of every query into `found`."""
        wanted = found.ids.shape[1] + skip
        limits = rules.upper_limits(len(rows))
        left = np.arange(len(rows))
        depth = self._size if exhaustive else min(self._size, 2 * wanted + 32)
        most = min(self._size, GPU_DEPTH) if self._gpu is not None else self._size
        depth = min(depth, most)
        while len(left):
            short = []
            for part in _portions(left, depth):
                scores, positions = self._search(rows[part], depth)
                ids = self._ids(positions)
                allowed = (ids >= 0) & (scores <= limits[part, None])
                allowed &= (scores >= np.float32(rules.min_score)) & ~_is_banned(rules, part, ids)
                # What lies deeper is below min_score too; of an approximate search, mostly.
                ended = (positions[:, -1] >= 0) & (scores[:, -1] < np.float32(rules.min_score))
                _take_best(found, part, skip, scores, np.where(allowed, ids, -1))
                short.append(part[(allowed.sum(axis=1) < wanted) & ~ended])
            if depth >= self._size:
                return
            left = np.concatenate(short)
            if len(left) and depth == most:
                raise RuntimeError(
                    f"faiss-gpu returns {GPU_DEPTH:,} documents at most, and after the rules "
                    f"{len(left):,} queries are left with fewer than {wanted:,}. Mine with "
                    "backend 'exact', whose rules have no such limit."
                )
            # Near the end all documents cost no more than the next step.
            depth = most if depth * _DEEPER**2 > most else depth * _DEEPER

    def _search(self, queries: Matrix, depth: int) -> tuple[Matrix, Int64s]:
        """The best `depth` of each query; of the last documents faiss may find fewer."""
        if self._gpu is not None:
            scores, positions = self._faiss.search(queries, depth)
        elif self.backend == "faiss-ivf":
            lists = self._faiss.nlist
            effort = max(8, lists // 16) if self._effort is None else self._effort
            # As deep as it goes means everything; in between, lists in proportion.
            share = depth / self._size
            probes = lists if depth == self._size else max(effort, round(lists * share))
            chosen = faiss.SearchParametersIVF(nprobe=min(probes, lists))
            scores, positions = self._faiss.search(queries, depth, params=chosen)
        elif depth == self._size:
            scores, positions = self._faiss.storage.search(queries, depth)
        else:
            chosen = faiss.SearchParametersHNSW(efSearch=max(self._effort or 128, depth))
            scores, positions = self._faiss.search(queries, depth, params=chosen)
        return np.where(positions >= 0, scores, np.float32(-np.inf)), positions

    def _ids(self, positions: Int64s) -> Int64s:
        if self._names is None:
            return positions
        return np.where(positions >= 0, self._names[positions], -1)


def _take_best(found: _Found, part: Int64s, skip: int, scores: Matrix, ids: Int64s) -> None:
    """The allowed answers (id -1 where not) of some queries, ranked, behind the first `skip`."""
    ranked = np.where(ids >= 0, scores, np.float32(-np.inf))
    order = np.lexsort((ids, -ranked), axis=1)[:, skip : skip + found.ids.shape[1]]
    best = np.take_along_axis(ids, order, axis=1)
    width = best.shape[1]
    found.ids[part, :width] = best
    found.scores[part, :width] = np.take_along_axis(ranked, order, axis=1)
    found.counts[part] = (best >= 0).sum(axis=1)


def _is_banned(rules: Rules, part: Int64s, ids: Int64s) -> npt.NDArray[np.bool_]:
    banned = np.zeros(ids.shape, np.bool_)
    for row, query in enumerate(part.tolist()):
        start, stop = rules.banned_offsets[query : query + 2]
        if stop > start:
            banned[row] = np.isin(ids[row], rules.banned_ids[start:stop])
    return banned


def _portions(left: Int64s, depth: int) -> Iterator[Int64s]:
    step = max(1, _CELLS // depth)
    for start in range(0, len(left), step):
        yield left[start : start + step]


def _every(batches: list[Matrix], most: int) -> Matrix:
    """Rows at equal distances, at most `most`: clusters may stand in the order of the corpus."""
    step = -(-sum(map(len, batches)) // most)
    starts = np.cumsum([0, *map(len, batches)])[:-1]
    pairs = zip(batches, starts.tolist(), strict=True)
    return np.concatenate([batch[-start % step :: step] for batch, start in pairs])


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _gpu_resources() -> Any:
    if not hasattr(faiss, "StandardGpuResources"):
        raise RuntimeError(
            "faiss here was built without GPUs. Install faiss-gpu-cu12 in place of faiss-cpu "
            "(Linux, NVIDIA driver), or mine with backend 'exact'."
        )
    if faiss.get_num_gpus() == 0:
        raise RuntimeError("faiss sees no GPU. Mine with backend 'exact', or mend the driver.")
    return faiss.StandardGpuResources()
