"""One door to every format."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import pyarrow as pa

from ssra_engine.readers.cells import is_text, text_cells
from ssra_engine.readers.columnar import columnar_rows, columnar_schema
from ssra_engine.readers.delimited import delimited_header, delimited_rows
from ssra_engine.readers.jsonl import Kind, any_jsonl_rows, jsonl_keys, jsonl_rows
from ssra_engine.readers.rows import BadRow, Rows
from ssra_engine.readers.source import Source

__all__ = ["check_columns", "checked_cells", "column_types", "read", "schema_metadata"]


def column_types(source: Source) -> dict[str, pa.DataType | None] | None:
    """Columns and their types, in the file's order.

    CSV columns are text; those of JSONL are the names in the first object, of unknown type (None).
    The whole is None for a JSONL file whose beginning holds no object.

    Raises:
        DataError: the file cannot be read, or two columns share a name.
    """
    with source.translated():
        names: list[str] | None
        if source.format == "jsonl":
            names = jsonl_keys(source)
            kinds: list[pa.DataType | None] = [None] * len(names or ())
        elif source.by_line:
            names = delimited_header(source)
            kinds = [pa.string()] * len(names)
        else:
            schema = columnar_schema(source)
            names, kinds = schema.names, schema.types
    if names is None:
        return None
    for name in names:
        if names.count(name) > 1:
            raise source.error(
                "two columns have this name", "Rename or drop one of them", column=name
            )
    return dict(zip(names, kinds, strict=True))


def schema_metadata(source: Source) -> dict[bytes, bytes]:
    """Metadata of the schema in an Arrow or Parquet file; other formats have none."""
    if source.by_line:
        return {}
    with source.translated():
        return columnar_schema(source).metadata or {}


def check_columns(
    source: Source,
    required: Collection[str],
    *,
    any_of: Collection[str] = (),
    optional: Collection[str] = (),
    numbers: Collection[str] = (),
) -> frozenset[str]:
    """The columns that are there, of those named, after a look at names and types.

    Args:
        required: must be there.
        any_of: at least one of these must be there.
        optional: may be there.
        numbers: those of all the above that hold numbers; the others hold text.

    Raises:
        DataError: a column is missing, given twice or of the wrong type.
    """
    types = column_types(source)
    known = {*required, *any_of, *optional}
    if types is None:
        return frozenset(known)
    found = ", ".join(types)
    listed = f"the columns are: {found[:300]}" if found.strip() else "there are no columns"
    for name in required:
        if name not in types:
            raise source.error(
                f"the column is missing; {listed}",
                f"Add it, or rename the column that holds it to {name}",
                column=name,
            )
    if any_of and source.format != "jsonl" and not types.keys() & set(any_of):
        raise source.error(
            f"none of the columns {', '.join(any_of)} is there; {listed}",
            "Add one of them, or rename the column that holds the text",
        )
    for name in known & types.keys():
        _check_type(source, name, types[name], number=name in numbers)
    return frozenset(known if source.format == "jsonl" else known & types.keys())


def _check_type(source: Source, name: str, kind: pa.DataType | None, *, number: bool) -> None:
    if kind is None or pa.types.is_null(kind):
        return
    if number:
        fits = pa.types.is_integer(kind) or pa.types.is_floating(kind)
        fits = fits or (source.by_line and is_text(kind))
    else:
        fits = is_text(kind)
    if not fits:
        wanted = "an integer" if number else "string"
        raise source.error(
            f"the type is {kind}, not {wanted}", f"Cast the column to {wanted}", column=name
        )


def read(
    source: Source, columns: Mapping[str, Kind] | None, limit: int | None = None
) -> Iterator[Rows]:
    """Stream columns of a file, in pieces of bounded memory.

    Args:
        source: the file.
        columns: names and what each should hold; those that the file lacks may be absent from the
            rows. None: every column, of whatever type, which may differ from piece to piece.
        limit: stop after this many rows, bad ones counted.

    Raises:
        DataError: the file cannot be read (to its end).
    """
    if source.format == "jsonl":
        pieces = any_jsonl_rows(source) if columns is None else jsonl_rows(source, columns)
    elif source.by_line:
        pieces = delimited_rows(source, columns)
    else:
        pieces = columnar_rows(source, columns)
    left = limit
    while left is None or left > 0:
        with source.translated():
            rows = next(pieces, None)
        if rows is None:
            return
        if left is not None:
            rows = rows.first(left)
            left -= len(rows) + len(rows.bad)
        yield rows


def checked_cells(
    source: Source, rows: Rows, names: Sequence[str]
) -> tuple[dict[str, pa.Array], dict[int, BadRow]]:
    """Text columns as `string`, all of them, with null where the file has none or a bad cell.

    Returns:
        string[len(rows)] by name; and, by index into the rows, the first bad cell of a row.

    Raises:
        DataError: the file is damaged.
    """
    cells: dict[str, pa.Array] = {}
    bad: dict[int, BadRow] = {}
    for name in names:
        array = rows.columns.get(name)
        if array is None:
            cells[name] = pa.nulls(len(rows), pa.string())
            continue
        with source.translated():
            cells[name], faults = text_cells(array)
        for index, problem, mend in faults:
            bad.setdefault(index, BadRow(int(rows.places[index]), problem, mend, name))
    return cells, bad
