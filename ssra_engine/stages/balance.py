"""Quotas: what each (document, target grade) still lacks, and what a budget leaves of that."""

from __future__ import annotations

import numpy as np

__all__ = ["affordable", "count_accepted", "likely_kept", "shortfall"]

# Samples that the acceptance of a target over all documents weighs, against a document's own.
_PRIOR_SAMPLES = 2


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


def likely_kept(accepted: np.ndarray, asked: np.ndarray, acceptance: np.ndarray) -> np.ndarray:
    """Chance of the next sample of each cell to be kept, float64[documents, T].

    Args:
        accepted: samples kept so far, int64[documents, T].
        asked: samples asked for so far, same shape.
        acceptance: chance of a sample of each target before anything is known of the document,
            float64[T].
    """
    chance: np.ndarray = (accepted + _PRIOR_SAMPLES * acceptance) / (asked + _PRIOR_SAMPLES)
    return chance


def affordable(short: np.ndarray, most: np.ndarray, likely: np.ndarray) -> np.ndarray:
    """What each document asks for when it may ask for so many samples; as `short`.

    Every cell that is short gets one sample before any gets two, the likelier ones first.

    Args:
        short: samples that each cell lacks, int64[documents, T].
        most: samples that each document may ask for, int64[documents].
        likely: see `likely_kept`.
    """
    if (short.sum(axis=1) <= most).all():
        return short
    counts = short.ravel()
    cell = np.repeat(np.arange(counts.size), counts)
    turn = np.arange(cell.size) - np.repeat(np.cumsum(counts) - counts, counts)
    document = cell // short.shape[1]
    order = np.lexsort((cell, -likely.ravel()[cell], turn, document))
    of_document = document[order]
    place = np.arange(cell.size) - np.searchsorted(of_document, of_document)
    chosen = cell[order[place < most[of_document]]]
    return np.bincount(chosen, minlength=counts.size).reshape(short.shape)
