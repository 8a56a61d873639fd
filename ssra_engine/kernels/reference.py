"""Every kernel again in plain NumPy and float64: what tests and benchmarks compare with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["exact_topk"]


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
