"""The book of an audit: who has labelled what, what comes next, and which labels stand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from ssra_engine.audit import LABELLED, NO_GRADE
from ssra_engine.auditing.answers import ADJUDICATION, ANSWER, SKIP, UNDO, Answer, Answers
from ssra_engine.auditing.pairs import AuditPair, AuditPairs
from ssra_engine.durable import put_file

__all__ = ["ANSWERS_FILE", "Book", "Desk", "NotNextError", "desks_of"]

#: In the folder of an audit page, what annotators answered.
ANSWERS_FILE = "answers.arrows"
_JUDGMENTS = "judgments.parquet"

_LABELLED_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("query", "doc_id", "label", "sample_key", "draw")]
)
_JUDGMENTS_SCHEMA = pa.schema(
    [
        ("query", pa.string()),
        ("doc_id", pa.string()),
        ("grade", pa.int8()),
        ("annotators", pa.list_(pa.string())),
        ("adjudicated", pa.bool_()),
        ("time", pa.timestamp("us", "UTC")),
    ]
)


class NotNextError(Exception):
    """An answer to a pair that is not the one before the annotator, as from a second window."""


@dataclass
class Desk:
    """The work of one annotator.

    Attributes:
        labels: of the pairs that were labelled.
        skipped: pairs put off, in the order in which they come again.
        returned: pairs whose answer was taken back; the last is next.
        history: pairs answered or skipped, which undo goes back through.
    """

    labels: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    returned: list[str] = field(default_factory=list)
    history: list[str] = field(default_factory=list)

    def take(self, answer: Answer) -> None:
        """Take down an answer of this annotator."""
        key = answer.sample_key
        if answer.kind == UNDO:
            self.history.pop()
            self.labels.pop(key, None)
            self.returned.append(key)
        else:
            self.history.append(key)
            if key in self.returned:
                self.returned.remove(key)
        if key in self.skipped:
            self.skipped.remove(key)
        if answer.kind == ANSWER and answer.label is not None:
            self.labels[key] = answer.label
        elif answer.kind == SKIP:
            self.skipped.append(key)

    def next(self, keys: Sequence[str]) -> str | None:
        """The pair that this annotator sees next, or None when all are labelled."""
        if self.returned:
            return self.returned[-1]
        put_off = set(self.skipped)
        fresh = (key for key in keys if key not in self.labels and key not in put_off)
        return next(fresh, self.skipped[0] if self.skipped else None)


def desks_of(answers: Iterable[Answer]) -> dict[str, Desk]:
    """The work of each annotator, by name, after these answers, oldest first."""
    desks: dict[str, Desk] = {}
    for answer in answers:
        if answer.kind != ADJUDICATION:
            desks.setdefault(answer.annotator, Desk()).take(answer)
    return desks


class Book:
    """An audit in a folder: the answers so far, and files of the labels that stand.

    The folder holds `answers.arrows` (`answers.Answers`), `audit.parquet` (every drawn pair with
    its label, for `accept`) and `judgments.parquet` (query, doc_id, grade, annotators, adjudicated,
    time of the pairs that have a grade, for `build`). The last two follow from the first.

    Args:
        audit: the pairs.
        folder: made where it is not there.
        now: the time.

    Attributes:
        audit: the pairs.
        folder: where it is.
        pairs: the pairs by key, in order.
        desks: work of each annotator, by name.
        adjudicated: labels decided after a disagreement.

    Raises:
        StoreError: the folder cannot be written, is in use, or is of another audit.
    """

    def __init__(
        self,
        audit: AuditPairs,
        folder: Path,
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
    ) -> None:
        self.audit = audit
        self.folder = folder
        self.pairs = {pair.key: pair for pair in audit.pairs}
        self.desks: dict[str, Desk] = {}
        self.adjudicated: dict[str, str] = {}
        self._now = now
        self._times: dict[str, datetime] = {}
        digest = xxhash.xxh3_64_hexdigest(" ".join(self.pairs).encode())
        self._answers = Answers(folder / ANSWERS_FILE, f"{audit.draw}, pairs {digest}")
        for answer in self._answers.rows:
            self._take(answer)
        self.write()

    def __enter__(self) -> Book:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._answers.close()

    def next_of(self, annotator: str) -> AuditPair | None:
        """The pair that an annotator sees next, or None when all are labelled."""
        key = self.desks.get(annotator, Desk()).next(list(self.pairs))
        return None if key is None else self.pairs[key]

    def done(self, annotator: str) -> bool:
        """Whether an annotator has labelled every pair."""
        return len(self.desks.get(annotator, Desk()).labels) == len(self.pairs)

    def answer(self, annotator: str, key: str, label: str | None) -> None:
        """Label the pair before an annotator, or with None put it off.

        Raises:
            NotNextError: the pair is not the one before the annotator.
            StoreError: the answer cannot be written.
        """
        pair = self.next_of(annotator)
        if pair is None or pair.key != key:
            raise NotNextError
        self._add(SKIP if label is None else ANSWER, pair, label, annotator)

    def undo(self, annotator: str) -> None:
        """Take back an annotator's last answer or skip, if there is one."""
        desk = self.desks.get(annotator)
        if desk is not None and desk.history:
            self._add(UNDO, self.pairs[desk.history[-1]], None, annotator)

    def adjudicate(self, annotator: str, key: str, label: str) -> None:
        """Decide about a pair on which annotators disagree, or decide again.

        Raises:
            NotNextError: nobody disagrees about this pair.
            StoreError: the decision cannot be written.
        """
        if key not in self.disagreements():
            raise NotNextError
        self._add(ADJUDICATION, self.pairs[key], label, annotator)

    def labels_of(self, key: str) -> dict[str, str]:
        """Labels of a pair, by annotator."""
        return {name: desk.labels[key] for name, desk in self.desks.items() if key in desk.labels}

    def disagreements(self) -> list[str]:
        """Pairs that have several labels, decided or not, in order."""
        return [key for key in self.pairs if len(set(self.labels_of(key).values())) > 1]

    def standing(self) -> dict[str, str]:
        """The labels that stand: of a pair whose labels agree, or about which was decided."""
        found = {}
        for key in self.pairs:
            labels = set(self.labels_of(key).values())
            if len(labels) == 1:
                (found[key],) = labels
            elif labels and key in self.adjudicated:
                found[key] = self.adjudicated[key]
        return found

    def write(self) -> None:
        """Write `audit.parquet` and `judgments.parquet` anew.

        Raises:
            StoreError: they cannot be written.
        """
        standing = self.standing()
        rows = [
            {
                "query": pair.query,
                "doc_id": pair.doc_id,
                "label": standing.get(pair.key, ""),
                "sample_key": pair.key,
                "draw": str(self.audit.draw),
            }
            for pair in self.audit.pairs
        ]
        _put(self.folder / LABELLED, pa.Table.from_pylist(rows, schema=_LABELLED_SCHEMA))
        graded = {key: label for key, label in standing.items() if label != NO_GRADE}
        judged = [self._judgment(key, label) for key, label in graded.items()]
        _put(self.folder / _JUDGMENTS, pa.Table.from_pylist(judged, schema=_JUDGMENTS_SCHEMA))

    def _judgment(self, key: str, label: str) -> dict[str, object]:
        pair, labels = self.pairs[key], self.labels_of(key)
        return {
            "query": pair.query,
            "doc_id": pair.doc_id,
            "grade": int(label),
            "annotators": sorted(labels),
            "adjudicated": len(set(labels.values())) > 1,
            "time": self._times[key],
        }

    def _add(self, kind: str, pair: AuditPair, label: str | None, annotator: str) -> None:
        time = self._now()
        answer = Answer(kind, pair.key, pair.query, pair.doc_id, label, annotator, time)
        self._answers.append(answer)
        self._take(answer)
        self.write()

    def _take(self, answer: Answer) -> None:
        self._times[answer.sample_key] = answer.time
        if answer.kind == ADJUDICATION and answer.label is not None:
            self.adjudicated[answer.sample_key] = answer.label
        else:
            self.desks.setdefault(answer.annotator, Desk()).take(answer)


def _put(path: Path, table: pa.Table) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    put_file(path, sink.getvalue())
