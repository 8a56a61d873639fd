"""How well a score sorts judged pairs by grade: average precision and Spearman's rho."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import sklearn
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score

__all__ = ["average_precision", "pair_figures", "spearman"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def pair_figures(
    grades: Ints, scores: Floats, times: Ints, thresholds: Sequence[int]
) -> dict[str, float]:
    """Average precision at each grade, and rho.

    Args:
        grades: int64[P].
        scores: float64[P].
        times: int64[P], how often each pair counts.
        thresholds: grades g of "at least g".

    Returns:
        ap_ge<g> for each threshold, ap_mean (their mean), spearman; NaN where not defined.
    """
    found = {
        f"ap_ge{grade}": average_precision(grades, scores, times, grade) for grade in thresholds
    }
    if found:
        found["ap_mean"] = float(np.mean(list(found.values())))
    return {**found, "spearman": spearman(grades, scores, times)}


def average_precision(grades: Ints, scores: Floats, times: Ints, grade: int) -> float:
    """Average precision of the score as a classifier of the pairs of at least `grade`.

    sum over ranks of (recall gained x precision), pairs of equal score sharing one rank, as
    scikit-learn has it. NaN without a pair on either side.
    """
    counted = times > 0
    truth = grades[counted] >= grade
    if truth.all() or not truth.any():
        return float("nan")
    with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):
        return float(average_precision_score(truth, scores[counted], sample_weight=times[counted]))


def spearman(grades: Ints, scores: Floats, times: Ints) -> float:
    """Spearman's rank correlation of score and grade; NaN where either is constant."""
    grades, scores = np.repeat(grades, times), np.repeat(scores, times)
    if len(grades) < 2 or np.ptp(grades) == 0 or np.ptp(scores) == 0:
        return float("nan")
    return float(spearmanr(grades, scores).statistic)
