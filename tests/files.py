"""Tables written as files of every format that the readers know."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["FORMATS", "write"]


def _arrow(table: pa.Table, path: Path) -> None:
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)


def _stream(table: pa.Table, path: Path) -> None:
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=5)


def _parquet(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, row_group_size=11)


def _jsonl(table: pa.Table, path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in table.to_pylist():
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _delimited(delimiter: str) -> Callable[[pa.Table, Path], None]:
    def write_rows(table: pa.Table, path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter=delimiter, lineterminator="\r\n")
            writer.writerow(table.column_names)
            writer.writerows(row.values() for row in table.to_pylist())

    return write_rows


#: Suffix to writer.
FORMATS: dict[str, Callable[[pa.Table, Path], None]] = {
    "arrow": _arrow,
    "arrows": _stream,
    "parquet": _parquet,
    "jsonl": _jsonl,
    "csv": _delimited(","),
    "tsv": _delimited("\t"),
}


def write(table: pa.Table | list[dict[str, object]], path: Path) -> Path:
    """Write a table, in the format of the path's suffix."""
    if isinstance(table, list):
        table = pa.Table.from_pylist(table)
    FORMATS[path.suffix[1:]](table, path)
    return path
