"""CSV and TSV with a header line, quoted as RFC 4180 says."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator, Sequence
from itertools import chain, islice

import numpy as np
import pyarrow as pa
import pyarrow.csv

from ssra_engine.readers.cells import MAX_CELL_BYTES
from ssra_engine.readers.lines import MAX_LINE_BYTES, blocks
from ssra_engine.readers.rows import BadRow, Rows
from ssra_engine.readers.source import Source

__all__ = ["delimited_header", "delimited_rows"]

# Stands after the last line, to show whether a quote is still open there. No text holds it.
_END = "\ufdd0end of block\ufdd1"
_QUOTE_MEND = 'Put cells that hold quotes or line breaks in double quotes, and double a quote (")'


def delimited_header(source: Source) -> list[str]:
    """The names in the first row."""
    block = next(blocks(source), None)
    return _header(block or b"", _delimiter(source))[0]


def delimited_rows(source: Source, columns: Collection[str] | None) -> Iterator[Rows]:
    """Rows of the columns asked for, or of all (None); every cell is text, never null."""
    delimiter = _delimiter(source)
    header: list[str] | None = None
    wanted: list[str] = []
    line, carry = 1, b""
    for block, last in _with_last(blocks(source)):
        if block is None:
            problem = f"the line is longer than {MAX_LINE_BYTES >> 20} MiB"
            yield Rows({}, np.empty(0, np.int64), [BadRow(line, problem, _QUOTE_MEND)])
            line += 1
            continue
        data = carry + block
        if header is None:
            header, skipped = _header(data, delimiter)
            wanted = [name for name in header if columns is None or name in columns]
            line += data.count(b"\n", 0, skipped)
            data = data[skipped:]
            if not data:
                continue
        rows, carry = _parse_block(data, header, wanted, delimiter, line), b""
        if rows is None:
            rows, carry = _parse_rows(data, header, wanted, delimiter, line, last=last)
        yield rows
        line += data.count(b"\n") - carry.count(b"\n")


def _delimiter(source: Source) -> str:
    return "\t" if source.format == "tsv" else ","


def _with_last(items: Iterator[bytes | None]) -> Iterator[tuple[bytes | None, bool]]:
    held = next(items, None)
    for item in items:
        yield held, False
        held = item
    yield held, True


def _header(block: bytes, delimiter: str) -> tuple[list[str], int]:
    """The names, and how many bytes they take."""
    lines = _lines(block[: 1 << 20])
    reader = csv.reader(lines, delimiter=delimiter)
    try:
        names = next(reader, [])
    except csv.Error:
        names = []
    taken = "".join(lines[: reader.line_num]).encode("utf-8", "surrogateescape")
    return [n.encode("utf-8", "replace").decode() for n in names], len(taken)


def _lines(block: bytes) -> list[str]:
    text = block.decode("utf-8", "surrogateescape")
    return io.StringIO(text, newline="\n").readlines()


def _parse_block(
    block: bytes, header: Sequence[str], wanted: list[str], delimiter: str, line: int
) -> Rows | None:
    """All lines at once, or None where rows are not lines or something is wrong with one."""
    if block.count(b"\r") != block.count(b"\r\n"):
        return None
    lines = block.count(b"\n")
    block += b"x" + delimiter.encode() * (len(header) - 1) + b"\n"  # an open quote would swallow it
    try:
        table = pa.csv.read_csv(
            pa.BufferReader(block),
            read_options=pa.csv.ReadOptions(
                use_threads=False, block_size=len(block) + 1, column_names=list(header)
            ),
            parse_options=pa.csv.ParseOptions(delimiter=delimiter),
            convert_options=pa.csv.ConvertOptions(
                check_utf8=False,
                column_types=dict.fromkeys(header, pa.string()),
                include_columns=wanted,
            ),
        )
    except (pa.ArrowException, UnicodeDecodeError):
        return None
    if table.num_rows != lines + 1:  # a line break in quotes, or a blank line
        return None
    batch = table.slice(0, lines).combine_chunks().to_batches()[0]
    return Rows(
        dict(zip(wanted, batch.columns, strict=True)),
        np.arange(line, line + lines, dtype=np.int64),
    )


def _parse_rows(
    block: bytes,
    header: Sequence[str],
    wanted: list[str],
    delimiter: str,
    first: int,
    *,
    last: bool,
) -> tuple[Rows, bytes]:
    """Row by row; also the bytes of a row at the end that goes on in the next block."""
    csv.field_size_limit(MAX_LINE_BYTES)  # of the whole process; cells are measured afterwards
    lines = _lines(block)
    rows: list[list[str]] = []
    places: list[int] = []
    bad: list[BadRow] = []
    start, carry = 0, b""
    while start < len(lines):
        origin = start
        reader = csv.reader(chain(islice(lines, origin, None), [_END]), delimiter=delimiter)
        try:
            for row in reader:
                if row == [_END]:
                    break
                if row and row[-1].endswith(_END):  # swallowed by a quote that is still open
                    carry = "".join(lines[start:]).encode("utf-8", "surrogateescape")
                    if last or len(carry) > MAX_CELL_BYTES:
                        raise csv.Error("a quote is opened and never closed")
                    return _gather(rows, header, wanted, places, bad), carry
                if len(row) == len(header):
                    rows.append(row)
                    places.append(first + start)
                elif row:
                    problem = f"{len(row)} cells where the header has {len(header)}"
                    bad.append(BadRow(first + start, problem, _QUOTE_MEND))
                start = origin + reader.line_num
            break
        except csv.Error as error:
            bad.append(BadRow(first + start, f"malformed: {error}", _QUOTE_MEND))
            start += 1
    return _gather(rows, header, wanted, places, bad), b""


def _gather(
    rows: list[list[str]],
    header: Sequence[str],
    wanted: list[str],
    places: list[int],
    bad: list[BadRow],
) -> Rows:
    columns = {}
    for name in wanted:
        index = header.index(name)
        cells = [row[index].encode("utf-8", "surrogateescape") for row in rows]
        columns[name] = pa.array(cells, pa.binary()).view(pa.string())
    return Rows(columns, np.array(places, np.int64), bad)
