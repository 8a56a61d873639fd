"""One walk over the groups of a task: search, rescore, choose, a bounded number at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ssra_engine.negatives.reranking import Reranker
from ssra_engine.negatives.sampling import Draws
from ssra_engine.negatives.search import Search
from ssra_engine.negatives.selection import Candidates, Choice, GradePairs, choose
from ssra_engine.negatives.settings import Settings
from ssra_engine.negatives.task import Task

__all__ = ["Mined", "walk"]

Int64s = npt.NDArray[np.int64]
Float32s = npt.NDArray[np.float32]

# Candidates at a time. Choosing needs about 80 bytes for each, which makes 80 MB.
_CANDIDATES = 2**20


@dataclass(frozen=True)
class Mined:
    """What a walk found.

    Attributes:
        choice: the negatives of every group.
        positive_scores: float32[P].
        candidates: how many there could have been, in all.
        skipped: how many of them each limit refused.
    """

    choice: Choice
    positive_scores: Float32s
    candidates: int
    skipped: Counter[str]


def walk(
    task: Task,
    vectors: npt.NDArray[np.floating[Any]],
    search: Search,
    positive_scores: Float32s,
    settings: Settings,
    *,
    queries_at_once: int,
    rerank: Reranker | None = None,
    grade: GradePairs | None = None,
    seed: int | None = None,
    done: Callable[[int], None] = lambda groups: None,
) -> Mined:
    """Mine every group.

    Args:
        task: G groups, at least one.
        vectors: floats [Q, d], of the queries.
        search: of the corpus.
        positive_scores: float32[P]; margins count from the lowest of a group.
        settings: resolved.
        queries_at_once: an upper bound.
        rerank: its scores take the place of the search's.
        grade: see `choose`.
        seed: see `Draws`.
        done: told how many groups are done.
    """
    assert settings.range_max is not None
    reach = settings.range_max + task.most_known
    k = max(min(reach, len(task.corpus)), settings.range_min + settings.num_negatives)
    lowest = np.minimum.reduceat(positive_scores, task.offsets[:-1])
    draws, skipped = Draws(seed), Counter[str]()
    parts = []
    for groups in _portions(len(task.group_query), min(queries_at_once, _CANDIDATES // k)):
        found = _candidates(task, groups, vectors, search, k, rerank)
        part = choose(found, task.floors[groups], lowest[groups], settings, draws, grade, skipped)
        parts.append(part)
        done(groups.stop)
    choice = Choice(*(np.concatenate(part) for part in zip(*parts, strict=True)))
    return Mined(choice, positive_scores, len(task.group_query) * reach, skipped)


def _portions(total: int, most: int) -> Iterator[slice]:
    step = max(most, 1)
    for start in range(0, total, step):
        yield slice(start, min(start + step, total))


def _candidates(
    task: Task,
    groups: slice,
    vectors: npt.NDArray[np.floating[Any]],
    search: Search,
    k: int,
    rerank: Reranker | None,
) -> Candidates:
    query = task.group_query[groups]
    first, last = int(query[0]), int(query[-1])
    scores, ids = search(vectors[first : last + 1], k)
    if rerank is not None:
        row, column = np.nonzero(ids >= 0)
        pairs = zip((first + row).tolist(), ids[row, column].tolist(), strict=True)
        scores[row, column] = rerank((task.queries[q], task.corpus[d]) for q, d in pairs)
    if last - first + 1 != len(query):
        scores, ids = scores[query - first], ids[query - first]
    keys = query[:, None] * len(task.corpus) + ids
    return Candidates(ids, scores, keys, task.known.of(keys))
