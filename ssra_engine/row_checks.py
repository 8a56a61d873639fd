"""What the rows of a run must be like, whatever is in them: who asked for each, and only once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ssra_engine.keys import hash_strings, mix
from ssra_engine.reasons import encode_reasons, reason_code
from ssra_engine.repeats import RepeatFinder
from ssra_engine.schema import REASONS
from ssra_engine.tally import count_samples

__all__ = ["RowChecks"]

_UNIT_BITS = 40

#: Told the file at fault and what is wrong with it.
Report = Callable[[str, str], None]


@dataclass
class RowChecks:
    """Looks at all rows of one section, a part or staged shard at a time.

    Attributes:
        targets: target grades of the run.
        seed: of the run.
        version: of the query model that wrote the rows.
        scratch: an existing folder for the hashes that memory should not hold.
        report: told what is wrong.
        counts: samples by target and fate (`tally.count_samples`) so far.
        failed: documents without samples so far.
        documents: documents with samples so far.
        rows: rows so far.
    """

    targets: tuple[int, ...]
    seed: int
    version: int
    scratch: Path
    report: Report

    def __post_init__(self) -> None:
        self.counts = np.zeros((len(self.targets), 1 + len(REASONS)), np.int64)
        self.failed = self.documents = self.rows = 0
        self._units: list[list[tuple[str, int]]] = []
        self._names = RepeatFinder(self.scratch)

    def add(self, files: list[tuple[str, pa.Table]]) -> None:
        """Look at whole documents' rows (`schema.REJECTED`, `reason` null where kept), by file."""
        self._units.append([(name, len(table)) for name, table in files])
        rows = pa.concat_tables([table for _, table in files]).combine_chunks()
        self.rows += len(rows)
        codes = encode_reasons(rows.column("reason"))
        sampled = rows.column("target").is_valid().to_numpy()
        wrong = ~sampled & (codes != reason_code("error"))
        self._tell(wrong, "has no target grade and no reason error")
        target = rows.column("target").fill_null(0).to_numpy()
        known = np.isin(target, self.targets) | ~sampled
        self._tell(~known, "is of a target grade that the run did not ask for")
        named = rows.column("doc_id").is_valid().to_numpy()
        self._tell(sampled & ~named, "has no doc_id")
        self._check_samples(rows, np.flatnonzero(sampled & named & known))
        counts, failed = count_samples(rows.filter(pa.array(known)), self.targets)
        self.counts += counts
        self.failed += failed

    def end(self) -> None:
        """Look for samples that are there twice."""
        later, first = self._names.repeats()
        if len(later):
            again, before = self._place(int(later[0])), self._place(int(first[0]))
            self.report(
                again[0],
                f"{len(later)} samples (doc_id, target, sample) are there twice, the first of them "
                f"in row {again[1]} and in row {before[1]} of {before[0]}",
            )

    def _check_samples(self, rows: pa.Table, index: np.ndarray) -> None:
        samples = rows.take(pa.array(index))
        ids = samples.column("doc_id").combine_chunks()
        self.documents += len(ids.unique())
        target, sample, seed = (
            samples.column(name).fill_null(0).to_numpy() for name in ("target", "sample", "seed")
        )
        keys = mix(hash_strings(ids, self.seed), target, self.version, sample)
        self._tell_at(index[keys != seed], "has a seed that is not of its document and settings")
        version = samples.column("round").fill_null(-1).to_numpy()
        self._tell_at(index[version != self.version], "is of another round")
        numbers = (pa.array(column).cast(pa.string()) for column in (target, sample))
        names = pc.binary_join_element_wise(ids, *numbers, "\0")
        unit = np.uint64(len(self._units) - 1) << np.uint64(_UNIT_BITS)
        self._names.add(names, unit | index.astype(np.uint64))

    def _tell(self, wrong: np.ndarray, what: str) -> None:
        self._tell_at(np.flatnonzero(wrong), what)

    def _tell_at(self, rows: np.ndarray, what: str) -> None:
        if len(rows):
            unit = (len(self._units) - 1) << _UNIT_BITS
            file, row = self._place(unit | int(rows[0]))
            self.report(file, f"row {row} {what} ({len(rows)} such rows)")

    def _place(self, place: int) -> tuple[str, int]:
        """File and row of a place: the unit above, the row in the unit below."""
        row = place & ((1 << _UNIT_BITS) - 1)
        for name, rows in self._units[place >> _UNIT_BITS]:
            if row < rows:
                return name, row
            row -= rows
        raise AssertionError("no such row")
