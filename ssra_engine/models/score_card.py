"""The card of a score model: its calibration, and how good it is on held-out queries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.metrics import cohen_kappa_score, confusion_matrix, f1_score

from ssra_engine.calibration import evening_bias, fit_temperature, log_softmax

__all__ = ["grade_weights", "quality", "score_card", "unclear_shares"]

_BINS = 10


def score_card(
    judged: pa.Table,
    held_out: pa.Table,
    logits: np.ndarray | None,
    scale: int,
    evenness: float,
    training: dict[str, Any],
) -> dict[str, Any]:
    """Calibrate a score model and measure it.

    Args:
        judged: `schema.D2Q` rows it was trained on.
        held_out: `schema.D2Q` rows of other queries.
        logits: its logits of these, float64[len(held_out), scale]; None without rows.
        scale: number of grades.
        evenness: how far the mix of the judged grades is taken out, 0 to 1: one half by the weights
            of the rows, the other by the bias.
        training: figures of the training.

    Returns:
        ``temperature``, ``bias``, ``training`` and, with held-out rows, the quality on them without
        the bias (``held_out``) and with it (``held_out_evened``).
    """
    bias = evening_bias(judged["grade"].to_numpy(), scale, evenness / 2)
    card: dict[str, Any] = {"temperature": 1.0, "bias": list(bias), "training": training}
    if logits is not None:
        grades = held_out["grade"].to_numpy().astype(np.int64)
        card["temperature"] = fit_temperature(logits, grades)
        logits = logits / card["temperature"]
        card["held_out"] = quality(logits, grades)
        card["held_out_evened"] = quality(logits + np.asarray(bias), grades)
    return card


def grade_weights(grades: np.ndarray, scale: int, power: float = 0.5) -> list[float]:
    """Weight of each row: its grade's share to the power of -`power`, with mean 1.

    One half lies between the natural mix, in which rare grades are never learned, and equal grades,
    in which a handful of rows would outweigh the rest.
    """
    if not len(grades):
        return []
    share = np.bincount(grades, minlength=scale) / len(grades)
    weights = share[grades] ** -power
    return [float(weight) for weight in weights / weights.mean()]


def unclear_shares(grades: np.ndarray, scale: int, power: float) -> list[float]:
    """What to learn for a query that has no grade: probabilities that the bias will make even.

    Args:
        grades: int[N], of the judged rows.
        scale: number of grades.
        power: of the bias; see `evening_bias`.

    Returns:
        one share a grade, with sum 1.
    """
    shares = np.exp(-np.asarray(evening_bias(grades, scale, power)))
    return [float(share) for share in shares / shares.sum()]


def quality(logits: np.ndarray, grades: np.ndarray) -> dict[str, Any]:
    """How good a score model is: calibrated logits float[N, G] against grades int[N].

    Returns:
        ``rows``, ``accuracy``, ``f1`` per grade, ``quadratic_kappa``, ``calibration_error``
        (expected, ten bins of confidence), ``reliability`` (rows, mean confidence and accuracy of
        each of those bins that holds rows) and the ``confusion`` matrix (rows: judged grade).
    """
    probs = np.exp(log_softmax(logits))
    scale = list(range(logits.shape[1]))
    predicted, confidence = probs.argmax(1), probs.max(1)
    right = predicted == grades
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    reliability = [
        [int(mine.sum()), float(confidence[mine].mean()), float(right[mine].mean())]
        for mine in (bins == b for b in np.unique(bins))
    ]
    gaps = [rows * abs(share - sure) / len(grades) for rows, sure, share in reliability]
    scores = f1_score(grades, predicted, labels=scale, average=None, zero_division=0.0)
    varied = len({*grades.tolist(), *predicted.tolist()}) > 1
    return {
        "rows": len(grades),
        "accuracy": float(right.mean()),
        "f1": [float(score) for score in scores],
        "quadratic_kappa": float(cohen_kappa_score(grades, predicted, weights="quadratic"))
        if varied
        else 0.0,
        "calibration_error": float(sum(gaps)),
        "reliability": reliability,
        "confusion": confusion_matrix(grades, predicted, labels=scale).tolist(),
    }
