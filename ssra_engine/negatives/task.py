"""From rows of texts to what is mined: distinct queries, a corpus, and what each query has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["UNKNOWN", "Known", "Task", "graded_task", "plain_task"]

Int64s = npt.NDArray[np.int64]
Grades = npt.NDArray[np.int8]

#: Grade of a pair that nobody graded; below every grade.
UNKNOWN = -1


@dataclass(frozen=True)
class Known:
    """Grades of pairs of query and document.

    Attributes:
        keys: int64[M], rising: query * documents + document.
        grades: int8[M].
    """

    keys: Int64s
    grades: Grades

    def of(self, keys: Int64s) -> Grades:
        """int8, of the shape of `keys`: `UNKNOWN` where a pair is not known."""
        if not len(self.keys):
            return np.full(keys.shape, UNKNOWN, np.int8)
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[at] == keys, self.grades[at], np.int8(UNKNOWN))


@dataclass(frozen=True)
class Task:
    """What to mine for. A group is what gets one list of negatives.

    Attributes:
        queries: distinct.
        corpus: distinct documents.
        group_query: int64[G], rising: the query of each group.
        offsets: int64[G + 1] into `positives`.
        positives: int64[P], distinct within a group: documents.
        grades: int8[P], of the positives; None where there are no grades.
        floors: int8[G]: a group's negatives have grades below it, or unknown ones.
        known: what is known of the queries' documents.
        most_known: the most documents known of any query.
        rows: how many rows the task was made from.
    """

    queries: list[str]
    corpus: list[str]
    group_query: Int64s
    offsets: Int64s
    positives: Int64s
    grades: Grades | None
    floors: Grades
    known: Known
    most_known: int
    rows: int

    @property
    def positive_group(self) -> Int64s:
        """int64[P], the group of each positive."""
        return np.repeat(np.arange(len(self.group_query)), np.diff(self.offsets))

    @property
    def positive_query(self) -> Int64s:
        """int64[P], the query of each positive."""
        return self.group_query[self.positive_group]


def plain_task(anchors: Sequence[str], positives: Sequence[str], corpus: Sequence[str]) -> Task:
    """A group for each distinct query, with all its positives, none of which is a negative.

    The corpus comes first, then the positives that are not in it, both in order.
    """
    queries, query = _number(anchors)
    documents, document = _number([*corpus, *positives])
    document = document[len(corpus) :]
    keys = query * len(documents) + document
    distinct, first = np.unique(keys, return_index=True)
    first.sort()
    of_query = first[np.argsort(query[first], kind="stable")]
    return Task(
        queries=queries,
        corpus=documents,
        group_query=np.arange(len(queries)),
        offsets=_offsets(np.bincount(query[first], minlength=len(queries))),
        positives=document[of_query],
        grades=None,
        floors=np.ones(len(queries), np.int8),
        known=Known(distinct, np.ones(len(distinct), np.int8)),
        most_known=int(np.bincount(query).max()),
        rows=len(anchors),
    )


def graded_task(
    anchors: Sequence[str],
    documents: Sequence[str],
    grades: Grades,
    corpus: Sequence[str],
    judged: tuple[Sequence[str], Sequence[str], Grades],
) -> Task:
    """A group for each distinct pair of grade 1 or higher; grade 0 is knowledge only.

    A group's negatives have lower grades than its pair, so a positive of a low grade may be a
    negative beside one of a high grade. Of several grades of a pair the highest counts. `judged`
    adds knowledge about queries and documents that are here, and nothing else.

    Returns:
        groups by query, then in order of appearance; none at all where no grade is above 0.
    """
    above = np.flatnonzero(grades > 0)
    queries, _ = _number([anchors[row] for row in above.tolist()])
    everything, _ = _number([*corpus, *documents])
    keys, found = _keys((*anchors, *judged[0]), (*documents, *judged[1]), queries, everything)
    every_grade = np.concatenate([grades, judged[2]])
    here = np.flatnonzero(found)
    order = here[np.lexsort((-every_grade[here], keys[here]))]
    distinct, first = np.unique(keys[order], return_index=True)
    known = Known(distinct, every_grade[order][first])

    rows = above[np.sort(np.unique(keys[above], return_index=True)[1])]
    pairs = keys[rows[np.argsort(keys[rows] // len(everything), kind="stable")]]
    of_query = np.bincount(distinct // len(everything), minlength=1)
    of_pair = known.of(pairs)
    return Task(
        queries=queries,
        corpus=everything,
        group_query=pairs // len(everything),
        offsets=np.arange(len(pairs) + 1),
        positives=pairs % len(everything),
        grades=of_pair,
        floors=of_pair,
        known=known,
        most_known=int(of_query.max()),
        rows=len(rows),
    )


def _number(texts: Sequence[str]) -> tuple[list[str], Int64s]:
    """Distinct texts in order of appearance, and the number of each text among them."""
    numbers: dict[str, int] = {}
    which = np.fromiter((numbers.setdefault(text, len(numbers)) for text in texts), np.int64)
    return list(numbers), which


def _keys(
    anchors: Sequence[str], documents: Sequence[str], queries: list[str], corpus: list[str]
) -> tuple[Int64s, npt.NDArray[np.bool_]]:
    """Key of each pair, and whether both its texts are here."""
    of_query = {text: number for number, text in enumerate(queries)}
    of_document = {text: number for number, text in enumerate(corpus)}
    query = np.fromiter((of_query.get(text, -1) for text in anchors), np.int64)
    document = np.fromiter((of_document.get(text, -1) for text in documents), np.int64)
    return query * len(corpus) + document, (query >= 0) & (document >= 0)


def _offsets(counts: npt.ArrayLike) -> Int64s:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
