"""An output folder against its own records: is everything there, whole, and there once?"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ssra_engine.checksums import checksum, file_checksum
from ssra_engine.config import Config, load_config
from ssra_engine.errors import ConfigError, StoreError
from ssra_engine.journal import Journal, Record
from ssra_engine.manifest import MANIFEST, Manifest, read_manifest
from ssra_engine.row_checks import RowChecks
from ssra_engine.schema import REJECTED, STAGED, SYNTHETIC
from ssra_engine.store import lock_for_reading
from ssra_engine.tally import describe

__all__ = ["Finding", "Verdict", "verify_output"]

_MISSING = "is missing"
_SUMMARY = "summary.json"


@dataclass(frozen=True)
class Finding:
    """What is wrong with a file of the folder, named relative to it."""

    file: str
    problem: str


@dataclass
class Verdict:
    """What `verify_output` found.

    Attributes:
        folder: the output folder.
        finished: whether the run has ended; None where that cannot be told.
        files: files read to their ends.
        bytes: of those files.
        rows: rows looked at.
        findings: what is wrong; nothing where the folder is sound.
    """

    folder: Path
    finished: bool | None = None
    files: int = 0
    bytes: int = 0
    rows: int = 0
    findings: list[Finding] = field(default_factory=list)

    def report(self, file: str, problem: str) -> None:
        """Add a finding."""
        self.findings.append(Finding(file, problem))


def verify_output(folder: str | Path) -> Verdict:
    """Check an output folder of a run, ended or not; nothing is written to it.

    Every file of the records is read: its checksum, its schema, its number of rows. Of the rows:
    each has the round and the seed that its document, target grade and settings give, and is there
    once; every document of the input has rows or has failed; and the counts of summary.json are
    theirs. In a run that has ended, files beside those of the records are reported where a reader
    would take them for parts of it.

    Raises:
        StoreError: there is no output of a run, or a run is working on it.
    """
    folder = Path(folder)
    verdict = Verdict(folder)
    lock = lock_for_reading(folder)
    try:
        if not (folder / MANIFEST).exists():
            raise StoreError(
                f"{folder}: not the output of a run. Give the --output of `ssra-engine run`."
            )
        try:
            manifest = _read_records(folder)
            maker = manifest.fingerprint.get("command")
            if maker is not None:
                raise StoreError(f"made by `ssra-engine {maker}`, and not by `run`")
            verdict.finished = manifest.state == "finished"
            if not manifest.records and not verdict.finished:
                return verdict  # a run that was stopped before it had finished anything
            config = _read_config(folder, manifest)
        except (StoreError, ConfigError) as error:
            verdict.report(MANIFEST, str(error))
            return verdict
        with tempfile.TemporaryDirectory(prefix="ssra-") as scratch:
            _Check(verdict, config, manifest.records, Path(scratch)).everything()
    finally:
        if lock is not None:
            os.close(lock)
    return verdict


def _read_records(folder: Path) -> Manifest:
    """The manifest, with the records of the journal where the run has not ended."""
    manifest = read_manifest(folder)
    assert manifest is not None
    if manifest.state == "finished":
        return manifest
    records = Journal(folder / "journal").records
    if records[: len(manifest.records)] != manifest.records:
        raise StoreError(f"{folder / 'journal'}: records are missing")
    return Manifest(manifest.state, manifest.fingerprint, records)


def _read_config(folder: Path, manifest: Manifest) -> Config:
    config = load_config(folder / "config.yaml")
    if not _within(manifest.fingerprint.get("config"), config.model_dump(mode="json")):
        raise ConfigError(f"{folder / 'config.yaml'}: these are not the settings of the manifest")
    return config


def _within(some: Any, tree: Any) -> bool:
    """Whether every leaf of a JSON tree is also in the other."""
    if isinstance(some, Mapping) and isinstance(tree, Mapping):
        return all(name in tree and _within(value, tree[name]) for name, value in some.items())
    return bool(some == tree)


@dataclass
class _Check:
    """One look at a folder whose records can be read."""

    verdict: Verdict
    config: Config
    records: list[Record]
    scratch: Path

    def everything(self) -> None:
        """All checks, in the order of the run."""
        expected = set()
        told: list[RowChecks] = []
        sections = [(f"round-{n}", n - 1) for n in range(1, self.config.refine.rounds + 1)]
        for name, version in [*sections, ("final", self.config.refine.rounds)]:
            ended = self._newest("section", section=name)
            before = len(self.verdict.findings)
            rows = self._rows(name, version, ended)
            expected |= {file for part in self._parts(name).values() for file in part["files"]}
            self.verdict.rows += rows.rows
            # Sums over rows mean nothing where some are missing, and that has been told.
            if ended is not None and len(self.verdict.findings) == before:
                self._check_section(name, rows, ended)
                told.append(rows)
        for number in range(1, self.config.refine.rounds + 1):
            files = (self._newest("model", round=number) or {}).get("files", {})
            expected |= set(files)
            for file, facts in files.items():
                self._check_file(file, facts)
        if self.verdict.finished:
            self._check_strays(expected)
            if len(told) == len(sections) + 1:
                self._check_summary(told)

    def _rows(self, name: str, version: int, ended: Record | None) -> RowChecks:
        """Look at the parts of a section that has ended, or else at its staged shards."""
        scratch = self.scratch / name
        scratch.mkdir()
        config, report = self.config, self.verdict.report
        rows = RowChecks(config.targets, config.seed, version, scratch, report)
        if ended is None:
            if self.verdict.finished:
                report(MANIFEST, f"{name}: the run is said to have ended, but this has not")
            for index, shard in sorted(self._shards(name).items()):
                file = f"shards/{name}/{index:06}.arrow"
                table = self._read(file, shard, STAGED)
                if table is not None:
                    rows.add([(file, table.select(REJECTED.names))])
            rows.end()
            return rows
        for part in self._parts(name).values():
            tables = list(self._part(part))
            if tables:
                rows.add(tables)
        rows.end()
        return rows

    def _part(self, part: Record) -> Iterator[tuple[str, pa.Table]]:
        for (file, facts), schema in zip(part["files"].items(), (SYNTHETIC, REJECTED), strict=True):
            table = self._read(file, facts, schema)
            if table is not None:
                missing = [column for column in REJECTED if column.name not in table.column_names]
                for column in missing:
                    table = table.append_column(column, pa.nulls(len(table), column.type))
                yield file, table.select(REJECTED.names)

    def _check_section(self, name: str, rows: RowChecks, ended: Record) -> None:
        """Every part there, every staged row in a part, and every document in the rows."""
        told, parts = self._newest("corpus") or {}, sorted(self._parts(name))
        if parts != list(range(len(parts))) or not parts:
            self.verdict.report(MANIFEST, f"{name}: parts are missing, there are {parts}")
        staged = sum(shard["rows"] for shard in self._shards(name).values())
        if rows.rows != staged:
            self.verdict.report(
                MANIFEST, f"{name}: its shards had {staged} rows, its parts have {rows.rows}"
            )
        if rows.counts.tolist() != ended.get("counts") or rows.failed != ended.get("failed"):
            self.verdict.report(MANIFEST, f"{name}: the counts recorded are not those of the rows")
        documents = int(told.get("documents", 0))
        failed = rows.failed
        if name == "final":
            failed -= int(told.get("rejected", 0))
        else:
            documents = min(documents, self.config.refine.documents)
        left = documents - rows.documents - failed
        # A budget may end the run before every document has its turn.
        if left < 0 or (left and (name != "final" or self.config.synthesize.budget is None)):
            self.verdict.report(
                MANIFEST,
                f"{name}: of {documents} documents, {rows.documents} have rows and {failed} failed",
            )

    def _check_strays(self, expected: set[str]) -> None:
        folder = self.verdict.folder
        for name in ("synthetic", "rejected", "rounds"):
            for path in sorted((folder / name).rglob("*")):
                file = path.relative_to(folder).as_posix()
                if not path.is_dir() and file not in expected:
                    self.verdict.report(file, "is not of this run; readers may take it for a part")

    def _check_summary(self, told: list[RowChecks]) -> None:
        """The counts of summary.json are those of the rows, section by section."""
        try:
            text = (self.verdict.folder / _SUMMARY).read_text(encoding="utf-8")
            summary = json.loads(text)
            rounds = [*summary["rounds"], summary]
            given = [(one["grades"], one["total"], one["failed_documents"]) for one in rounds]
            documents = (summary["documents"], summary["rejected_documents"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            self.verdict.report(_SUMMARY, f"cannot be read: {type(error).__name__}: {error}")
            return
        found = []
        for rows in told:
            counts = describe(rows.counts, self.config.targets)
            found.append((counts["grades"], counts["total"], rows.failed))
        corpus = self._newest("corpus") or {}
        if given != found or documents != (corpus.get("documents"), corpus.get("rejected")):
            self.verdict.report(_SUMMARY, "its counts are not those of the rows")

    def _read(self, file: str, facts: Record, schema: pa.Schema) -> pa.Table | None:
        """A table of the records, or None where it is not whole, which is reported."""
        try:
            data = (self.verdict.folder / file).read_bytes()
        except FileNotFoundError:
            self.verdict.report(file, _MISSING)
            return None
        except OSError as error:
            self.verdict.report(file, f"cannot be read: {error.strerror or error}")
            return None
        if not self._is_recorded(file, checksum(data), facts):
            return None
        try:
            if file.endswith(".parquet"):
                table = pq.read_table(pa.BufferReader(data))
            else:
                table = pa.ipc.open_file(data).read_all()
        except (OSError, pa.ArrowException) as error:
            self.verdict.report(file, f"cannot be read: {error}")
            return None
        if table.schema.remove_metadata() != schema:
            self.verdict.report(file, "has other columns than its kind of table")
            return None
        if len(table) != facts.get("rows"):
            self.verdict.report(file, f"has {len(table)} rows, {facts.get('rows')} are recorded")
        return table

    def _check_file(self, file: str, facts: Record) -> None:
        try:
            found = file_checksum(self.verdict.folder / file)
        except FileNotFoundError:
            self.verdict.report(file, _MISSING)
        except OSError as error:
            self.verdict.report(file, f"cannot be read: {error.strerror or error}")
        else:
            self._is_recorded(file, found, facts)

    def _is_recorded(self, file: str, found: Record, facts: Record) -> bool:
        self.verdict.files += 1
        self.verdict.bytes += found["bytes"]
        if found["bytes"] != facts["bytes"]:
            problem = f"has {found['bytes']:,} bytes, {facts['bytes']:,} are recorded"
            self.verdict.report(file, problem)
        elif found["xxh3"] != facts["xxh3"]:
            self.verdict.report(file, "was changed: its checksum is not the one recorded")
        else:
            return True
        return False

    def _newest(self, kind: str, **facts: Any) -> Record | None:
        for record in reversed(self.records):
            if record["kind"] == kind and all(record.get(k) == v for k, v in facts.items()):
                return record
        return None

    def _shards(self, section: str) -> dict[int, Record]:
        """The newest record of each shard."""
        return {r["index"]: r for r in self.records if _of(r, "shard", section)}

    def _parts(self, section: str) -> dict[int, Record]:
        """The newest record of each part: one that was lost has an older one."""
        return {r["part"]: r for r in self.records if _of(r, "part", section)}


def _of(record: Record, kind: str, section: str) -> bool:
    return bool(record["kind"] == kind and record.get("section") == section)
