"""What is handed back: one of four forms of rows, as an Arrow table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ssra_engine.negatives.settings import MiningError, Settings
from ssra_engine.negatives.task import UNKNOWN, Task
from ssra_engine.negatives.walk import Mined

__all__ = ["Cells", "check_names", "list_of", "to_table"]

Int64s = npt.NDArray[np.int64]
Columns = dict[str, pa.Array]


def check_names(anchor: str, positive: str, settings: Settings, *, graded: bool) -> None:
    """Raise MiningError where an output column would have the name of the anchor or positive."""
    added = {
        "triplet": ["negative"],
        "n-tuple": [f"negative_{i + 1}" for i in range(settings.num_negatives)],
        "labeled-pair": ["score" if settings.output_scores else "label"],
        "labeled-list": ["scores" if settings.output_scores else "labels"],
    }[settings.output_format]
    if settings.output_scores and settings.output_format in {"triplet", "n-tuple"}:
        added.append("scores")
    if graded:
        added.append("grade" if settings.output_format == "labeled-pair" else "grades")
    for name in (anchor, positive):
        if name in added:
            raise MiningError(
                f"column '{name}' has the name of a column of the result. Rename it first."
            )


def to_table(task: Task, mined: Mined, anchor: str, positive: str, settings: Settings) -> pa.Table:
    """Rows of texts, grouped as the task is.

    Where the task has grades, a column `grades` beside `scores` (`grade` in labeled pairs) holds
    the positive's and the negatives', null where unknown.

    Args:
        task: whose groups were mined.
        mined: their negatives.
        anchor: name of the column of queries.
        positive: name of the column of positives.
        settings: the form, and whether scores are wanted.
    """
    make = {
        "triplet": _triplets,
        "n-tuple": _tuples,
        "labeled-pair": _labeled_pairs,
        "labeled-list": _labeled_lists,
    }[settings.output_format]
    return pa.table(make(Cells.of(task, mined), anchor, positive, settings.output_scores))


@dataclass(frozen=True)
class Cells:
    """One row for each positive: itself in column 0, then the negatives of its group.

    Attributes:
        task: whose numbers these are.
        documents: int64[P, 1 + n], -1 where a negative is missing.
        scores: float32[P, 1 + n].
        grades: int8[P, 1 + n], `UNKNOWN` where unknown; None where the task has none.
    """

    task: Task
    documents: Int64s
    scores: npt.NDArray[np.float32]
    grades: npt.NDArray[np.int8] | None

    @classmethod
    def of(cls, task: Task, mined: Mined) -> Cells:
        """Put positives and negatives side by side."""
        group, choice = task.positive_group, mined.choice
        return cls(
            task,
            np.column_stack([task.positives, choice.ids[group]]),
            np.column_stack([mined.positive_scores, choice.scores[group]]),
            None if task.grades is None else np.column_stack([task.grades, choice.grades[group]]),
        )

    @property
    def present(self) -> npt.NDArray[np.bool_]:
        """bool[P, 1 + n]."""
        return self.documents >= 0

    def queries(self, rows: Int64s) -> pa.Array:
        """Query of each row, string."""
        return _texts(self.task.queries, self.task.positive_query[rows])

    def texts(self, rows: Int64s, columns: Int64s | int) -> pa.Array:
        """Text of each cell, string."""
        return _texts(self.task.corpus, self.documents[rows, columns])

    def scores_of(self, rows: Int64s, columns: Int64s) -> pa.Array:
        """Score of each cell, double: what a Dataset makes of Python's floats."""
        return pa.array(self.scores[rows, columns].astype(np.float64))

    def grades_of(self, rows: Int64s, columns: Int64s) -> pa.Array:
        """Grade of each cell, int8, null where unknown."""
        assert self.grades is not None
        grades = self.grades[rows, columns]
        return pa.array(grades, mask=grades == UNKNOWN)


def _triplets(cells: Cells, anchor: str, positive: str, scores: bool) -> Columns:
    rows, columns = np.nonzero(cells.present[:, 1:])
    columns += 1
    table = {
        anchor: cells.queries(rows),
        positive: cells.texts(rows, 0),
        "negative": cells.texts(rows, columns),
    }
    both = np.column_stack([np.zeros_like(columns), columns])
    return table | _lists(cells, np.repeat(rows, 2), both.ravel(), len(rows), scores)


def _tuples(cells: Cells, anchor: str, positive: str, scores: bool) -> Columns:
    rows = np.flatnonzero(cells.present.all(axis=1))
    width = cells.documents.shape[1]
    table = {anchor: cells.queries(rows), positive: cells.texts(rows, 0)}
    table |= {f"negative_{i}": cells.texts(rows, i) for i in range(1, width)}
    columns = np.tile(np.arange(width), len(rows))
    return table | _lists(cells, np.repeat(rows, width), columns, len(rows), scores)


def _labeled_lists(cells: Cells, anchor: str, positive: str, scores: bool) -> Columns:
    full = np.flatnonzero(cells.present[:, 1:].any(axis=1))
    row, columns = np.nonzero(cells.present[full])
    rows = full[row]
    table = {
        anchor: cells.queries(full),
        positive: list_of(cells.texts(rows, columns), row, len(full)),
    }
    if not scores:
        table["labels"] = list_of(_labels(columns), row, len(full))
    return table | _lists(cells, rows, columns, len(full), scores, row)


def _labeled_pairs(cells: Cells, anchor: str, positive: str, scores: bool) -> Columns:
    """All positives of a group, then its negatives, once."""
    group = cells.task.positive_group
    wanted = cells.present
    wanted[1:, 1:] &= (group[1:] != group[:-1])[:, None]
    rows, columns = np.nonzero(wanted)
    order = np.lexsort((columns > 0, group[rows]))
    rows, columns = rows[order], columns[order]
    table = {anchor: cells.queries(rows), positive: cells.texts(rows, columns)}
    if scores:
        table["score"] = cells.scores_of(rows, columns)
    else:
        table["label"] = _labels(columns)
    if cells.grades is not None:
        table["grade"] = cells.grades_of(rows, columns)
    return table


def _lists(
    cells: Cells,
    rows: Int64s,
    columns: Int64s,
    total: int,
    scores: bool,
    of: Int64s | None = None,
) -> Columns:
    """The columns `scores` and `grades`, as far as there are any: `total` lists of cells.

    Args:
        of: the list of each cell, rising; None where all lists are equally long.
    """
    if of is None:
        of = np.repeat(np.arange(total), len(rows) // max(total, 1))
    table = {}
    if scores:
        table["scores"] = list_of(cells.scores_of(rows, columns), of, total)
    if cells.grades is not None:
        table["grades"] = list_of(cells.grades_of(rows, columns), of, total)
    return table


def list_of(values: pa.Array, of: Int64s, total: int) -> pa.Array:
    """`total` lists: values go to the list whose number, rising, stands in `of`."""
    offsets = np.searchsorted(of, np.arange(total + 1)).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def _labels(columns: Int64s) -> pa.Array:
    return pa.array((columns == 0).astype(np.int64))


def _texts(texts: Sequence[str], which: Int64s) -> pa.Array:
    return pa.array([texts[i] for i in which.tolist()], pa.string())
