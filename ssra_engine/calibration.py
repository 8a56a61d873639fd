"""From the score model's label logits to probabilities of grades that can be relied on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Calibration", "evening_bias", "fit_temperature", "log_softmax"]


@dataclass(frozen=True)
class Calibration:
    """Probabilities are softmax(logits / temperature + bias).

    Attributes:
        temperature: of calibration (Guo et al., ICML 2017, arXiv 1706.04599).
        bias: one number a grade, see `evening_bias`; empty for none.
    """

    temperature: float = 1.0
    bias: tuple[float, ...] = ()

    def probs(self, logits: np.ndarray) -> np.ndarray:
        """float32[N, G] from float[N, G]; not a number where the logits are not."""
        shifted = logits.astype(np.float64) / self.temperature
        if self.bias:
            shifted += np.asarray(self.bias)
        with np.errstate(invalid="ignore"):
            probs: np.ndarray = np.exp(log_softmax(shifted)).astype(np.float32)
        return probs


def fit_temperature(logits: np.ndarray, grades: np.ndarray) -> float:
    """The temperature, out of 121 from 0.1 to 10, that makes held-out grades likeliest.

    Args:
        logits: float[N, G].
        grades: int[N].
    """
    candidates = np.logspace(-1, 1, 121)
    losses = [-log_softmax(logits / t)[np.arange(len(grades)), grades].mean() for t in candidates]
    return float(candidates[int(np.argmin(losses))])


def evening_bias(grades: Sequence[int] | np.ndarray, scale: int, power: float) -> tuple[float, ...]:
    """Bias that takes the mix of the judged grades out of a model's logits (arXiv 2007.07314).

    Judgments are mostly perfect or useless, so a model trained on them predicts little else; the
    targets of a synthesis are even. The bias of a grade is -power * log(its share), with mean 0; a
    grade without judgments gets none, since nothing is known of its logit.

    Args:
        grades: int[N], of the training data.
        scale: number of grades.
        power: 1 takes the mix out whole, 0 leaves it.
    """
    counts = np.bincount(np.asarray(grades, np.int64), minlength=scale)
    bias = np.zeros(scale)
    seen = counts > 0
    bias[seen] = -power * np.log(counts[seen] / counts.sum())
    bias[seen] -= bias[seen].mean()
    return tuple(bias.tolist())


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Along the last axis of float64[N, G]."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
