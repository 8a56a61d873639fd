"""What annotators answered: an Arrow stream that grows by one row an answer and survives kill -9.

The file is the schema message of an Arrow IPC stream and then one message a row, each synced before
the answer counts; any Arrow reader opens it at any time. A message that a crash left unfinished,
which can only be the last, is cut off when the file is next opened; damage before whole answers is
refused. Nothing is ever changed: an answer that was taken back is followed by a row that says so.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa

from ssra_engine.durable import sync, writing
from ssra_engine.errors import StoreError
from ssra_engine.schema import ANSWERS

__all__ = ["ADJUDICATION", "ANSWER", "SKIP", "UNDO", "Answer", "Answers", "read_answers"]

#: Kinds of rows: a label; the pair put off to the end; the annotator's last answer or skip taken
#: back; and the label of a pair about which annotators disagree.
ANSWER, SKIP, UNDO, ADJUDICATION = "answer", "skip", "undo", "adjudication"

#: What every message of an Arrow IPC stream begins with.
_MESSAGE = b"\xff\xff\xff\xff"


@dataclass(frozen=True)
class Answer:
    """A row of `schema.ANSWERS`.

    Attributes:
        kind: `ANSWER`, `SKIP`, `UNDO` or `ADJUDICATION`.
        sample_key: the pair.
        query: of the pair.
        doc_id: of the pair.
        label: a grade, or `audit.NO_GRADE`; None of a skip or an undo.
        annotator: name.
        time: when it was answered, in UTC.
    """

    kind: str
    sample_key: str
    query: str
    doc_id: str
    label: str | None
    annotator: str
    time: datetime


def read_answers(path: Path) -> list[Answer]:
    """The answers in a file, oldest first, whoever works on it.

    Raises:
        StoreError: it is not a file of answers.
    """
    try:
        reader = pa.ipc.open_stream(path.read_bytes())
        if not reader.schema.equals(ANSWERS):
            raise pa.ArrowInvalid("other columns")
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"{path}: this is not a file of answers: {error}.") from error
    return [answer for some in _sound(reader) for answer in some]


def _sound(reader: pa.ipc.RecordBatchStreamReader) -> Iterator[list[Answer]]:
    """Messages up to the first that is not whole."""
    while True:
        try:
            batch = reader.read_next_batch()
            batch.validate(full=True)
            answers = [Answer(**row) for row in batch.to_pylist()]
        except (StopIteration, OSError, OverflowError, pa.ArrowException):  # a date has its range
            return
        yield answers


def _holds_an_answer(data: bytes) -> bool:
    """Whether a whole message begins anywhere; what a crash leaves of the last one holds none."""
    start = data.find(_MESSAGE)
    while start >= 0:
        try:
            message = pa.ipc.read_message(pa.BufferReader(data[start:]))
            return len(pa.ipc.read_record_batch(message, ANSWERS)) > 0
        except (EOFError, OSError, pa.ArrowException):
            start = data.find(_MESSAGE, start + 1)
    return False


class Answers:
    """The answers of one audit, oldest first, held by this process until `close`.

    Args:
        path: the file; made where it is not there.
        audit: tells audits apart; a file of another one is refused.

    Attributes:
        path: the file.
        rows: every answer so far.

    Raises:
        StoreError: the file cannot be written, is in use, is damaged, or holds something else.
    """

    def __init__(self, path: Path, audit: str) -> None:
        self.path = path
        self.rows: list[Answer] = []
        schema = ANSWERS.with_metadata({"audit": audit})
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b", buffering=0)
        try:
            self._lock()
            self._read(schema.serialize().to_pybytes(), audit)
        except BaseException:
            self._file.close()
            raise

    def append(self, answer: Answer) -> None:
        """Add an answer; it is durable on return.

        Raises:
            StoreError: it cannot be written, and does not count.
        """
        batch = pa.RecordBatch.from_pylist([asdict(answer)], schema=ANSWERS)
        with writing(self.path):
            self._extend(batch.serialize().to_pybytes())
        self.rows.append(answer)

    def close(self) -> None:
        """Release the file."""
        self._file.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StoreError(
                f"{self.path}: another audit page works on it. Use that one (several people may), "
                "or give another --output."
            ) from error

    def _read(self, header: bytes, audit: str) -> None:
        """Read the rows, and cut off what follows the sound ones."""
        self._file.seek(0)
        data = self._file.read()
        self._sound = 0 if header.startswith(data) else self._read_rows(data, audit)
        if _holds_an_answer(data[self._sound + 1 :]):
            raise StoreError(
                f"{self.path}: it is damaged after {len(self.rows):,} answers, and whole answers "
                "follow, so this is no crash's doing. Bring back a copy of it, or move it away and "
                "start anew; nothing in it was changed."
            )
        with writing(self.path):
            self._file.truncate(self._sound)
            if not self._sound:
                self._extend(header)
            os.fsync(self._file.fileno())
            sync(self.path.parent)

    def _read_rows(self, data: bytes, audit: str) -> int:
        """Read the rows; returns the length of what is sound."""
        source = pa.BufferReader(data)
        try:
            reader = pa.ipc.open_stream(source)
        except (OSError, pa.ArrowException) as error:
            raise StoreError(
                f"{self.path}: this is not a file of answers. Give another --output."
            ) from error
        written = (reader.schema.metadata or {}).get(b"audit", b"").decode(errors="replace")
        if written != audit or not reader.schema.equals(ANSWERS):
            raise StoreError(
                f"{self.path}: it holds answers of another audit ({written or 'unknown'}), this "
                f"one is {audit}. Give the options of that one, or another --output."
            )
        sound = int(source.tell())
        for some in _sound(reader):
            self.rows += some
            sound = int(source.tell())
        return sound

    def _extend(self, data: bytes) -> None:
        """Append bytes, or leave the file as it was."""
        try:
            if self._file.write(data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(self._sound)
            raise
        self._sound += len(data)
