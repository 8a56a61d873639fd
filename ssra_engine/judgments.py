"""Graded judgments and unlabelled pairs: small tables, read whole and checked row by row."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ssra_engine.errors import DataError
from ssra_engine.keys import hash_strings, normalise
from ssra_engine.readers import (
    BadRow,
    Kind,
    Rows,
    Source,
    blank,
    check_columns,
    checked_cells,
    find_sources,
    is_text,
    read,
)
from ssra_engine.schema import JUDGMENTS, PAIRS, RATIONALES

__all__ = ["read_judgments", "read_pairs", "read_split", "split_queries"]

_log = logging.getLogger(__name__)

_WHOLE_NUMBER = r"^[+-]?[0-9]+(\.0*)?$"


def read_judgments(
    inputs: Sequence[str | Path],
    grades: Sequence[int],
    *,
    doc_ids: pa.Array | pa.ChunkedArray | None = None,
    seed: int = 0,
    dev_share: float = 0.1,
    rationales: bool = False,
) -> pa.Table:
    """Read judgments: columns query, doc_id, grade (whole numbers of any type), optional split.

    Several grades of one (query, doc_id), as from several annotators, become their lower median,
    in the place of the first; if one of the rows is held out of training, the pair is. Without
    split, or where no row is in the split dev, a share of the train queries becomes dev (see
    `split_queries`). What was merged and split is logged.

    Args:
        inputs: files, folders, globs or URIs (see `readers.find_sources`).
        grades: the scale.
        doc_ids: string, every known document; None to accept any.
        seed: of the split.
        dev_share: share of the train queries that becomes dev.
        rationales: read the column rationale too, where there is one.

    Returns:
        `schema.JUDGMENTS`, or `schema.RATIONALES`, in the files' order, one row per
        (query, doc_id); of several rationales of a pair, that of the first row with its grade.

    Raises:
        DataError: a file or a row is bad, a doc_id is not in `doc_ids`, no row is in the split
            train, or there is but one grade (in all, or in train).
    """
    rows = _read_rows(inputs, ["query", "doc_id"], doc_ids, grades, rationales)
    table = _merge_grades(_with_split(rows))
    _need_grades(table, rows.sources[0], "the judgments")
    table = _with_dev(table, rows.sources[0], seed, dev_share)
    train = table.filter(pc.equal(table["split"], "train"))
    _need_grades(train, rows.sources[0], "the train judgments")
    return table


def read_split(
    inputs: Sequence[str | Path],
    grades: Sequence[int],
    split: str,
    *,
    doc_ids: pa.Array | pa.ChunkedArray | None = None,
    seed: int = 0,
    rationales: bool = False,
) -> pa.Table:
    """Read the judgments of one split, to measure with: the same rows that `read_judgments` gives.

    Unlike there, a file without train rows will do.

    Args:
        inputs: files, folders, globs or URIs (see `readers.find_sources`).
        grades: the scale.
        split: its name, or "all" for every row.
        doc_ids: string, every known document; None to accept any.
        seed: of the split, where the files name no dev rows.
        rationales: read the column rationale too, where there is one.

    Returns:
        `schema.JUDGMENTS`, in the files' order, one row per (query, doc_id).

    Raises:
        DataError: a file or a row is bad, a doc_id is not in `doc_ids`, or no row is in the split.
    """
    rows = _read_rows(inputs, ["query", "doc_id"], doc_ids, grades, rationales)
    table = _merge_grades(_with_split(rows))
    if split == "all":
        return table
    if "train" in pc.unique(table["split"]).to_pylist():
        table = _with_dev(table, rows.sources[0], seed, dev_share=0.1)
    found = table.filter(pc.equal(table["split"], split))
    if len(found) == 0:
        names = ", ".join(sorted(pc.unique(table["split"]).to_pylist()))
        raise rows.sources[0].error(
            f"no row is in the split {split}; the splits are: {names[:300]}",
            "Give one of these, or all",
            column="split",
        )
    return found


def read_pairs(
    inputs: Sequence[str | Path], *, doc_ids: pa.Array | pa.ChunkedArray | None = None
) -> pa.Table:
    """Read unlabelled pairs: columns query and doc_id; repeated pairs are dropped, and logged.

    Args:
        inputs: files, folders, globs or URIs (see `readers.find_sources`).
        doc_ids: string, every known document; None to accept any.

    Returns:
        `schema.PAIRS`, in the files' order.

    Raises:
        DataError: a file or a row is bad, or a doc_id is not in `doc_ids`.
    """
    table = _read_rows(inputs, ["query", "doc_id"], doc_ids, None).table
    first = _groups(table)[0]
    if len(first) < len(table):
        _log.info("%d repeated pairs were dropped", len(table) - len(first))
    return table.take(pa.array(np.sort(first))).select(PAIRS.names).cast(PAIRS)


def split_queries(queries: pa.Array, seed: int, dev_share: float) -> np.ndarray:
    """Which rows are dev: a share of the queries, chosen by a hash of (seed, query).

    The choice for a query does not depend on the others or on their order. Queries that differ in
    case, width or white space fall on the same side. With two queries or more, there is at least
    one on either side.

    Args:
        queries: string[N].
        seed: of the hash.
        dev_share: between 0 and 1; 0 means no dev.

    Returns:
        bool[N].
    """
    keys = hash_strings(normalise(queries), seed)
    if dev_share == 0 or len(keys) == 0 or keys.min() == keys.max():
        return np.zeros(len(keys), bool)
    dev = keys < np.uint64(min(dev_share * 2.0**64, 2.0**64 - 2048))
    return np.asarray((dev | (keys == keys.min())) & (keys != keys.max()))


class _ReadRows:
    """All rows of some files, and where each stands."""

    def __init__(self, sources: tuple[Source, ...], parts: list[pa.Table]) -> None:
        self.sources = sources
        self.table = pa.concat_tables(parts).combine_chunks()

    def error(self, index: int, column: str, problem: str, mend: str) -> DataError:
        source = self.sources[int(self.table["file"][index].as_py())]
        place = self.table["place"][index].as_py()
        return source.error(problem, mend, column=column, place=place)


def _read_rows(
    inputs: Sequence[str | Path],
    names: Sequence[str],
    doc_ids: pa.Array | pa.ChunkedArray | None,
    grades: Sequence[int] | None,
    rationales: bool = False,
) -> _ReadRows:
    sources = find_sources(inputs)
    judged = grades is not None
    required = [*names, "grade"] if judged else list(names)
    optional = [*(["split"] if judged else []), *(["rationale"] if rationales else [])]
    parts: list[pa.Table] = []
    for number, source in enumerate(sources):
        found = check_columns(source, required, optional=optional, numbers=["grade"])
        kinds: dict[str, Kind] = {
            name: "number" if name == "grade" else "text" for name in sorted(found)
        }
        for rows in read(source, kinds):
            parts.append(_checked(source, number, rows, names, optional, grades))
    if not any(len(part) for part in parts):
        raise DataError("there are no rows", file=sources[0].name, mend="Give a file with some")
    read_rows = _ReadRows(sources, parts)
    if doc_ids is not None:
        _need_documents(read_rows, doc_ids)
    return read_rows


def _need_documents(rows: _ReadRows, doc_ids: pa.Array | pa.ChunkedArray) -> None:
    known = pc.is_in(rows.table["doc_id"], value_set=doc_ids.cast(pa.string()))
    strange = np.flatnonzero(~known.to_numpy())
    if len(strange):
        first = int(strange[0])
        raise rows.error(
            first,
            "doc_id",
            f"{rows.table['doc_id'][first].as_py()!r} is not in the corpus "
            f"({len(strange)} such rows)",
            "Add the document to the corpus, or leave out these rows",
        )


def _checked(
    source: Source,
    number: int,
    rows: Rows,
    names: Sequence[str],
    optional: Sequence[str],
    grades: Sequence[int] | None,
) -> pa.Table:
    """Columns of `names`, the optional ones, grade where judged, file and place; all rows good."""
    texts = [*names, *optional]
    column = rows.columns.get("grade", pa.nulls(len(rows), pa.float64()))
    if grades is not None and is_text(column.type):
        texts.append("grade")
    cells, faults = checked_cells(source, rows, texts)
    bad = [*rows.bad, *faults.values()]
    for name in names:
        empty = pc.fill_null(blank(cells[name]), True).to_numpy(zero_copy_only=False)
        bad += [
            BadRow(
                int(rows.places[index]),
                f"the {name} is {'blank' if cells[name][index].is_valid else 'null'}",
                "Fill it in, or leave out the row",
                name,
            )
            for index in np.flatnonzero(empty).tolist()
        ]
    if grades is not None:
        cells["grade"], wrong = _grades(cells.get("grade", column), rows.places, grades)
        bad += wrong
        trimmed = pc.utf8_trim_whitespace(cells["split"])
        cells["split"] = pc.if_else(blank(trimmed), None, trimmed)
    if bad:
        first = min(bad, key=lambda row: row.place)
        raise source.error(first.problem, first.mend, column=first.column, place=first.place)
    cells["file"] = pa.repeat(number, len(rows))
    cells["place"] = pa.array(rows.places)
    return pa.table(cells)


def _grades(
    column: pa.Array, places: np.ndarray, grades: Sequence[int]
) -> tuple[pa.Array, list[BadRow]]:
    numbers = column
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        # Text, as in CSV; an empty cell is a null.
        trimmed = pc.utf8_trim_whitespace(column)
        whole = pc.fill_null(pc.match_substring_regex(trimmed, _WHOLE_NUMBER), False)
        numbers = pc.if_else(whole, trimmed, None).cast(pa.float64())
        column = pc.if_else(pc.equal(trimmed, ""), None, column)
    values = numbers.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    good = np.isin(values, np.asarray(grades, np.float64))
    bad = []
    for index in np.flatnonzero(~good).tolist():
        value = column[index].as_py()
        scale = ", ".join(map(str, grades))
        problem = (
            "the grade is null" if value is None else f"{value!r} is not one of the grades {scale}"
        )
        mend = "Fill it in, or leave out the row" if value is None else "Map it, or set --grades"
        bad.append(BadRow(int(places[index]), problem, mend, "grade"))
    return pa.array(np.where(good, values, 0).astype(np.int8)), bad


def _groups(table: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows by (query, doc_id).

    Returns:
        first int64[G]: first row of each pair; order int64[N]: rows sorted by pair, grade (where
        there is one) and row; start int64[G]: where each pair begins in `order`.
    """
    query, doc_id = (
        table[name].combine_chunks().dictionary_encode() for name in ("query", "doc_id")
    )
    pair = query.indices.to_numpy().astype(np.int64) * max(len(doc_id.dictionary), 1)
    pair += doc_id.indices.to_numpy()
    row = np.arange(len(pair))
    grade = table["grade"].to_numpy() if "grade" in table.column_names else row
    order = np.lexsort((row, grade, pair))
    start = np.flatnonzero(np.diff(pair[order], prepend=-1))
    return np.minimum.reduceat(order, start), order, start


def _with_split(rows: _ReadRows) -> pa.Table:
    """Every row gets a split; those of a file that names none are train for now."""
    split = rows.table["split"].combine_chunks()
    without = split.is_null().to_numpy(zero_copy_only=False)
    file = rows.table["file"].to_numpy()
    silent = np.bincount(file[~without], minlength=len(rows.sources)) == 0
    missing = np.flatnonzero(without & ~silent[file])
    if len(missing):
        raise rows.error(
            int(missing[0]),
            "split",
            "the split is null or blank, while other rows have one",
            "Write train, dev or test, or drop the column for a seeded split",
        )
    at = rows.table.column_names.index("split")
    return rows.table.set_column(at, "split", pc.fill_null(split, "train"))


def _merge_grades(table: pa.Table) -> pa.Table:
    """One row per (query, doc_id), where its first stood: the lower median of its grades."""
    first, order, start = _groups(table)
    schema = RATIONALES if "rationale" in table.column_names else JUDGMENTS
    if len(first) == len(table):
        return table.select(schema.names).cast(schema)
    count = np.diff(start, append=len(table))
    grade = table["grade"].to_numpy()[order]
    median = grade[start + (count - 1) // 2]
    conflicting = int((grade[start] != grade[start + count - 1]).sum())
    held_out = (pc.not_equal(table["split"], "train")).to_numpy()
    # Where the pair's split is read: its first row that is held out, else its first row.
    rank = np.where(held_out, 0, len(table)) + np.arange(len(table))
    from_row = np.minimum.reduceat(rank[order], start) % len(table)
    _log.warning(
        "%d of %d judgments repeat a (query, doc_id) and were merged; "
        "%d pairs had several grades and got the lower median",
        len(table) - len(first),
        len(table),
        conflicting,
    )
    rank = np.argsort(first)
    merged = table.take(pa.array(first[rank])).select(["query", "doc_id"])
    merged = merged.append_column("grade", pa.array(median[rank]))
    merged = merged.append_column("split", table["split"].take(pa.array(from_row[rank])))
    if schema is RATIONALES:
        # Rows of a pair are ordered by grade and row: the first of a grade is the first not below.
        group = np.repeat(np.arange(len(start)), count)
        below = np.bincount(group, grade < median[group], len(start)).astype(np.int64)
        chosen = order[start + below][rank]
        merged = merged.append_column("rationale", table["rationale"].take(pa.array(chosen)))
    return merged.cast(schema)


def _with_dev(table: pa.Table, source: Source, seed: int, dev_share: float) -> pa.Table:
    """The table with a dev split, and a look at what the file's own split holds."""
    splits = table["split"].combine_chunks().dictionary_encode()
    names = splits.dictionary.to_pylist()
    if "train" not in names:
        raise source.error(
            f"no row is in the split train; the splits are: {', '.join(names)[:300]}",
            "Mark the rows to learn from as train, or drop the column for a seeded split",
            column="split",
        )
    used = pa.table([table["query"], table["split"]], ["query", "split"]).group_by(
        ["query", "split"], use_threads=False
    )
    pairs = used.aggregate([])
    shared = len(pairs) - pc.count_distinct(pairs["query"]).as_py()
    if shared:
        _log.warning("%d queries are in several splits: held-out figures will flatter", shared)
    if "dev" in names:
        return table
    dev = pc.equal(table["split"], "train").to_numpy().copy()
    train_queries = table["query"].combine_chunks().filter(pa.array(dev))
    dev[dev] = split_queries(train_queries, seed, dev_share)
    _log.info(
        "%d of %d train judgments were set apart as dev, by query", dev.sum(), len(train_queries)
    )
    split = pc.if_else(pa.array(dev), "dev", table["split"].combine_chunks())
    return table.set_column(3, JUDGMENTS.field("split"), split).cast(table.schema)


def _need_grades(table: pa.Table, source: Source, what: str) -> None:
    found = pc.unique(table["grade"]).to_pylist()
    if len(found) < 2:
        raise source.error(
            f"{what} hold one grade only ({found[0]})",
            "Give judgments of two grades or more: there is nothing to tell apart",
            column="grade",
        )
