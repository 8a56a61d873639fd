"""From candidates with scores to negatives: limits, the window of ranks, the draw, the grades."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ssra_engine.negatives.sampling import Draws, order_of_choice
from ssra_engine.negatives.settings import Settings
from ssra_engine.negatives.task import UNKNOWN

__all__ = ["Candidates", "Choice", "choose"]

Int64s = npt.NDArray[np.int64]
Float32s = npt.NDArray[np.float32]
Grades = npt.NDArray[np.int8]

#: int64[n] keys of pairs -> int8[n] their grades, 0 or higher.
GradePairs = Callable[[Int64s], Grades]


class Candidates(NamedTuple):
    """What a search found for some groups, K at least `range_min` + `num_negatives`.

    Attributes:
        ids: int64[g, K], -1 where nothing is.
        scores: float32[g, K], in any order.
        keys: int64[g, K], of the pairs of query and document.
        grades: int8[g, K], `UNKNOWN` where not known.
    """

    ids: Int64s
    scores: Float32s
    keys: Int64s
    grades: Grades


class Choice(NamedTuple):
    """The negatives of some groups, by falling score.

    Attributes:
        ids: int64[g, n], -1 where too few were found, always at the end of a row.
        scores: float32[g, n], -inf there.
        grades: int8[g, n], `UNKNOWN` there and where nobody graded.
    """

    ids: Int64s
    scores: Float32s
    grades: Grades


def choose(
    found: Candidates,
    floors: Grades,
    positive_scores: Float32s,
    settings: Settings,
    draws: Draws,
    grade: GradePairs | None,
    skipped: Counter[str],
) -> Choice:
    """Choose negatives among candidates.

    First goes what is known to be of the floor grade or higher, then what a limit refuses. Ranks
    count what is left, and the window of ranks is what the strategy chooses from. With `grade`,
    what is chosen and not known is graded, and replaced by the next choice where it reaches the
    floor, until nothing is left to ask.

    Args:
        found: candidates of g groups.
        floors: int8[g].
        positive_scores: float32[g], what margins count from.
        settings: resolved.
        draws: random numbers of the call.
        grade: asked for unknown grades; None lets them pass.
        skipped: told how many candidates each limit refused.
    """
    if settings.include_positives:
        floors = np.full_like(floors, np.iinfo(np.int8).max)
    allowed = (found.ids >= 0) & (found.grades < floors[:, None])
    _refuse(found.scores, allowed, positive_scores, settings, skipped)
    window = _ranked(found, allowed, settings)
    left = (window.ids >= 0).sum(axis=1)
    order = order_of_choice(
        window.scores, left, positive_scores, settings, draws, whole=grade is not None
    )
    turns = _take(window, order)
    chosen = _first(turns, floors, settings.num_negatives, grade)
    by_rank = np.argsort(np.where(chosen, order, len(window.ids[0])), axis=1, kind="stable")
    by_rank = by_rank[:, : settings.num_negatives]
    kept = np.take_along_axis(chosen, by_rank, axis=1)
    best = _take(turns, by_rank)
    return Choice(
        np.where(kept, best.ids, -1),
        np.where(kept, best.scores, np.float32(-np.inf)),
        np.where(kept, best.grades, np.int8(UNKNOWN)),
    )


def _refuse(
    scores: Float32s,
    allowed: npt.NDArray[np.bool_],
    positive_scores: Float32s,
    settings: Settings,
    skipped: Counter[str],
) -> None:
    """Clear `allowed` where a limit refuses a score; in float32, as sentence-transformers does."""
    positive = positive_scores[:, None]
    rules: dict[str, Callable[[np.float32], npt.NDArray[np.bool_]]] = {
        "absolute_margin": lambda margin: scores + margin > positive,
        "relative_margin": lambda margin: scores > positive - np.abs(positive) * margin,
        "max_score": lambda limit: scores > limit,
        "min_score": lambda limit: scores < limit,
    }
    for name, refused in rules.items():
        limit = getattr(settings, name)
        if limit is not None:
            hit = allowed & refused(np.float32(limit))
            allowed &= ~hit
            skipped[name] += int(hit.sum())


def _ranked(found: Candidates, allowed: npt.NDArray[np.bool_], settings: Settings) -> Candidates:
    """The window of ranks of what is allowed, by falling score; id -1 behind the last."""
    scores = np.where(allowed, found.scores, np.float32(-np.inf))
    order = np.argsort(-scores, axis=1, kind="stable")[:, settings.range_min : settings.range_max]
    allowed_first = found._replace(ids=np.where(allowed, found.ids, -1), scores=scores)
    return _take(allowed_first, order)


def _take(candidates: Candidates, columns: Int64s) -> Candidates:
    return Candidates(
        np.take_along_axis(candidates.ids, columns, axis=1),
        np.take_along_axis(candidates.scores, columns, axis=1),
        np.take_along_axis(candidates.keys, columns, axis=1),
        np.take_along_axis(candidates.grades, columns, axis=1),
    )


def _first(
    turns: Candidates, floors: Grades, n: int, grade: GradePairs | None
) -> npt.NDArray[np.bool_]:
    """The first n of each row whose grade is below the floor, or unknown where no one can tell.

    `turns.grades` takes in what `grade` says. Only pairs that would be chosen are asked about.
    """
    while True:
        fit = (turns.ids >= 0) & (turns.grades < floors[:, None])
        chosen: npt.NDArray[np.bool_] = fit & (fit.cumsum(axis=1) <= n)
        ask = chosen & (turns.grades == UNKNOWN)
        if grade is None or not ask.any():
            return chosen
        asked = np.unique(turns.keys[ask])
        answers = grade(asked)
        at = np.minimum(np.searchsorted(asked, turns.keys), len(asked) - 1)
        told = asked[at] == turns.keys
        turns.grades[told] = answers[at[told]]
