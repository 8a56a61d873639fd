"""CoSENT: a loss that asks better graded pairs to score higher (kexue.fm/archives/8847)."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["cosent_loss"]


def cosent_loss(scores: Tensor, grades: Tensor, temperature: float | Tensor = 0.1) -> Tensor:
    """log(1 + sum of exp((s_j - s_i) / temperature) over all i, j with grade_i > grade_j).

    Sorted by grade, the j of every i are a prefix, so one running log-sum-exp serves all of them:
    O(n log n) time and O(n) memory, where the sum has up to n * n / 2 terms.

    Args:
        scores: float[n].
        grades: [n], compared among all n.
        temperature: above 0; a tensor gets a gradient.

    Returns:
        A scalar; 0 where no two grades differ.

    Raises:
        ValueError: shapes that do not fit.
    """
    if scores.ndim != 1 or grades.shape != scores.shape:
        raise ValueError(
            f"scores and grades must both be [n], got {list(scores.shape)} and {list(grades.shape)}"
        )
    grades, order = torch.sort(grades)
    logits = scores[order] / temperature
    # How many grades are lower than each one: where its prefix ends.
    worse = torch.searchsorted(grades, grades)
    first = int((worse > 0).nonzero()[0]) if len(grades) and grades[0] < grades[-1] else None
    if first is None:
        return scores.sum() * 0
    prefixes = torch.logcumsumexp(logits, dim=0)
    terms = prefixes[worse[first:] - 1] - logits[first:]
    return torch.nn.functional.softplus(torch.logsumexp(terms, dim=0))
