"""What a reader yields: some columns of consecutive rows, and where those rows stand."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

__all__ = ["BadRow", "Rows"]


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used.

    Attributes:
        place: its row (from 0) or, in a text file, the line on which it starts (from 1).
        problem: what is wrong with it.
        mend: what to do about it.
        column: the column at fault, where there is one.
        doc_id: the document's name, where it is known.
    """

    place: int
    problem: str
    mend: str
    column: str | None = None
    doc_id: str | None = None


@dataclass(frozen=True)
class Rows:
    """Consecutive rows of one file.

    Attributes:
        columns: an array per column asked for and present, of the file's own type, all of one
            length. Their bytes have not been looked at: `cells.text_cells` does that.
        places: int64, the row or line of each row.
        bad: rows among these that could not be parsed; they are not in `columns`.
    """

    columns: dict[str, pa.Array]
    places: np.ndarray
    bad: list[BadRow] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.places)

    def first(self, count: int) -> Rows:
        """The first `count` of these rows, good and bad taken together in the file's order."""
        if len(self) + len(self.bad) <= count:
            return self
        every = np.concatenate([self.places, [bad.place for bad in self.bad]])
        end = int(np.sort(every)[count])
        kept = int(np.searchsorted(self.places, end))
        columns = {name: array.slice(0, kept) for name, array in self.columns.items()}
        return Rows(columns, self.places[:kept], [b for b in self.bad if b.place < end])
