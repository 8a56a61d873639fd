"""Shards of one round, or of the final synthesis: staged one by one, then put into final parts."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from ssra_engine.errors import StoreError
from ssra_engine.journal import Record
from ssra_engine.store import Store

__all__ = ["Section"]

_log = logging.getLogger(__name__)

# Consecutive shards are put together into a final part until it holds at least this many rows.
_PART_ROWS = 1 << 17

_DO_AGAIN = "Remove it and run the same command again: its shard is done anew."

_LZ4 = pa.ipc.IpcWriteOptions(compression="lz4")


class Section:
    """A part of the run with shards and outputs of its own.

    Args:
        store: the output folder.
        name: "final", or "round-<n>".
        kept: folder of its kept rows, relative to the output folder.
        rejected: folder of its rejected rows.
        file_format: of the final parts.
        shard_count: how many shards there are.

    Attributes:
        shards: record of each committed shard, by its index.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        *,
        kept: str,
        rejected: str,
        file_format: Literal["parquet", "arrow"],
        shard_count: int,
    ) -> None:
        self.store = store
        self.name = name
        self.shard_count = shard_count
        self._folders = (kept, rejected)
        self._format = file_format
        self.shards: dict[int, Record] = {
            record["index"]: record
            for record in store.records
            if record["kind"] == "shard" and record["section"] == name
        }
        # A part that was lost and written again has two records, of which the newer counts.
        self._parts: dict[int, Record] = {
            record["part"]: record
            for record in store.records
            if record["kind"] == "part" and record["section"] == name
        }
        if self.ended is None:
            self._forget_lost_shards()

    @property
    def ended(self) -> Record | None:
        """The record of the section's end, if it has ended."""
        return self.store.find("section", section=self.name)

    def commit(self, index: int, table: pa.Table, facts: Mapping[str, Any]) -> None:
        """Stage what a shard yielded (`schema.STAGED`) and record it with some facts about it."""
        file = self.store.put(self._staged(index), _arrow(table))
        self.shards[index] = self.store.record(
            "shard", section=self.name, index=index, rows=len(table), **file, **facts
        )

    def read(self, index: int, columns: list[str] | None = None) -> pa.Table:
        """Some columns, or all, of a staged shard, checked against its record.

        Raises:
            StoreError: the file is missing or damaged.
        """
        path = self.store.folder / self._staged(index)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise StoreError(f"{path}: cannot be read: {error}. {_DO_AGAIN}") from error
        if xxhash.xxh3_64_hexdigest(data) != self.shards[index]["xxh3"]:
            raise StoreError(f"{path}: the file is damaged. {_DO_AGAIN}")
        fields = None
        if columns is not None:
            names = pa.ipc.open_file(data).schema.names
            fields = [names.index(column) for column in columns]
        options = pa.ipc.IpcReadOptions(included_fields=fields)
        return pa.ipc.open_file(data, options=options).read_all()

    def parts(self) -> list[list[int]]:
        """Shards of each final part."""
        parts: list[list[int]] = []
        rows = _PART_ROWS
        for index in range(self.shard_count):
            if rows >= _PART_ROWS:
                parts.append([])
                rows = 0
            parts[-1].append(index)
            rows += self.shards[index]["rows"]
        return parts

    def part_written(self, number: int) -> bool:
        """Whether a final part is there."""
        record = self._parts.get(number)
        return record is not None and all(
            self.store.holds(name, file) for name, file in record["files"].items()
        )

    def write_part(self, number: int, kept: pa.Table, rejected: pa.Table) -> None:
        """Write a final part: kept rows (`schema.SYNTHETIC`), rejected ones (`schema.REJECTED`)."""
        serialise = _parquet if self._format == "parquet" else _arrow
        files = {}
        for folder, table in zip(self._folders, (kept, rejected), strict=True):
            name = f"{folder}/part-{number:05}.{self._format}"
            files[name] = {"rows": len(table), **self.store.put(name, serialise(table))}
        record = self.store.record("part", section=self.name, part=number, files=files)
        self._parts[number] = record

    def read_kept(self) -> pa.Table:
        """All kept rows of a section that has ended and fits memory.

        Raises:
            StoreError: a part is missing or damaged.
        """
        tables = []
        for _, record in sorted(self._parts.items()):
            name, file = next(iter(record["files"].items()))
            self.store.check({name: file})
            path = self.store.folder / name
            if self._format == "parquet":
                tables.append(pq.read_table(path))
            else:
                tables.append(pa.ipc.open_file(path.read_bytes()).read_all())
        return pa.concat_tables(tables)

    def end(self, **facts: Any) -> None:
        """Record the section's end, bring the manifest up to date, and drop the staged shards."""
        self.store.record("section", section=self.name, **facts)
        self.store.write_manifest()
        self.drop_staged()

    def drop_staged(self) -> None:
        """Remove the staged shards of a section that has ended."""
        self.store.drop(f"shards/{self.name}")

    def _staged(self, index: int) -> str:
        return f"shards/{self.name}/{index:06}.arrow"

    def _forget_lost_shards(self) -> None:
        for index, record in list(self.shards.items()):
            if not self.store.holds(self._staged(index), record):
                _log.warning("%s is lost: its shard is done again", self._staged(index))
                del self.shards[index]


def _arrow(table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema, options=_LZ4) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _parquet(table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", use_dictionary=["doc_id", "reason"])
    return sink.getvalue()
