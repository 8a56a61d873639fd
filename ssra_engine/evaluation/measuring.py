"""All figures of one model at one dim and precision, how sure they are, and two models compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ssra_engine.errors import ConfigError
from ssra_engine.evaluation.embedding import PRECISIONS, Precision
from ssra_engine.evaluation.intervals import bootstrap_mean, bootstrap_pooled, randomisation_p
from ssra_engine.evaluation.lists import (
    JudgedPairs,
    Lists,
    corpus_lists,
    judged_lists,
    pair_scores,
)
from ssra_engine.evaluation.pairs import pair_figures
from ssra_engine.evaluation.ranking import ranking_metrics

__all__ = [
    "Figures",
    "Settings",
    "compare",
    "measure",
    "measure_scores",
    "relevant_grade",
    "summarise",
    "thresholds",
]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]

# In corpus mode, lists are at least this long, for the reciprocal rank.
_DEPTH = 100
# Swaps of the randomisation test; its smallest p is 1 / (swaps + 1).
_SWAPS = 9999


@dataclass(frozen=True)
class Settings:
    """What to measure.

    Attributes:
        mode: "judged" ranks each query's judged documents, "corpus" all documents, where one that
            is not judged counts as grade 0.
        dims: Matryoshka dims, each prefix to unit length again; none means the whole vector.
        precisions: of the documents (see `embedding.at_precision`).
        cutoffs: of nDCG and recall.
        min_list: in judged mode, shorter lists give no figures per query.
        relevant: lowest grade that recall and mrr count as relevant; by default the upper half of
            the grades found, (largest + 1) // 2.
        resamples: of the bootstrap; 0 for neither intervals nor tests.
        confidence: of the intervals.
        seed: of draws and of the order of ties.
    """

    mode: Literal["judged", "corpus"] = "judged"
    dims: tuple[int, ...] = ()
    precisions: tuple[Precision, ...] = PRECISIONS
    cutoffs: tuple[int, ...] = (5, 10)
    min_list: int = 10
    relevant: int | None = None
    resamples: int = 1000
    confidence: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.cutoffs or min(self.cutoffs) < 1:
            raise ConfigError("cutoffs are lengths of lists, 1 or more. Give some, such as 5,10.")
        if not 0 < self.confidence < 1:
            raise ConfigError(f"a confidence of {self.confidence} is not between 0 and 1.")
        if not self.precisions or not set(self.precisions) <= set(PRECISIONS):
            known = ", ".join(PRECISIONS)
            raise ConfigError(f"a precision is one of {known}. Give some of these.")


@dataclass(frozen=True)
class Figures:
    """Figures of one model at one dim and precision.

    Attributes:
        per_query: name -> float64[Q], NaN where the query has no such figure: those of
            `ranking.ranking_metrics`, ap_ge<grade>, spearman, and judged@<k> in corpus mode (the
            share of the first k that is judged).
        scores: float64[P], score of each judged pair.
    """

    per_query: Mapping[str, Floats]
    scores: Floats


def thresholds(pairs: JudgedPairs) -> tuple[int, ...]:
    """The grades of average precision: those found, without the lowest."""
    return tuple(np.unique(pairs.grade).tolist()[1:])


def relevant_grade(pairs: JudgedPairs, settings: Settings) -> int:
    """The lowest grade that counts as relevant (see `Settings.relevant`)."""
    if settings.relevant is not None:
        return settings.relevant
    return max((int(pairs.grade.max()) + 1) // 2, 1)


def measure(
    pairs: JudgedPairs, queries: Vectors, documents: Vectors, settings: Settings
) -> Figures:
    """Figures of vectors whose inner product is the score.

    Args:
        pairs: what is judged.
        queries: float32[Q, d].
        documents: float32[N, d].
        settings: dims and precisions are the caller's business.
    """
    scores = pair_scores(pairs, queries, documents)
    if settings.mode == "judged":
        return measure_scores(pairs, scores, settings)
    lists = corpus_lists(pairs, queries, documents, max(_DEPTH, *settings.cutoffs))
    found = _ranking(pairs, lists, settings)
    for k in settings.cutoffs:
        found[f"judged@{k}"] = np.array(
            [_share(best, of) for best, of in zip(_first(lists, k), pairs.grades(), strict=True)]
        )
    found |= _pairs_per_query(pairs, scores.astype(np.float64))
    return Figures(found, scores.astype(np.float64))


def measure_scores(pairs: JudgedPairs, scores: Vectors, settings: Settings) -> Figures:
    """Figures of judged lists by scores from anywhere.

    Args:
        pairs: what is judged.
        scores: float32[P], of each pair.
        settings: cutoffs, the shortest list and what is relevant.
    """
    found = _ranking(pairs, judged_lists(pairs, scores), settings)
    found |= _pairs_per_query(pairs, scores.astype(np.float64))
    short = np.bincount(pairs.query) < settings.min_list
    found = {name: np.where(short, np.nan, values) for name, values in found.items()}
    return Figures(found, scores.astype(np.float64))


def _ranking(pairs: JudgedPairs, lists: Lists, settings: Settings) -> dict[str, Floats]:
    relevant = relevant_grade(pairs, settings)
    return ranking_metrics(pairs.grades(), lists, cutoffs=settings.cutoffs, relevant=relevant)


def summarise(figures: Figures, pairs: JudgedPairs, settings: Settings) -> dict[str, Any]:
    """Means over queries, and figures of all pairs together, with intervals.

    Returns:
        per_query and pooled: name -> value, low, high, queries (`intervals.Interval`).
    """
    sure = _sureness(settings)
    means = {name: bootstrap_mean(row, **sure) for name, row in figures.per_query.items()}
    grades = thresholds(pairs)

    def all_pairs(times: Ints) -> dict[str, float]:
        return pair_figures(pairs.grade, figures.scores, times, grades)

    pooled = bootstrap_pooled(all_pairs, pairs.query, **sure)
    return {
        "per_query": {name: asdict(one) for name, one in means.items()},
        "pooled": {name: asdict(one) for name, one in pooled.items()},
    }


def compare(
    first: Figures, second: Figures, pairs: JudgedPairs, settings: Settings
) -> dict[str, Any]:
    """`first` minus `second`, on the same queries.

    Returns:
        per_query and pooled: name -> value (the difference), low, high, queries; and p of the
        paired randomisation test per query. Pooled figures have no p: swapping the scores of two
        models mixes their scales, so the interval of the difference is the test.
    """
    sure = _sureness(settings)
    swaps = _SWAPS if settings.resamples else 0
    means = {}
    for name, ours in first.per_query.items():
        theirs = second.per_query[name]
        p = randomisation_p(ours, theirs, resamples=swaps, seed=settings.seed)
        means[name] = {**asdict(bootstrap_mean(ours - theirs, **sure)), "p": p}
    grades = thresholds(pairs)

    def all_pairs(times: Ints) -> dict[str, float]:
        ours, theirs = (
            pair_figures(pairs.grade, one.scores, times, grades) for one in (first, second)
        )
        return {name: ours[name] - theirs[name] for name in ours}

    pooled = bootstrap_pooled(all_pairs, pairs.query, **sure)
    return {"per_query": means, "pooled": {name: asdict(one) for name, one in pooled.items()}}


def _sureness(settings: Settings) -> dict[str, Any]:
    return {
        "resamples": settings.resamples,
        "confidence": settings.confidence,
        "seed": settings.seed,
    }


def _pairs_per_query(pairs: JudgedPairs, scores: Floats) -> dict[str, Floats]:
    order = np.argsort(pairs.query, kind="stable")
    grades = thresholds(pairs)
    rows = [
        pair_figures(pairs.grade[of_one], scores[of_one], np.ones(len(of_one), np.int64), grades)
        for of_one in np.split(order, np.cumsum(np.bincount(pairs.query))[:-1])
    ]
    return {name: np.array([row[name] for row in rows]) for name in rows[0] if name != "ap_mean"}


def _first(lists: list[dict[str, float]], k: int) -> list[list[str]]:
    return [list(one)[:k] for one in lists]


def _share(best: list[str], judged: Mapping[str, int]) -> float:
    return sum(key in judged for key in best) / len(best)
