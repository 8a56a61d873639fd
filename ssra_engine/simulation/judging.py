"""Simulated judgments and a simulated click log."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

import numpy as np
import pyarrow as pa

from ssra_engine.simulation.lexicon import FACETS, IMPORTANT, LANGUAGES, NON_CRITICAL, VALUES
from ssra_engine.simulation.queries import Asked, ask, ask_amiss, write_query
from ssra_engine.simulation.videos import Videos, document_name, weighted

__all__ = ["click_log", "judge"]

#: Share of the judgments, and of each grade's, that goes to each split.
_SPLITS = {"train": 0.64, "dev": 0.16, "test": 0.20}
#: Exact shares of the rare grades; what is left is divided between perfect and useless.
_RARE = {1: 0.04, 2: 0.04}
_PERFECT = 0.46
#: Perfect documents per judged query: at least so many, Zipf-distributed above, as far as the world
#: has them. As many useless ones are judged beside them; evaluation lists are judged deeper.
_DEPTH = {"train": 1, "dev": 5, "test": 5}
_DEEPEST = 30
#: How a useless document came to be judged, and how often.
_USELESS = ((0.30, "sibling"), (0.30, "topic"), (0.20, "mention"), (0.20, "any"))
#: Share of the documents in another language that a searcher sees.
_FOREIGN = 0.03

#: Grades of the click log: partial matches are clicked, useless ones less.
_CLICKED_GRADES = ((0.20, 0), (0.20, 1), (0.22, 2), (0.38, 3))
_CLICK_RATE = (0.6, 1.5, 3.0, 5.0)


class _Index:
    """The rows that searchers of one language see, by facet value and by mentioned entity."""

    def __init__(self, videos: Videos, seen: np.ndarray) -> None:
        self.rows = np.flatnonzero(seen)
        self.facets = videos.facets
        self._rows = {f: _groups(self.rows, videos.facets[f], len(VALUES[f])) for f in FACETS}
        self._mentions = _groups(self.rows, videos.mention, len(VALUES["entity"]))

    def grades(self, asked: Asked) -> tuple[np.ndarray, np.ndarray]:
        """Rows that satisfy the key, and the grade of each: the rule of `oracle.grade_facets`."""
        wanted = dict(asked)
        key = "entity" if "entity" in wanted else "series"
        rows = self._rows[key][wanted[key]]
        missed = {f: self.facets[f][rows] != v for f, v in asked}
        important = np.zeros(len(rows), bool)
        details = np.zeros(len(rows), np.int8)
        for facet, miss in missed.items():
            if facet in IMPORTANT:
                important |= miss
            elif facet in NON_CRITICAL:
                details += miss
        most = ~important & (2 * details < len(asked))
        grades = np.where(most, 2, 1)
        return rows, np.where(~important & (details == 0), 3, grades)

    def useless(self, asked: Asked, way: str, rng: Random) -> int:
        """A row that does not satisfy the key, or -1 when the draw was in vain."""
        wanted = dict(asked)
        rows = self.rows
        if way == "mention" and "entity" in wanted:
            rows = self._mentions[wanted["entity"]]
        elif way == "sibling" and "entity" in wanted:
            rows = self._rows["series"][VALUES["entity"][wanted["entity"]].parent]
        elif way == "topic" and "aspect" in wanted:
            rows = self._rows["aspect"][wanted["aspect"]]
        if not len(rows):
            return -1
        row = int(rows[int(rng.random() * len(rows))])
        key = "entity" if "entity" in wanted else "series"
        return -1 if self.facets[key][row] == wanted[key] else row


def _groups(rows: np.ndarray, values: np.ndarray, count: int) -> list[np.ndarray]:
    """The rows at which each of the values 0 to count - 1 stands."""
    order = rows[np.argsort(values[rows], kind="stable")]
    cuts = np.searchsorted(values[order], np.arange(count + 1))
    return [order[a:b] for a, b in itertools.pairwise(cuts)]


def _indexes(videos: Videos, rng: Random) -> list[_Index]:
    """One index for each query language: its documents, and few of the other language."""
    foreign = np.array([rng.random() for _ in range(len(videos))]) < _FOREIGN
    return [_Index(videos, (videos.language == i) | foreign) for i in range(len(LANGUAGES))]


def _own(videos: Videos, row: int) -> dict[str, int]:
    return {f: int(v[row]) for f, v in videos.facets.items() if v[row] >= 0}


@dataclass
class _Split:
    """The judged rows of one split, by grade, while they are gathered."""

    name: str
    wanted: Mapping[int, int]
    rows: dict[int, list[tuple[str, int]]] = field(
        default_factory=lambda: {grade: [] for grade in range(4)}
    )

    def full(self) -> bool:
        return all(len(self.rows[grade]) >= count for grade, count in self.wanted.items())

    def room(self, grade: int) -> int:
        """How many rows of a grade may be added, so that all grades fill up at the same pace."""
        progress = sum(map(len, self.rows.values())) / max(1, sum(self.wanted.values()))
        pace = int(self.wanted[grade] * progress) + (2 if grade in _RARE else _DEEPEST)
        return min(pace, self.wanted[grade]) - len(self.rows[grade])


def judge(videos: Videos, judgments: int, rng: Random) -> pa.Table:
    """Judge documents for queries as a search team does: mostly perfect or useless ones.

    Popular queries have many judged documents. The splits share no query, not even one that asks
    for the same in other words.

    Returns:
        query, doc_id, split: string; grade: int8; in random order within each split.
    """
    indexes = _indexes(videos, rng)
    seen: set[Asked] = set()
    judged: list[tuple[str, int, int, str]] = []
    for name, share in _SPLITS.items():
        total = round(share * judgments)
        wanted = {grade: round(rare * total) for grade, rare in _RARE.items()}
        wanted[3] = round(_PERFECT * total)
        wanted[0] = total - sum(wanted.values())
        split = _Split(name, wanted)
        _gather(split, videos, indexes, seen, rng)
        found = [(q, row, grade, name) for grade, rows in split.rows.items() for q, row in rows]
        keys = [rng.random() for _ in found]
        judged.extend(found[at] for at in sorted(range(len(found)), key=keys.__getitem__))
    return pa.table(
        {
            "query": pa.array([query for query, *_ in judged], pa.string()),
            "doc_id": pa.array([document_name(row) for _, row, *_ in judged], pa.string()),
            "grade": pa.array([grade for *_, grade, _ in judged], pa.int8()),
            "split": pa.array([name for *_, name in judged], pa.string()),
        }
    )


def _gather(
    split: _Split, videos: Videos, indexes: list[_Index], seen: set[Asked], rng: Random
) -> None:
    """Add queries until the split is full, or a small world has no more to offer."""
    patience = 20 * (10 + sum(split.wanted.values()))
    while not split.full() and patience > 0:
        patience -= 1
        row = int(rng.random() * len(videos))
        asked = ask(_own(videos, row), rng)
        if asked in seen:
            continue
        language = int(videos.language[row])
        judged = _judged_list(split, indexes[language], asked, rng)
        if not judged:
            continue
        seen.add(asked)
        query = write_query(asked, language, rng)
        for grade, documents in judged.items():
            split.rows[grade].extend((query, document) for document in documents)


def _judged_list(
    split: _Split, index: _Index, asked: Asked, rng: Random
) -> dict[int, list[int]] | None:
    """The documents judged for one query, by grade; None when the query is not worth judging."""
    rows, grades = index.grades(asked)
    depth = _DEPTH[split.name]
    perfect = rows[grades == 3]
    if len(perfect) < depth:
        return None
    count = min(int(depth / (1 - rng.random())), _DEEPEST, len(perfect))
    useless = count + int(rng.random() * 3)
    judged = {3: _some(perfect, min(count, split.room(3)), rng)}
    for grade in _RARE:
        few = min(1 + useless // 4, split.room(grade))
        judged[grade] = _some(rows[grades == grade], few, rng)
    drawn = (index.useless(asked, weighted(rng, _USELESS), rng) for _ in range(2 * useless))
    judged[0] = [row for row in dict.fromkeys(drawn) if row >= 0][: min(useless, split.room(0))]
    return judged


def _some(rows: np.ndarray, count: int, rng: Random) -> list[int]:
    """At most `count` of the rows, without repetition."""
    pool = rows.tolist()
    chosen: list[int] = []
    while pool and len(chosen) < count:
        chosen.append(pool.pop(int(rng.random() * len(pool))))
    return chosen


def click_log(videos: Videos, pairs: int, rng: Random) -> pa.Table:
    """Unlabelled (query, document) pairs: several queries for a document, at mixed true grades.

    Returns:
        query, doc_id: string; clicks: int32, higher for better documents but noisy; sorted by
        document, without repeated pairs.
    """
    found: dict[tuple[int, str], int] = {}
    patience = 4 * pairs
    while len(found) < pairs and patience > 0:
        row = int(rng.random() * len(videos))
        own = _own(videos, row)
        language = int(videos.language[row])
        if rng.random() < _FOREIGN:
            language = 1 - language
        for _ in range(2 + int(3 / (1 - 0.9 * rng.random())) // 2):
            patience -= 1
            grade = weighted(rng, _CLICKED_GRADES)
            asked = ask(own, rng) if grade == 3 else ask_amiss(own, grade, rng)
            query = write_query(asked, language, rng)
            clicks = 1 - int(_CLICK_RATE[grade] * math.log(1 - rng.random()))
            if len(found) < pairs:
                found.setdefault((row, query), clicks)
    ordered = sorted(found)
    return pa.table(
        {
            "query": pa.array([query for _, query in ordered], pa.string()),
            "doc_id": pa.array([document_name(row) for row, _ in ordered], pa.string()),
            "clicks": pa.array([found[pair] for pair in ordered], pa.int32()),
        }
    )
