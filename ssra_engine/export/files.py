"""Files of an export, written row by row."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["Files"]


class Files:
    """Files below a folder, each opened when it is first written to.

    JSONL and TSV take the rows of a table as they are; Parquet files hold one row group a call.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._parquet: dict[str, pq.ParquetWriter] = {}
        self._text: dict[str, Any] = {}

    def __enter__(self) -> Files:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in (*self._parquet.values(), *self._text.values()):
            file.close()

    def parquet(self, name: str, table: pa.Table) -> None:
        """Append rows to a Parquet file, which is there afterwards even without rows."""
        if name not in self._parquet:
            path = self._path(name)
            self._parquet[name] = pq.ParquetWriter(path, table.schema, compression="zstd")
        if len(table):
            self._parquet[name].write_table(table)

    def jsonl(self, name: str, table: pa.Table) -> None:
        """Append an object a row."""
        file = self._open(name)
        for row in table.to_pylist():
            file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def tsv(self, name: str, table: pa.Table) -> None:
        """Append a line a row, below a line of names. Cells hold neither tabs nor line breaks."""
        begun = name in self._text
        file = self._open(name)
        if not begun:
            file.write("\t".join(table.schema.names) + "\n")
        for row in table.to_pylist():
            file.write("\t".join(map(str, row.values())) + "\n")

    def text(self, name: str, text: str) -> None:
        """Write a whole file."""
        self._path(name).write_text(text, encoding="utf-8")

    def _open(self, name: str) -> Any:
        if name not in self._text:
            self._text[name] = self._path(name).open("w", encoding="utf-8", newline="\n")
        return self._text[name]

    def _path(self, name: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path
