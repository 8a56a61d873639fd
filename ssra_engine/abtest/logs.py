"""Logs of an experiment: one row an impression, read as sums for each user.

Columns:
    user_id    text or whole number: who saw it; never null
    clicked    bool, or 0 and 1: whether it was clicked; null in a row that is no impression, such
               as a visit, which only says that this user belongs to the arm
    relevance  optional, whole number: the grade of the result for its query; null where unknown
    used       optional, bool, or 0 and 1: whether the row shows use of the feature; without the
               column, a click is use
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from ssra_engine.errors import DataError
from ssra_engine.readers import Kind, Rows, Source, column_types, find_sources, is_text, read

__all__ = ["USERS", "read_users", "shared_users"]

#: Sums of one arm, a row a user: judged are impressions with a grade, strong those of a high one.
USERS = pa.schema(
    [
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("impressions", pa.int64(), nullable=False),
        pa.field("clicks", pa.int64(), nullable=False),
        pa.field("judged", pa.int64(), nullable=False),
        pa.field("strong", pa.int64(), nullable=False),
        pa.field("used", pa.int64(), nullable=False),
    ]
)

_COLUMNS: dict[str, Kind] = {
    "user_id": "text",
    "clicked": "number",
    "relevance": "number",
    "used": "number",
}
_SUMS = tuple(USERS.names[1:])
_PENDING = 256


def read_users(inputs: Sequence[str | Path], strong: int) -> pa.Table:
    """Read the log of one arm; memory grows with its users, not with its rows.

    Args:
        inputs: Arrow or Parquet files, folders, globs or URIs of them.
        strong: lowest grade of a strongly relevant result.

    Returns:
        `USERS`, each user once, in the order of first appearance.

    Raises:
        DataError: a file cannot be read or is neither Arrow nor Parquet, a column is missing or of
            another type, or a value cannot be used.
    """
    pending: list[pa.Table] = []
    for source in find_sources(inputs):
        for rows in read(source, _check(source)):
            pending.append(_sums(source, rows, strong))
            if len(pending) >= _PENDING:
                pending = [_merge(pending)]
    if not pending:
        return USERS.empty_table()
    return _merge(pending)


def shared_users(first: pa.Table, second: pa.Table) -> int:
    """Users of one arm who are also in the other."""
    known = second["user_id"].combine_chunks()
    return int(pc.sum(pc.is_in(first["user_id"], known)).as_py() or 0)


def _check(source: Source) -> dict[str, Kind]:
    """The columns that are there, after a look at their types."""
    if source.by_line:
        raise source.error("logs are Arrow or Parquet", "Write it again as Parquet")
    types = column_types(source) or {}
    for name in ("user_id", "clicked"):
        if name not in types:
            raise source.error(
                f"the column is missing; the columns are: {', '.join(types)[:300]}",
                "Name it so",
                column=name,
            )
    for name in _COLUMNS:
        kind = types.get(name)
        if kind is None:
            continue
        whole = pa.types.is_integer(kind)
        flag = pa.types.is_boolean(kind)
        fits = {"user_id": is_text(kind) or whole, "relevance": whole}.get(name, flag or whole)
        if not fits:
            wanted = {"user_id": "text or whole numbers", "relevance": "whole numbers"}
            raise source.error(
                f"holds {kind}, not {wanted.get(name, 'booleans')}", "Convert it", column=name
            )
    return {name: kind for name, kind in _COLUMNS.items() if name in types}


def _sums(source: Source, rows: Rows, strong: int) -> pa.Table:
    users = rows.columns["user_id"]
    _refuse(source, rows, "user_id", pc.is_null(users), "has no user")
    clicked = _flag(source, rows, "clicked")
    seen = pc.is_valid(clicked)
    grades = rows.columns.get("relevance", pa.nulls(len(rows), pa.int8()))
    judged = pc.and_(seen, pc.is_valid(grades))
    high = pc.and_(judged, pc.fill_null(pc.greater_equal(grades, strong), fill_value=False))
    used = _flag(source, rows, "used") if "used" in rows.columns else clicked
    flags = (seen, pc.fill_null(clicked, fill_value=False), judged, high)
    columns = [*flags, pc.fill_null(used, fill_value=False)]
    table = pa.table(
        [users.cast(pa.string()), *(column.cast(pa.int64()) for column in columns)], schema=USERS
    )
    return _merge([table])


def _flag(source: Source, rows: Rows, name: str) -> pa.Array:
    values = rows.columns[name]
    if pa.types.is_boolean(values.type):
        return values
    numbers = values.cast(pa.int64())
    bad = pc.and_(pc.not_equal(numbers, 0), pc.not_equal(numbers, 1))
    _refuse(source, rows, name, pc.fill_null(bad, fill_value=False), "is neither 0 nor 1")
    return pc.equal(numbers, 1)


def _refuse(source: Source, rows: Rows, name: str, bad: pa.Array, problem: str) -> None:
    first = pc.index(bad, value=True).as_py()
    if first >= 0:
        raise DataError(
            problem,
            file=source.name,
            column=name,
            row=int(rows.places[first]),
            mend="Mend or drop the row",
        )


def _merge(tables: list[pa.Table]) -> pa.Table:
    together = pa.concat_tables(tables).combine_chunks()
    summed = together.group_by("user_id", use_threads=False).aggregate(
        [(name, "sum") for name in _SUMS]
    )
    columns = [summed["user_id"], *(summed[f"{name}_sum"] for name in _SUMS)]
    return pa.table(columns, schema=USERS)
