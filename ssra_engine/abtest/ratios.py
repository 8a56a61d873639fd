"""Ratios of sums over users, and their differences between two arms.

Impressions of one user resemble each other, so the user is the unit that counts, not the
impression: a ratio sum(x) / sum(y) over users has the variance of the delta method (Deng, Knoblich
and Lu, KDD 2018, arXiv 1803.06336).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2, norm

__all__ = ["Effect", "Moments", "compare_ratios", "mismatch_p", "moments"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """Sums over the users of one arm, each a number or an array over arms of many experiments.

    Attributes:
        users: how many.
        x: sum of the numerator.
        y: sum of the denominator.
        xx: sum of its squares; likewise `xy` and `yy`.
    """

    users: Floats
    x: Floats
    y: Floats
    xx: Floats
    xy: Floats
    yy: Floats


@dataclass(frozen=True)
class Effect:
    """Treatment against control; every attribute a number, or an array over experiments.

    Attributes:
        control: ratio of the control; likewise `treatment`.
        control_error: its standard error; likewise `treatment_error`.
        difference: treatment - control, with `low` and `high`.
        lift: treatment / control - 1, with `lift_low` and `lift_high`: an interval of the logarithm
            of the quotient, taken back; NaN where a ratio is 0.
        p: of no difference, two-sided.
        smallest: the smallest true difference that a test with such standard errors finds with the
            power asked for; `smallest_lift` is its share of the control.
    """

    control: Floats
    treatment: Floats
    control_error: Floats
    treatment_error: Floats
    difference: Floats
    low: Floats
    high: Floats
    lift: Floats
    lift_low: Floats
    lift_high: Floats
    p: Floats
    smallest: Floats
    smallest_lift: Floats


def moments(x: Floats, y: Floats) -> Moments:
    """Sums over the last axis of per-user sums, float64[..., users]."""
    users = np.asarray(float(x.shape[-1]))
    return Moments(users, x.sum(-1), y.sum(-1), (x * x).sum(-1), (x * y).sum(-1), (y * y).sum(-1))


def compare_ratios(
    control: Moments, treatment: Moments, *, confidence: float = 0.95, power: float = 0.8
) -> Effect:
    """Compare the ratios of two arms, whose users are different people.

    Args:
        control: sums of its users; two or more, with a positive denominator in all.
        treatment: the same.
        confidence: of the intervals, each of which stands for itself.
        power: with which `Effect.smallest` is found at a level of 1 - confidence.
    """
    (first, first_error), (second, second_error) = _ratio(control), _ratio(treatment)
    difference = second - first
    error = np.hypot(first_error, second_error)
    z = float(norm.ppf(0.5 + confidence / 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = z * np.hypot(first_error / first, second_error / second)
        quotient = second / first
        p = 2 * norm.sf(np.abs(difference) / error)
        quotient = np.where(first * second > 0, quotient, np.nan)
        lifts = [quotient * np.exp(way * spread) - 1 for way in (0, -1, 1)]
        smallest = (z + float(norm.ppf(power))) * error
        smallest_lift = smallest / first
    return Effect(
        control=first,
        treatment=second,
        control_error=first_error,
        treatment_error=second_error,
        difference=difference,
        low=difference - z * error,
        high=difference + z * error,
        lift=lifts[0],
        lift_low=lifts[1],
        lift_high=lifts[2],
        p=p,
        smallest=smallest,
        smallest_lift=smallest_lift,
    )


def mismatch_p(users: tuple[int, int], share: float = 0.5) -> float:
    """Chance of arms this uneven or more, had each user been sent to treatment with chance `share`.

    Args:
        users: of control and treatment.
        share: planned share of the treatment.

    Returns:
        p of Pearson's chi-square test (sample-ratio mismatch, Fabijan et al., KDD 2019). Below
        0.001 or so the assignment or the log is broken, and no figure of the test can be trusted.
    """
    everyone = sum(users)
    expected = np.array([1 - share, share]) * everyone
    return float(chi2.sf(((np.array(users) - expected) ** 2 / expected).sum(), 1))


def _ratio(arm: Moments) -> tuple[Floats, Floats]:
    """Ratio and its standard error."""
    n = arm.users
    ratio = arm.x / arm.y
    # The sum of (x - ratio y)^2, whose mean is 0 by the choice of the ratio.
    residual = arm.xx - 2 * ratio * arm.xy + ratio * ratio * arm.yy
    variance = np.maximum(residual, 0.0) / (n - 1) * n / arm.y**2
    return ratio, np.sqrt(variance)
