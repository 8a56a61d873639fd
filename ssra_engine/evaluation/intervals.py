"""How sure a figure is: bootstrap over queries, and tests of two models on the same queries.

Queries are drawn, never pairs: the pairs of one query are not independent. Every function takes a
seed and gives the same answer for the same seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import bootstrap, permutation_test

__all__ = ["Interval", "bootstrap_mean", "bootstrap_pooled", "randomisation_p"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Interval:
    """A figure and its percentile bootstrap interval; None where it is not defined.

    Attributes:
        value: the figure.
        low: lower end.
        high: upper end.
        queries: how many it is of.
    """

    value: float | None
    low: float | None
    high: float | None
    queries: int


def bootstrap_mean(values: Floats, *, resamples: int, confidence: float, seed: int) -> Interval:
    """The mean of one figure per query.

    Args:
        values: float64[Q]; NaN where a query has no figure, and such queries are left out.
        resamples: 0 for no interval.
        confidence: of the interval.
        seed: of the draws.
    """
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return Interval(None, None, None, 0)
    mean = float(values.mean())
    if len(values) < 2 or resamples == 0:
        return Interval(mean, None, None, len(values))
    drawn = _draw(values, np.mean, resamples, seed, vectorized=True)
    return Interval(mean, *_percentiles(drawn, confidence), len(values))


def bootstrap_pooled(
    measure: Callable[[Ints], dict[str, float]],
    query_of: Ints,
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> dict[str, Interval]:
    """Figures of all pairs together, whose queries are drawn with all their pairs.

    Args:
        measure: int64[P], how often each pair counts -> figures, NaN where one is not defined.
        query_of: int64[P], the query of each pair, 0..Q-1 without gaps.
        resamples: 0 for no interval.
        confidence: of the intervals; draws where a figure is not defined are left out.
        seed: of the draws.
    """
    queries = int(query_of.max()) + 1
    values = measure(np.ones(len(query_of), np.int64))

    def of_queries(drawn: Floats) -> Floats:
        times = np.bincount(drawn.astype(np.int64), minlength=queries)[query_of]
        return np.array(list(measure(times).values()))

    rows = np.full((len(values), 1), np.nan)
    if queries > 1 and resamples:
        rows = _draw(
            np.arange(queries, dtype=np.float64), of_queries, resamples, seed, vectorized=False
        )
    return {
        name: Interval(None, None, None, queries)
        if np.isnan(value)
        else Interval(value, *_percentiles(row, confidence), queries)
        for (name, value), row in zip(values.items(), rows, strict=True)
    }


def randomisation_p(first: Floats, second: Floats, *, resamples: int, seed: int) -> float | None:
    """Two-sided p of Fisher's paired randomisation test of the mean difference.

    As recommended for retrieval by Smucker, Allan and Carterette (CIKM 2007). Exact where there are
    no more than `resamples` ways to swap.

    Args:
        first: float64[Q], NaN where a query has no figure.
        second: float64[Q], of the other model.
        resamples: random swaps.
        seed: of the swaps.

    Returns:
        p, or None with fewer than two queries.
    """
    both = ~(np.isnan(first) | np.isnan(second))
    if both.sum() < 2 or resamples == 0:
        return None
    found = permutation_test(
        (first[both], second[both]),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def _draw(
    data: Floats,
    statistic: Callable[..., Any],
    resamples: int,
    seed: int,
    *,
    vectorized: bool,
) -> Floats:
    """float64[.., resamples], the statistic of resampled data."""
    found = bootstrap(
        (data,),
        statistic,
        n_resamples=resamples,
        method="percentile",
        vectorized=vectorized,
        rng=np.random.default_rng(seed),
    )
    return np.asarray(found.bootstrap_distribution, np.float64)


def _percentiles(drawn: Floats, confidence: float) -> tuple[float | None, float | None]:
    known = drawn[~np.isnan(drawn)]
    if len(known) == 0:
        return None, None
    tail = (1 - confidence) / 2
    low, high = np.quantile(known, [tail, 1 - tail])
    return float(low), float(high)
