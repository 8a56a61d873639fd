"""The report of an A/B test: CTR, strong relevance ratio and user penetration rate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ssra_engine.abtest.logs import read_users, shared_users
from ssra_engine.abtest.ratios import Floats, Moments, compare_ratios, mismatch_p, moments
from ssra_engine.errors import ConfigError, DataError

__all__ = ["METRICS", "MISMATCH", "compare_arms", "compare_logs"]

#: Metric and its sums over users: numerator and denominator. None: 1 for each user, and of the
#: numerator only whether it is above 0.
METRICS: dict[str, tuple[str, str | None]] = {
    "ctr": ("clicks", "impressions"),
    "strong_relevance_ratio": ("strong", "judged"),
    "user_penetration_rate": ("used", None),
}

#: A sample-ratio mismatch below this p makes the whole test doubtful.
MISMATCH = 0.001


def compare_logs(
    control: Sequence[str | Path],
    treatment: Sequence[str | Path],
    *,
    strong: int = 3,
    share: float = 0.5,
    confidence: float = 0.95,
    power: float = 0.8,
) -> dict[str, Any]:
    """Compare two arms from their logs (`logs` says what is in them).

    Args:
        control: files of the control.
        treatment: files of the treatment.
        strong: lowest grade of a strongly relevant result.
        share: planned share of users in the treatment.
        confidence: of the intervals.
        power: with which the smallest effect is found.

    Returns:
        what `compare_arms` returns.

    Raises:
        ConfigError: a setting is out of range.
        DataError: a log is bad, an arm has fewer than two users, or a user is in both arms.
    """
    for name, value in {"share": share, "confidence": confidence, "power": power}.items():
        if not 0 < value < 1:
            raise ConfigError(f"{name}: {value} is not between 0 and 1.")
    arms = [read_users(inputs, strong) for inputs in (control, treatment)]
    for name, inputs, users in zip(
        ("control", "treatment"), (control, treatment), arms, strict=True
    ):
        if len(users) < 2:
            raise DataError(
                f"the {name} has {len(users)} users; two are the least",
                file=str(inputs[0]),
                column="user_id",
                mend="Give the logs of the whole arm",
            )
    both = shared_users(*arms)
    if both:
        raise DataError(
            f"{both} users are in both arms, so their difference is not that of the arms",
            file=str(control[0]),
            column="user_id",
            mend="Drop these users from both logs, and find out why they changed arms",
        )
    return compare_arms(*arms, share=share, confidence=confidence, power=power)


def compare_arms(
    control: pa.Table, treatment: pa.Table, *, share: float, confidence: float, power: float
) -> dict[str, Any]:
    """Compare per-user sums (`logs.USERS`) of two arms.

    Returns:
        users and impressions of each arm; mismatch: planned share, p and whether it is below
        `MISMATCH`; confidence; power; metrics: the numbers of `ratios.Effect` by name, null where
        they are not known, or null in all where an arm has no row to take the metric of.
    """
    p = mismatch_p((len(control), len(treatment)), share)
    metrics: dict[str, dict[str, float | None] | None] = {}
    for name in METRICS:
        arms = [_moments(users, name) for users in (control, treatment)]
        if min(float(arm.y) for arm in arms) <= 0:
            metrics[name] = None
            continue
        effect = compare_ratios(*arms, confidence=confidence, power=power)
        metrics[name] = {key: _number(value) for key, value in vars(effect).items()}
    return {
        "users": {"control": len(control), "treatment": len(treatment)},
        "impressions": {
            "control": int(_column(control, "impressions").sum()),
            "treatment": int(_column(treatment, "impressions").sum()),
        },
        "mismatch": {"planned_share": share, "p": p, "found": p < MISMATCH},
        "confidence": confidence,
        "power": power,
        "metrics": metrics,
    }


def _moments(users: pa.Table, metric: str) -> Moments:
    numerator, denominator = METRICS[metric]
    x = _column(users, numerator)
    if denominator is None:
        return moments((x > 0).astype(np.float64), np.ones_like(x))
    return moments(x, _column(users, denominator))


def _column(users: pa.Table, name: str) -> Floats:
    return np.asarray(users[name].to_numpy(), np.float64)


def _number(value: Floats) -> float | None:
    return float(value) if np.isfinite(value) else None
