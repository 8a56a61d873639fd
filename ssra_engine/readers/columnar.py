"""Arrow IPC and Parquet, piece by piece.

Memory: an Arrow stream and a compressed Arrow file cost one record batch of the file, Parquet one
page per column (one row group from an object store), an Arrow file with huge batches is mapped and
its pages are handed back as it is read.
"""

from __future__ import annotations

import mmap
from collections.abc import Collection, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ssra_engine.readers.rows import Rows
from ssra_engine.readers.source import Source

__all__ = ["columnar_rows", "columnar_schema"]

# Few enough that repeated long cells, which Parquet stores once, do not add up.
_PIECE_ROWS = 1 << 14
_PIECE_BYTES = 64 << 20


def columnar_schema(source: Source) -> pa.Schema:
    """The schema in the file, with the file's own metadata."""
    if source.format == "parquet":
        with source.filesystem.open_input_file(source.path) as file:
            return pq.ParquetFile(file).schema_arrow
    if source.format == "arrow file":
        with source.filesystem.open_input_file(source.path) as file:
            return pa.ipc.open_file(file).schema
    with source.filesystem.open_input_stream(source.path, compression=None) as file:
        return pa.ipc.open_stream(file).schema


def columnar_rows(source: Source, columns: Collection[str] | None) -> Iterator[Rows]:
    """Rows of a few columns, or of all (None)."""
    place = 0
    for batch in _batches(source, columns):
        batch.validate()
        rows = _rows_within(_PIECE_BYTES, batch.nbytes, batch.num_rows)
        for start in range(0, batch.num_rows, rows):
            piece = batch.slice(start, rows)
            yield Rows(
                dict(zip(piece.schema.names, piece.columns, strict=True)),
                np.arange(place, place + piece.num_rows, dtype=np.int64),
            )
            place += piece.num_rows


def _rows_within(limit: int, size: int, rows: int) -> int:
    """How many of `rows` rows, `size` bytes in all, fit `limit` bytes; from 1 to `_PIECE_ROWS`."""
    return max(1, min(_PIECE_ROWS, limit * rows // max(size, 1)))


def _batches(source: Source, columns: Collection[str] | None) -> Iterator[pa.RecordBatch]:
    if source.format == "parquet":
        yield from _parquet_batches(source, columns)
        return
    names = columnar_schema(source).names
    wanted = [i for i, name in enumerate(names) if columns is None or name in columns]
    options = pa.ipc.IpcReadOptions(included_fields=wanted, use_threads=False)
    if source.format == "arrow stream":
        with source.filesystem.open_input_stream(source.path, compression=None) as file:
            yield from pa.ipc.open_stream(file, options=options)
        return
    with source.filesystem.open_input_file(source.path) as file:
        reader = pa.ipc.open_file(file, options=options)
        batches = reader.num_record_batches
        if not source.local or source.size <= batches * _PIECE_BYTES:
            for i in range(batches):
                yield reader.get_batch(i)
            return
    yield from _mapped_batches(source, wanted)


def _mapped_batches(source: Source, wanted: list[int]) -> Iterator[pa.RecordBatch]:
    """Batches too large to copy into memory, as slices of the mapped file."""
    with open(source.path, "rb") as file:
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    # Not with `included_fields`, which copies what it includes.
    options = pa.ipc.IpcReadOptions(use_threads=False)
    reader = pa.ipc.open_file(pa.BufferReader(pa.py_buffer(pages)), options=options)
    for i in range(reader.num_record_batches):
        batch = reader.get_batch(i).select(wanted)
        rows = _rows_within(_PIECE_BYTES, source.size // reader.num_record_batches, len(batch))
        for start in range(0, len(batch), rows):
            yield batch.slice(start, rows)
            pages.madvise(mmap.MADV_DONTNEED)  # a page needed again is read again


def _parquet_batches(source: Source, columns: Collection[str] | None) -> Iterator[pa.RecordBatch]:
    with source.filesystem.open_input_file(source.path) as handle:
        file = pq.ParquetFile(
            handle,
            buffer_size=1 << 20,
            pre_buffer=not source.local,
            page_checksum_verification=True,
        )
        groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
        rows = min(
            (
                _rows_within(_PIECE_BYTES, g.total_byte_size, g.num_rows)
                for g in groups
                if g.num_rows
            ),
            default=1,
        )
        wanted = [n for n in file.schema_arrow.names if columns is None or n in columns]
        yield from file.iter_batches(batch_size=rows, columns=wanted, use_threads=False)
