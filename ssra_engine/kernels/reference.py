"""Every kernel again in plain NumPy and float64: what tests and benchmarks compare with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["cosent", "exact_topk", "graded_infonce", "mine"]


def exact_topk(
    queries: npt.NDArray[np.float32],
    documents: npt.NDArray[np.float32],
    k: int,
    banned: Sequence[npt.ArrayLike] | None = None,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """`ssra_engine.kernels.topk.exact_topk`; scores float64[Q, k], ids int64[Q, k]."""
    products = queries.astype(np.float64) @ documents.astype(np.float64).T
    scores = np.full((len(queries), k), -np.inf)
    ids = np.full((len(queries), k), -1, np.int64)
    for q, row in enumerate(products):
        allowed = np.ones(len(documents), bool)
        if banned is not None:
            out = np.asarray(banned[q], np.int64)
            allowed[out[(out >= 0) & (out < len(documents))]] = False
        best = [i for i in np.argsort(-row, kind="stable") if allowed[i]][:k]
        scores[q, : len(best)], ids[q, : len(best)] = row[best], best
    return scores, ids


def mine(
    queries: npt.NDArray[np.float32],
    documents: npt.NDArray[np.float32],
    k: int,
    *,
    metric: str = "ip",
    ids: npt.NDArray[np.int64] | None = None,
    banned: Sequence[npt.ArrayLike] | None = None,
    upper_limits: npt.ArrayLike = np.inf,
    min_score: float = -np.inf,
    skip_top: int = 0,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """`MiningIndex.mine`; margins and max_score are `upper_limits`, one or one a query."""
    products = _rows(queries, metric) @ _rows(documents, metric).T
    names = np.arange(len(documents)) if ids is None else ids
    limits = np.broadcast_to(np.asarray(upper_limits, np.float64), len(queries))
    scores = np.full((len(queries), k), -np.inf)
    found = np.full((len(queries), k), -1, np.int64)
    for q, row in enumerate(products):
        allowed = (row >= min_score) & (row <= limits[q])
        if banned is not None:
            allowed &= ~np.isin(names, np.asarray(banned[q], np.int64))
        order = np.lexsort((names, -row))
        best = order[allowed[order]][skip_top : skip_top + k]
        scores[q, : len(best)], found[q, : len(best)] = row[best], names[best]
    return scores, found


def graded_infonce(
    query: npt.NDArray[np.float32],
    candidates: npt.NDArray[np.float32],
    grades: npt.NDArray[np.float32],
    dims: Sequence[int],
    *,
    temperature: float,
    self_contrast: bool = False,
    margin: float = np.inf,
    products: str = "float32",
) -> float:
    """`ssra_engine.kernels.loss.graded_infonce`; the first candidates are the positives."""
    losses = []
    rounded_from = max((dim for dim in dims if products == "float32" or dim <= 256), default=0)
    for dim in dims:
        both = query[:, :dim], candidates[:, :dim]
        q, c = (_rows(vectors, "cosine", rounded_from) for vectors in both)
        exact, positives = (_rows(vectors, "cosine") for vectors in both)
        for i, grade in enumerate(grades):
            others = [np.delete(q[i] @ c.T, i)]
            if self_contrast:
                others += [np.delete(x[i] @ x[: len(q)].T, i) for x in (q, c)]
            cosines, positive = np.concatenate(others), exact[i] @ positives[i]
            kept = np.append(cosines[cosines <= positive + margin], positive)
            losses.append(grade * np.log(np.exp((kept - positive) / temperature).sum()))
    return float(np.mean(losses))


def cosent(
    scores: npt.NDArray[np.float32], grades: npt.NDArray[np.float32], temperature: float
) -> float:
    """`ssra_engine.kernels.cosent.cosent_loss`."""
    better, worse = np.nonzero(grades[:, None] > grades)
    return float(np.log1p(np.exp((scores[worse] - scores[better]) / temperature).sum()))


def _rows(
    vectors: npt.NDArray[np.float32], metric: str, rounded_from: int | None = None
) -> npt.NDArray[np.float64]:
    rows = vectors.astype(np.float64)
    if metric == "ip":
        return rows
    lengths: npt.NDArray[np.float64] = np.linalg.norm(rows, axis=1, keepdims=True)
    if rounded_from is not None:  # to bfloat16: eight significant bits, ties to even
        fractions, exponents = np.frexp(rows[:, rounded_from:])
        rows[:, rounded_from:] = np.ldexp(np.rint(fractions * 2**8), exponents - 8)
    return rows / np.maximum(lengths, 1e-12)
