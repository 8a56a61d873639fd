"""JSON lines: one object a line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.json

from ssra_engine.readers.lines import MAX_LINE_BYTES, blocks
from ssra_engine.readers.rows import BadRow, Rows
from ssra_engine.readers.source import Source

__all__ = ["Kind", "any_jsonl_rows", "jsonl_keys", "jsonl_rows"]

#: What a column should hold.
Kind = Literal["text", "number"]

_ARROW: dict[Kind, pa.DataType] = {"text": pa.string(), "number": pa.float64()}
_MEND = "Write one JSON object a line"
_JSON_NAMES = {bool: "a boolean", int: "a number", float: "a number", str: "text", list: "an array"}

# pyarrow 26 crashes on a bare `null` where it expects an object.
_BARE_NULL = re.compile(rb"\}\s*null")


class _Members(list[tuple[str, Any]]):
    """The members of a JSON object, repeated names included."""


def jsonl_keys(source: Source) -> list[str] | None:
    """Names in the first line that is an object, repeated ones included; None without one."""
    block = next(blocks(source), None)
    for line in (block or b"").split(b"\n"):
        members = _parse_line(line) if line.strip() else None
        if isinstance(members, list):
            return [name for name, _ in members]
    return None


def jsonl_rows(source: Source, columns: Mapping[str, Kind]) -> Iterator[Rows]:
    """Rows of the columns asked for; a missing name is a null."""
    for block, line in _numbered(source):
        if block is None:
            yield _too_long(line)
            continue
        yield _parse_block(block, columns, line) or _parse_lines(block, columns, line)


def any_jsonl_rows(source: Source) -> Iterator[Rows]:
    """Rows of all columns, of the types that the values of each block have; mixed ones as JSON."""
    for block, first in _numbered(source):
        if block is None:
            yield _too_long(first)
            continue
        objects: list[dict[str, Any]] = []
        places: list[int] = []
        bad: list[BadRow] = []
        for place, line in enumerate(block.split(b"\n"), first):
            members = _parse_line(line) if line.strip() else None
            if isinstance(members, str):
                bad.append(BadRow(place, members, _MEND))
            elif members is not None:
                objects.append({name: _plain(value) for name, value in members})
                places.append(place)
        names = dict.fromkeys(name for row in objects for name in row)
        columns = {name: _inferred([row.get(name) for row in objects]) for name in names}
        yield Rows(columns, np.array(places, np.int64), bad)


def _numbered(source: Source) -> Iterator[tuple[bytes | None, int]]:
    """Blocks of lines, each with the number of its first line; None is one line too long."""
    line = 1
    for block in blocks(source):
        yield block, line
        line += 1 if block is None else block.count(b"\n")


def _too_long(line: int) -> Rows:
    problem = f"the line is longer than {MAX_LINE_BYTES >> 20} MiB"
    return Rows({}, np.empty(0, np.int64), [BadRow(line, problem, "Cut its text")])


def _plain(value: Any) -> Any:
    """A value with dicts for objects and, in text, U+FFFD for what is not UTF-8."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, _Members):
        return {_plain(name): _plain(member) for name, member in value}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _inferred(values: list[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError):
        texts = [None if v is None else json.dumps(v, ensure_ascii=False) for v in values]
        return pa.ExtensionArray.from_storage(pa.json_(), pa.array(texts, pa.string()))


def _parse_block(block: bytes, columns: Mapping[str, Kind], line: int) -> Rows | None:
    """All lines at once, or None where one of them needs a closer look."""
    lines = block.count(b"\n")
    one_object_a_line = block.startswith(b"{") and block.count(b"\n{") == lines - 1
    if not one_object_a_line or (b"null" in block and _BARE_NULL.search(block)):
        return None
    try:
        table = pa.json.read_json(
            pa.BufferReader(block),
            read_options=pa.json.ReadOptions(use_threads=False, block_size=len(block) + 1),
            parse_options=pa.json.ParseOptions(
                explicit_schema=pa.schema([(n, _ARROW[kind]) for n, kind in columns.items()]),
                unexpected_field_behavior="ignore",
            ),
        )
    except (pa.ArrowException, UnicodeDecodeError):
        return None
    if table.num_rows != lines:
        return None
    batch = table.combine_chunks().to_batches()[0]
    return Rows(
        dict(zip(batch.schema.names, batch.columns, strict=True)),
        np.arange(line, line + lines, dtype=np.int64),
    )


def _parse_lines(block: bytes, columns: Mapping[str, Kind], first: int) -> Rows:
    values: dict[str, list[Any]] = {name: [] for name in columns}
    places: list[int] = []
    bad: list[BadRow] = []
    for place, line in enumerate(block.split(b"\n"), first):
        if not line.strip():
            continue
        row = _typed(_parse_line(line), columns, place)
        if isinstance(row, BadRow):
            bad.append(row)
            continue
        places.append(place)
        for name, value in zip(columns, row, strict=True):
            values[name].append(value)
    arrays = {
        name: pa.array(values[name], pa.binary()).view(pa.string())
        if kind == "text"
        else pa.array(values[name], pa.float64())
        for name, kind in columns.items()
    }
    return Rows(arrays, np.array(places, np.int64), bad)


def _parse_line(line: bytes) -> list[tuple[str, Any]] | str:
    """The members of the object on a line, or what is wrong with the line.

    Bytes that are not UTF-8 come back as lone surrogates (PEP 383).
    """
    try:
        parsed = json.loads(line.decode("utf-8", "surrogateescape"), object_pairs_hook=_Members)
    except json.JSONDecodeError as error:
        return f"malformed JSON: {error.msg} at character {error.pos}"
    except (ValueError, RecursionError) as error:
        return f"malformed JSON: {error}"
    if isinstance(parsed, _Members):
        return parsed
    return f"{_json_name(parsed)} where a JSON object is expected"


def _typed(
    members: list[tuple[str, Any]] | str, columns: Mapping[str, Kind], place: int
) -> list[Any] | BadRow:
    """Values in the order of `columns`: bytes or None, float or None."""
    if isinstance(members, str):
        return BadRow(place, members, _MEND)
    row: dict[str, Any] = {}
    for name, value in members:
        if name not in columns:
            continue
        if name in row:
            return BadRow(place, "the name is given twice", "Keep one of the two", name)
        kind = columns[name]
        fits = isinstance(value, str) if kind == "text" else type(value) in (int, float)
        if value is not None and not fits:
            expected = "text" if kind == "text" else "a number"
            mend = "Write text in double quotes" if kind == "text" else "Write a bare number"
            return BadRow(place, f"{_json_name(value)} where {expected} is expected", mend, name)
        try:
            row[name] = value if value is None else _stored(value)
        except (UnicodeEncodeError, OverflowError) as error:
            return BadRow(place, f"a value that cannot be stored: {error}", "Mend it", name)
    return [row.get(name) for name in columns]


def _stored(value: str | float) -> bytes | float:
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else float(value)


def _json_name(value: Any) -> str:
    if value is None:
        return "null"
    return "an object" if isinstance(value, _Members) else _JSON_NAMES[type(value)]
