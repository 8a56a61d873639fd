"""How well a score sorts judged pairs by grade: average precision and Spearman's rho."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import sklearn
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score

__all__ = ["Measure", "average_precision", "mean_average_precision", "spearman"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: (grades, scores, times each pair counts) -> value, NaN where it is not defined.
Measure = Callable[[Ints, Floats, Ints], float]


def average_precision(grade: int) -> Measure:
    """Average precision of the score as a classifier of the pairs of at least this grade.

    Not defined without a pair on either side.
    """

    def measure(grades: Ints, scores: Floats, times: Ints) -> float:
        counted = times > 0
        truth = grades[counted] >= grade
        if truth.all() or not truth.any():
            return float("nan")
        with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):
            return float(
                average_precision_score(truth, scores[counted], sample_weight=times[counted])
            )

    return measure


def mean_average_precision(thresholds: Sequence[int]) -> Measure:
    """Mean of `average_precision` over some grades; not defined where one of them is not."""
    parts = [average_precision(grade) for grade in thresholds]

    def measure(grades: Ints, scores: Floats, times: Ints) -> float:
        return float(np.mean([part(grades, scores, times) for part in parts]))

    return measure


def spearman(grades: Ints, scores: Floats, times: Ints) -> float:
    """Spearman's rank correlation of score and grade; not defined where either is constant."""
    grades, scores = np.repeat(grades, times), np.repeat(scores, times)
    if len(grades) < 2 or np.ptp(grades) == 0 or np.ptp(scores) == 0:
        return float("nan")
    return float(spearmanr(grades, scores).statistic)
