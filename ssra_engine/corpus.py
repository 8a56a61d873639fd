"""Documents, streamed from files of any supported format as batches of `schema.CORPUS`."""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from ssra_engine.errors import DataError, StoreError
from ssra_engine.readers import (
    BadRow,
    Rows,
    Source,
    blank,
    check_columns,
    checked_cells,
    find_sources,
    read,
)
from ssra_engine.repeats import RepeatFinder
from ssra_engine.schema import CORPUS, DOCUMENT_TEXT_COLUMNS

__all__ = ["REJECTED_DOCUMENTS", "Corpus", "CorpusSummary", "open_corpus"]

#: Documents left out of the batches.
REJECTED_DOCUMENTS = pa.schema([pa.field("doc_id", pa.string()), pa.field("message", pa.string())])

_BLANK = "title, text, ocr and asr are all blank"
# A document's key: its file's number, then its row or line.
_PLACE_BITS = np.uint64(40)
_MOST_BATCH_BYTES = (2 << 30) - 1


@dataclass(frozen=True)
class CorpusSummary:
    """What a whole pass over a corpus found.

    Attributes:
        documents: usable documents.
        rejected: documents that are not usable, duplicates and blank ones counted.
        duplicates: documents whose doc_id an earlier usable document has.
        blank: documents without any words.
    """

    documents: int
    rejected: int
    duplicates: int
    blank: int


@dataclass(frozen=True)
class _Piece:
    """Some consecutive documents of one file: the good ones, their places, and the bad ones."""

    file: int
    batch: pa.RecordBatch
    places: np.ndarray
    bad: list[BadRow]

    def keys(self) -> np.ndarray:
        return (np.uint64(self.file) << _PLACE_BITS) | self.places.astype(np.uint64)


class Corpus:
    """Documents of some files, in the files' order. Made by `open_corpus`.

    Attributes:
        files: the files read, as messages call them.
        limit: at most this many documents are read, bad ones counted.
        on_error: "stop" raises at a bad document, "reject" leaves it out and says why.
    """

    def __init__(
        self,
        sources: tuple[Source, ...],
        limit: int | None,
        on_error: Literal["stop", "reject"],
    ) -> None:
        self.files = tuple(source.name for source in sources)
        self.limit = limit
        self.on_error = on_error
        self._sources = sources
        self._summary: CorpusSummary | None = None
        self._later = self._first = np.empty(0, np.uint64)

    def batches(self, rows: int = 8192) -> Iterator[pa.RecordBatch]:
        """The usable documents, in batches of `schema.CORPUS`: `rows` rows each, the last fewer.

        With `on_error="reject"` duplicates must be known first: unless `check` ran, one pass over
        the input goes before.

        Raises:
            DataError: a file cannot be read, there are no documents, or, unless bad documents are
                rejected, one is bad. Duplicates are for `check` to find.
        """
        for batch, _ in self.batches_with_errors(rows):
            if len(batch):
                yield batch

    def batches_with_errors(self, rows: int = 8192) -> Iterator[tuple[pa.RecordBatch, pa.Table]]:
        """The batches of `batches`, each with the documents rejected beside its own.

        A rejected document goes with the usable one before it, or with the first. A corpus without
        usable documents is one empty batch with all that was rejected.

        Yields:
            (batch of `schema.CORPUS`, table of `REJECTED_DOCUMENTS` in the files' order).
        """
        held: deque[pa.RecordBatch] = deque()
        rejected: deque[tuple[int, str | None, str]] = deque()  # span, doc_id, message
        waiting = held_bytes = done = span = 0
        for piece in self._usable():
            for bad in piece.bad:
                before = done + waiting + int(np.searchsorted(piece.places, bad.place))
                error = self._error(piece.file, bad)
                rejected.append((max(before - 1, 0) // rows, bad.doc_id, str(error)))
            held.append(piece.batch)
            waiting += len(piece.batch)
            held_bytes += piece.batch.nbytes
            _check_held(held_bytes, waiting)
            while waiting > rows:  # and not >=: what is rejected next may belong to this batch
                yield _take(held, rows), _take_rejected(rejected, span)
                waiting, done, span = waiting - rows, done + rows, span + 1
                held_bytes = sum(batch.nbytes for batch in held)
        if waiting or rejected:
            yield _take(held, waiting), _take_rejected(rejected, span)

    def table(self) -> pa.Table:
        """All usable documents at once."""
        return pa.Table.from_batches(self.batches(1 << 16), schema=CORPUS)

    def check(self, scratch: Path | None = None) -> CorpusSummary:
        """Read everything once; later calls remember.

        Args:
            scratch: a folder for the hashes of doc_ids that memory should not hold; by default a
                temporary one.

        Raises:
            DataError: a file cannot be read, there are no usable documents, or, unless bad
                documents are rejected, one is bad or has the doc_id of another.
            StoreError: the scratch folder cannot be written.
        """
        summary = self._scan(scratch)
        if summary.documents == 0:
            raise DataError(
                f"none of the {summary.rejected} documents can be used",
                file=self.files[0],
                mend="Leave out --on-error reject to see what is wrong with the first",
            )
        return summary

    def fingerprint(self) -> str:
        """32 hexadecimal digits that change when the content of a file or their order does.

        XXH3-128 over the bytes of local files; over size and time of change of remote ones.
        """
        total = xxhash.xxh3_128()
        for source in self._sources:
            total.update(source.fingerprint())
        return total.hexdigest()

    def _error(self, file: int, bad: BadRow) -> DataError:
        return self._sources[file].error(bad.problem, bad.mend, column=bad.column, place=bad.place)

    def _pieces(self) -> Iterator[_Piece]:
        """All documents, good and bad, before duplicates are looked for."""
        seen = 0
        for number, source in enumerate(self._sources):
            left = None if self.limit is None else self.limit - seen
            for rows in read(source, dict.fromkeys(CORPUS.names, "text"), left):
                seen += len(rows) + len(rows.bad)
                piece = _Piece(number, *_documents(source, rows))
                if piece.bad and self.on_error == "stop":
                    raise self._error(number, piece.bad[0])
                yield piece
        if seen == 0:
            raise DataError(
                "there are no documents", file=self.files[0], mend="Give a file that holds some"
            )

    def _usable(self) -> Iterator[_Piece]:
        if self.on_error == "stop":
            yield from self._pieces()
            return
        self._scan(None)
        for piece in self._pieces():
            yield self._without_repeats(piece)

    def _scan(self, scratch: Path | None) -> CorpusSummary:
        if self._summary is None:
            try:
                with tempfile.TemporaryDirectory(prefix="ssra-", dir=scratch) as folder:
                    self._summary = self._account(RepeatFinder(Path(folder)))
            except OSError as error:  # of the scratch folder: those of the input are DataErrors
                raise StoreError(f"{scratch or tempfile.gettempdir()}: {error}.") from error
        return self._summary

    def _account(self, finder: RepeatFinder) -> CorpusSummary:
        documents = rejected = without_words = 0
        for piece in self._pieces():
            documents += len(piece.batch)
            rejected += len(piece.bad)
            without_words += sum(bad.problem == _BLANK for bad in piece.bad)
            finder.add(piece.batch.column("doc_id"), piece.keys())
        self._later, self._first = finder.repeats()
        repeats = len(self._later)
        if repeats and self.on_error == "stop":
            raise self._repeat_error()
        return CorpusSummary(documents - repeats, rejected + repeats, repeats, without_words)

    def _repeat_error(self) -> DataError:
        """The error about the first repeat: one more look at its file, for the name."""
        file = int(self._later[0] >> _PLACE_BITS)
        for piece in self._pieces():
            if piece.file == file:
                again = self._repeats_of(piece)
                if again.any():
                    index = int(np.flatnonzero(again)[0])
                    return self._error(file, self._repeat(piece, index))
        raise AssertionError("the repeat was not found again")

    def _repeats_of(self, piece: _Piece) -> np.ndarray:
        """Mask of the documents of a piece whose doc_id came before."""
        keys = piece.keys()
        if len(keys) == 0 or len(self._later) == 0:
            return np.zeros(len(keys), bool)
        start, end = np.searchsorted(self._later, [keys[0], keys[-1] + np.uint64(1)])
        return np.isin(keys, self._later[start:end], assume_unique=True)

    def _repeat(self, piece: _Piece, index: int) -> BadRow:
        first = int(self._first[np.searchsorted(self._later, piece.keys()[index])])
        source = self._sources[first >> int(_PLACE_BITS)]
        place = first & ((1 << int(_PLACE_BITS)) - 1)
        doc_id = piece.batch.column("doc_id")[index].as_py()
        where = f"{'line' if source.by_line else 'row'} {place}"
        if source is not self._sources[piece.file]:
            where += f" of {source.name}"
        return BadRow(
            int(piece.places[index]),
            f"doc_id {doc_id!r} is that of {where}",
            "Give each document its own doc_id, or keep the first with --on-error reject",
            "doc_id",
            doc_id,
        )

    def _without_repeats(self, piece: _Piece) -> _Piece:
        again = self._repeats_of(piece)
        if not again.any():
            return piece
        bad = [self._repeat(piece, int(index)) for index in np.flatnonzero(again)]
        bad = sorted([*piece.bad, *bad], key=lambda row: row.place)
        batch = piece.batch.filter(pa.array(~again))
        return _Piece(piece.file, batch, piece.places[~again], bad)


def open_corpus(
    inputs: Sequence[str | Path],
    *,
    limit: int | None = None,
    on_error: Literal["stop", "reject"] = "stop",
) -> Corpus:
    """Open documents and look at what can be seen cheaply: files, formats, columns, types.

    Args:
        inputs: files, folders, globs or URIs (see `readers.find_sources`). Columns: doc_id, and at
            least one of title, text, ocr, asr; all text. Others are ignored.
        limit: read at most this many documents, bad ones counted.
        on_error: what a bad document does.

    Raises:
        DataError: a file is missing, empty, damaged, of unknown format, or lacks a column.
    """
    sources = find_sources(inputs)
    for source in sources:
        check_columns(source, ["doc_id"], any_of=DOCUMENT_TEXT_COLUMNS)
    return Corpus(sources, limit, on_error)


def _documents(source: Source, rows: Rows) -> tuple[pa.RecordBatch, np.ndarray, list[BadRow]]:
    """The good documents among some rows, their places, and the bad ones in order."""
    cells, faults = checked_cells(source, rows, CORPUS.names)
    ids = cells["doc_id"]
    alive = np.ones(len(rows), bool)
    bad = list(rows.bad)
    for index, fault in faults.items():
        alive[index] = False
        bad.append(replace(fault, doc_id=ids[index].as_py()))
    without_id = pc.fill_null(blank(ids), True).to_numpy(zero_copy_only=False) & alive
    for index in np.flatnonzero(without_id).tolist():
        problem = "the doc_id is blank" if ids[index].is_valid else "the doc_id is null"
        mend = "Give every document a doc_id"
        bad.append(BadRow(int(rows.places[index]), problem, mend, "doc_id"))
    alive &= ~without_id
    for index in _blank_documents(cells, alive).tolist():
        place, doc_id = int(rows.places[index]), ids[index].as_py()
        mend = "Give the document some words, or leave it out with --on-error reject"
        bad.append(BadRow(place, _BLANK, mend, None, doc_id))
        alive[index] = False
    columns = [pc.fill_null(cells[name], "") for name in CORPUS.names]
    batch = pa.RecordBatch.from_arrays(columns, schema=CORPUS)
    if not alive.all():
        batch = batch.filter(pa.array(alive))
    return batch, rows.places[alive], sorted(bad, key=lambda row: row.place)


def _blank_documents(cells: dict[str, pa.Array], alive: np.ndarray) -> np.ndarray:
    """Indices of the living documents that show nothing; few columns are read beyond the first."""
    left = np.flatnonzero(alive)
    for name in DOCUMENT_TEXT_COLUMNS:
        if len(left) == 0:
            break
        texts = cells[name]
        if texts.null_count == len(texts):
            continue
        texts = texts if len(left) == len(texts) else texts.take(pa.array(left))
        left = left[pc.fill_null(blank(texts), True).to_numpy(zero_copy_only=False)]
    return left


def _check_held(held_bytes: int, documents: int) -> None:
    """One batch holds at most 2 GiB of text, which is what its offsets can count."""
    if held_bytes > _MOST_BATCH_BYTES:
        raise DataError(
            f"{documents} consecutive documents hold more than 2 GiB of text",
            mend="Ask for fewer documents at a time (--shard-documents), or cut their texts",
        )


def _take(held: deque[pa.RecordBatch], rows: int) -> pa.RecordBatch:
    """The first `rows` rows of the batches held, which they leave."""
    parts: list[pa.RecordBatch] = []
    while rows:
        batch = held.popleft()
        if len(batch) > rows:
            held.appendleft(batch.slice(rows))
            batch = batch.slice(0, rows)
        parts.append(batch)
        rows -= len(batch)
    parts = [part for part in parts if len(part)] or [pa.RecordBatch.from_pylist([], CORPUS)]
    if len(parts) == 1:
        return parts[0]
    (whole,) = pa.Table.from_batches(parts, CORPUS).combine_chunks().to_batches()
    return whole


def _take_rejected(rejected: deque[tuple[int, str | None, str]], span: int) -> pa.Table:
    taken = []
    while rejected and rejected[0][0] == span:
        taken.append(rejected.popleft())
    ids, messages = [row[1] for row in taken], [row[2] for row in taken]
    return pa.table([pa.array(ids, pa.string()), messages], schema=REJECTED_DOCUMENTS)
