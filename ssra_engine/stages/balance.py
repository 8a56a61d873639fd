"""Quotas: what each (document, target grade) still lacks."""

from __future__ import annotations

import numpy as np

__all__ = ["count_accepted", "shortfall"]


def count_accepted(
    document: np.ndarray, target: np.ndarray, documents: int, targets: tuple[int, ...]
) -> np.ndarray:
    """Accepted samples of each document at each target grade, int64[documents, len(targets)].

    Args:
        document: index of each accepted sample's document, integer[N].
        target: its target grade, integer[N].
        documents: how many there are.
        targets: the run's target grades, ascending.
    """
    cells = document.astype(np.int64) * len(targets) + np.searchsorted(targets, target)
    counts = np.bincount(cells, minlength=documents * len(targets))
    return counts.reshape(documents, len(targets))


def shortfall(accepted: np.ndarray, per_grade: int) -> np.ndarray:
    """Samples to ask for so that every cell of `accepted` can reach the quota; same shape."""
    missing: np.ndarray = np.maximum(per_grade - accepted, 0)
    return missing
