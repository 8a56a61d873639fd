"""Arrow IPC and Parquet, piece by piece.

Memory: an Arrow stream and a compressed Arrow file cost one record batch of the file, which is
refused above `declared.MOST_BATCH_BYTES`. Parquet costs one page per column and, as they are
stored, the column chunks of one row group, which are mapped where they are large. An Arrow file
with huge batches is mapped and its pages are handed back as it is read. A long cell that a
dictionary holds once and many rows name is not written out for all of them.
"""

from __future__ import annotations

import mmap
from collections.abc import Collection, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ssra_engine.readers.cells import is_text
from ssra_engine.readers.declared import check_declared
from ssra_engine.readers.rows import Rows
from ssra_engine.readers.source import Source

__all__ = ["columnar_rows", "columnar_schema"]

# Few enough that repeated long cells, which Parquet stores once, do not add up.
_PIECE_ROWS = 1 << 14
_PIECE_BYTES = 64 << 20
# Smaller batches are joined: a piece costs about a millisecond, however few rows it has.
_SMALL_ROWS = 1 << 10
_SMALL_BYTES = 1 << 20


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
    schema = columnar_schema(source)
    kinds = dict(zip(schema.names, schema.types, strict=True))
    place = 0
    for batch in _joined(_batches(source, columns)):
        rows = _rows_within(_PIECE_BYTES, batch.nbytes, batch.num_rows)
        for column in batch.columns:
            rows = min(rows, max(1, _PIECE_BYTES // _longest(column)))
        for start in range(0, batch.num_rows, rows):
            piece = batch.slice(start, rows)
            named = zip(piece.schema.names, piece.columns, strict=True)
            yield Rows(
                {name: _as_stored(column, kinds[name]) for name, column in named},
                np.arange(place, place + piece.num_rows, dtype=np.int64),
            )
            place += piece.num_rows


def _joined(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows, validated, in fewer batches where neighbours are small."""
    held: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        batch.validate()
        small = batch.num_rows < _SMALL_ROWS and batch.nbytes < _SMALL_BYTES
        if held and (not small or rows >= _SMALL_ROWS or size >= _SMALL_BYTES):
            yield from _concatenated(held)
            held, rows, size = [], 0, 0
        if not small:
            yield batch
            continue
        held.append(batch)
        rows, size = rows + batch.num_rows, size + batch.nbytes
    yield from _concatenated(held)


def _concatenated(batches: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """One batch, or the same ones where their dictionaries do not fit one index type."""
    if len(batches) < 2:
        return batches
    try:
        return [pa.concat_batches(batches)]
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return batches


def _as_stored(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """A column as its schema says, where it was read with a dictionary that the schema has not."""
    read_with_dictionary = pa.types.is_dictionary(column.type) and not pa.types.is_dictionary(kind)
    return column.dictionary_decode() if read_with_dictionary else column


def _rows_within(limit: int, size: int, rows: int) -> int:
    """How many of `rows` rows, `size` bytes in all, fit `limit` bytes; from 1 to `_PIECE_ROWS`."""
    return max(1, min(_PIECE_ROWS, limit * rows // max(size, 1)))


def _longest(column: pa.Array) -> int:
    """Bytes of the longest text that the rows of a dictionary-encoded column may repeat, or 1."""
    if not pa.types.is_dictionary(column.type) or not is_text(column.type):
        return 1
    if pa.types.is_null(column.type.value_type) or len(column.dictionary) == 0:
        return 1
    return max(1, pc.max(pc.binary_length(column.dictionary)).as_py() or 0)


def _batches(source: Source, columns: Collection[str] | None) -> Iterator[pa.RecordBatch]:
    if source.format == "parquet":
        yield from _parquet_batches(source, columns)
        return
    if source.local:
        check_declared(source)
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
    schema = columnar_schema(source)
    wanted = [n for n in schema.names if columns is None or n in columns]
    texts = [n for n in wanted if pa.types.is_string(schema.field(n).type)]
    with source.filesystem.open_input_file(source.path) as handle:
        metadata = pq.ParquetFile(handle).metadata
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    rows = min(
        (_rows_within(_PIECE_BYTES, g.total_byte_size, g.num_rows) for g in groups if g.num_rows),
        default=1,
    )
    # Column chunks are read whole, or mapped where they are large. Not through a buffer
    # (`buffer_size`): pyarrow 26 then spins for tens of seconds over a page that claims 2 GiB.
    large = source.local and _largest_chunk(groups, wanted) > _PIECE_BYTES
    opened = pa.memory_map(source.path) if large else source.filesystem.open_input_file(source.path)
    with opened as handle:
        file = pq.ParquetFile(
            handle,
            read_dictionary=texts,
            pre_buffer=not source.local,
            page_checksum_verification=True,
        )
        yield from file.iter_batches(batch_size=rows, columns=wanted, use_threads=False)


def _largest_chunk(groups: list[pq.RowGroupMetaData], wanted: list[str]) -> int:
    """Bytes in the file of the largest column chunk among some columns."""
    chunks = (group.column(i) for group in groups for i in range(group.num_columns))
    sizes = (c.total_compressed_size for c in chunks if c.path_in_schema.split(".")[0] in wanted)
    return max(sizes, default=0)
