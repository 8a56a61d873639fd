"""Tables that the embedder learns from beside judgments: synthetic queries and hard negatives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ssra_engine.errors import DataError
from ssra_engine.evaluation.outputs import open_outputs
from ssra_engine.readers import (
    Kind,
    Rows,
    Source,
    blank,
    check_columns,
    checked_cells,
    column_types,
    find_sources,
    read,
)

__all__ = [
    "HARD_NEGATIVES",
    "SYNTHETIC_PAIRS",
    "read_hard_negatives",
    "read_synthetic",
    "synthetic_folder",
]

SYNTHETIC_PAIRS = pa.schema(
    [("query", pa.string()), ("doc_id", pa.string()), ("target", pa.int8())]
)

#: A row for each negative of a pair (query, doc_id); `score` is the similarity of query and
#: negative. A negative that nobody graded has no grade.
HARD_NEGATIVES = pa.schema(
    [
        ("query", pa.string()),
        ("doc_id", pa.string()),
        ("negative_id", pa.string()),
        ("negative_grade", pa.int8()),
        ("score", pa.float32()),
    ]
)
_UNGRADED = ("negative_grade", "score")

#: List columns of `schema.NEGATIVES`, and what each of their values is in `HARD_NEGATIVES`.
_LISTS = {
    "negative_doc_ids": "negative_id",
    "negative_grades": "negative_grade",
    "negative_scores": "score",
}


def read_synthetic(folder: Path, doc_ids: pa.ChunkedArray, grades: Sequence[int]) -> pa.Table:
    """Queries that a run kept, or that `accept` accepted, with the grade they were written for.

    Args:
        folder: the output of `ssra-engine run` or of `ssra-engine accept`.
        doc_ids: string, every known document.
        grades: the scale.

    Returns:
        `SYNTHETIC_PAIRS`, in the files' order.

    Raises:
        StoreError: the run has not ended.
        DataError: a file or a row is bad, a doc_id is not in `doc_ids`, or a target is not on the
            scale.
    """
    return _read_table([synthetic_folder(folder)], SYNTHETIC_PAIRS, doc_ids, grades)


def synthetic_folder(folder: Path) -> Path:
    """Where the samples are that a run kept at its end; of other folders, the folder.

    Raises:
        StoreError: the run has not ended.
        DataError: there is no such folder.
    """
    if not folder.exists():
        raise DataError("there is no such folder", file=str(folder), mend="Give --synthetic OUT")
    if (folder / "manifest.json").is_file():
        return open_outputs(folder).parts[-1].folders[0]
    return folder


def read_hard_negatives(
    inputs: Sequence[str | Path], doc_ids: pa.ChunkedArray, grades: Sequence[int]
) -> pa.Table:
    """Negatives that `ssra-engine mine` found (`schema.NEGATIVES`), or a row for each of them.

    Args:
        inputs: files, folders, globs or URIs (see `readers.find_sources`), of `schema.NEGATIVES` or
            with the columns of `HARD_NEGATIVES`; negative_grade and score may be missing.
        doc_ids: string, every known document.
        grades: the scale.

    Returns:
        `HARD_NEGATIVES`, in the files' order.

    Raises:
        DataError: a file or a row is bad, a document is not in `doc_ids`, or a grade is not on the
            scale.
    """
    return _read_table(inputs, HARD_NEGATIVES, doc_ids, grades)


def _read_table(
    inputs: Sequence[str | Path],
    schema: pa.Schema,
    doc_ids: pa.ChunkedArray,
    grades: Sequence[int],
) -> pa.Table:
    known = doc_ids.combine_chunks()
    numbers = [field.name for field in schema if not pa.types.is_string(field.type)]
    optional = [name for name in schema.names if name in _UNGRADED]
    required = [name for name in schema.names if name not in optional]
    may_list = "negative_id" in schema.names
    parts = []
    for source in find_sources(inputs):
        listed = may_list and "negative_doc_ids" in (column_types(source) or ())
        kinds: dict[str, Kind] | None = None
        if listed:
            check_columns(source, ["query", "doc_id"])
        else:
            found = check_columns(source, required, optional=optional, numbers=numbers)
            kinds = {name: "number" if name in numbers else "text" for name in sorted(found)}
        for rows in read(source, kinds):
            flat = _flat(source, rows) if listed else rows
            parts.append(_checked(source, flat, schema, known, grades))
    table = pa.concat_tables(parts)
    if not len(table):
        raise DataError("there are no rows", file=str(inputs[0]), mend="Give a file with some")
    return table


def _flat(source: Source, rows: Rows) -> Rows:
    """A row for each value of the lists."""
    for name in _LISTS:
        column = rows.columns.get(name)
        if column is None or not (
            pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
        ):
            raise source.error("the column is no list", "Mine the negatives again", column=name)
    lists = {name: rows.columns[name] for name in _LISTS}
    lengths = [pc.fill_null(pc.list_value_length(one), 0).to_numpy() for one in lists.values()]
    uneven = np.flatnonzero((lengths[1] != lengths[0]) | (lengths[2] != lengths[0]))
    if len(uneven):
        place = int(rows.places[uneven[0]])
        raise source.error(
            "the lists of negatives, scores and grades differ in length",
            "Mine the negatives again",
            place=place,
        )
    of = pc.list_parent_indices(lists["negative_doc_ids"])
    columns = {name: rows.columns[name].take(of) for name in ("query", "doc_id")}
    columns |= {flat: pc.list_flatten(lists[name]) for name, flat in _LISTS.items()}
    return Rows(columns, rows.places[of.to_numpy()], rows.bad)


def _checked(
    source: Source, rows: Rows, schema: pa.Schema, known: pa.Array, grades: Sequence[int]
) -> pa.Table:
    """Rows in which every cell is good; the first bad one of the first bad column is told."""
    texts = [field.name for field in schema if pa.types.is_string(field.type)]
    cells, faults = checked_cells(source, rows, texts)
    for bad in (*rows.bad, *faults.values()):
        raise source.error(bad.problem, bad.mend, column=bad.column, place=bad.place)
    for name in texts:
        wrong = pc.fill_null(blank(cells[name]), True)
        _refuse(source, rows, name, wrong, "the cell is null or blank", "Fill it in")
        if name != "query":
            unknown = pc.invert(pc.is_in(cells[name], value_set=known))
            mend = "Give the corpus that the table was made from"
            _refuse(source, rows, name, unknown, "the document is not in the corpus", mend)
    for name in schema.names:
        if name in texts:
            continue
        cells[name] = _numbers(source, rows, name)
        if name != "score":
            off = pc.invert(pc.is_in(cells[name], value_set=pa.array(grades, pa.float64())))
            if name in _UNGRADED:
                off = pc.and_(off, pc.is_valid(cells[name]))
            scale = ", ".join(map(str, grades))
            _refuse(source, rows, name, off, f"the grade is none of {scale}", "Set --grades")
    return pa.table([cells[name] for name in schema.names], schema.names).cast(schema)


def _numbers(source: Source, rows: Rows, name: str) -> pa.Array:
    """float64[len(rows)], null where there is nothing; text, as of CSV, is read."""
    column = rows.columns.get(name, pa.nulls(len(rows), pa.float64()))
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return column.cast(pa.float64(), safe=False)
    texts = pc.utf8_trim_whitespace(column.cast(pa.string()))
    texts = pc.if_else(pc.equal(texts, ""), None, texts)
    number = pc.match_substring_regex(texts, r"^[+-]?[0-9]*\.?[0-9]+([eE][+-]?[0-9]+)?$")
    _refuse(source, rows, name, pc.invert(number), "the cell is no number", "Write a number")
    return texts.cast(pa.float64())


def _refuse(
    source: Source, rows: Rows, name: str, wrong: pa.Array, problem: str, mend: str
) -> None:
    found = np.flatnonzero(pc.fill_null(wrong, False).to_numpy(zero_copy_only=False))
    if not len(found):
        return
    more = f" ({len(found)} such rows)" if len(found) > 1 else ""
    raise source.error(problem + more, mend, column=name, place=int(rows.places[found[0]]))
