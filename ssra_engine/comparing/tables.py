"""The paper's two tables over several methods: nDCG, and average precision at each grade."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ssra_engine.evaluation.intervals import bootstrap_mean, bootstrap_pooled, randomisation_p
from ssra_engine.evaluation.lists import JudgedPairs
from ssra_engine.evaluation.measuring import Figures, Settings, thresholds
from ssra_engine.evaluation.pairs import average_precision

__all__ = ["RANKING", "compare_figures", "reference_of"]

#: Figures per query of the first table.
RANKING = ("ndcg_exp@5", "ndcg_exp@10", "ndcg_linear@5", "ndcg_linear@10")

# Swaps of the randomisation test; its smallest p is 1 / (swaps + 1).
_SWAPS = 9999


def reference_of(methods: Sequence[str]) -> str:
    """The method that the others are tested against: SSRA, or the last."""
    return "ssra" if "ssra" in methods else methods[-1]


def compare_figures(
    figures: Mapping[str, Sequence[Figures]], pairs: JudgedPairs, settings: Settings
) -> dict[str, Any]:
    """Figures of each method, mean of its seeds, and the difference of the reference to it.

    Intervals are bootstrapped over queries. A figure of a query is the mean of the seeds before any
    test; average precision is taken for each seed and then averaged, in every resample. So the
    intervals are of the queries, given these seeds.

    Args:
        figures: of each method, one for each seed.
        pairs: what they are of.
        settings: confidence, resamples and seed.

    Returns:
        for each method: ranking and pooled, name -> value, low, high, queries; and, but for the
        reference, ranking_difference (with p of the paired randomisation test) and
        pooled_difference, reference minus method.
    """
    reference = reference_of(list(figures))
    sure: dict[str, Any] = {
        "resamples": settings.resamples,
        "confidence": settings.confidence,
        "seed": settings.seed,
    }
    means = {
        method: {name: np.mean([one.per_query[name] for one in of], axis=0) for name in RANKING}
        for method, of in figures.items()
    }
    grades = thresholds(pairs)

    def pooled(times: np.ndarray) -> dict[str, float]:
        own = {
            (method, name): value
            for method, of in figures.items()
            for name, value in _precisions(of, pairs, times, grades).items()
        }
        told = {f"{method} {name}": value for (method, name), value in own.items()}
        for (method, name), value in own.items():
            told[f"-{method} {name}"] = own[reference, name] - value
        return told

    drawn = bootstrap_pooled(pooled, pairs.query, **sure)
    report: dict[str, Any] = {}
    for method, rows in means.items():
        names = [f"ap_ge{grade}" for grade in grades] + ["ap_mean"]
        report[method] = {
            "ranking": {name: asdict(bootstrap_mean(row, **sure)) for name, row in rows.items()},
            "pooled": {name: asdict(drawn[f"{method} {name}"]) for name in names},
        }
        if method == reference:
            continue
        report[method]["ranking_difference"] = {
            name: {
                **asdict(bootstrap_mean(means[reference][name] - row, **sure)),
                "p": randomisation_p(
                    means[reference][name],
                    row,
                    resamples=_SWAPS if settings.resamples else 0,
                    seed=settings.seed,
                ),
            }
            for name, row in rows.items()
        }
        report[method]["pooled_difference"] = {
            name: asdict(drawn[f"-{method} {name}"]) for name in names
        }
    return report


def _precisions(
    of_seeds: Sequence[Figures], pairs: JudgedPairs, times: np.ndarray, grades: Sequence[int]
) -> dict[str, float]:
    """Average precision at each grade and their mean, each the mean of the seeds."""
    found = {
        f"ap_ge{grade}": float(
            np.mean([average_precision(pairs.grade, one.scores, times, grade) for one in of_seeds])
        )
        for grade in grades
    }
    found["ap_mean"] = float(np.mean(list(found.values())))
    return found
