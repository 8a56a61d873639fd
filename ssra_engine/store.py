"""The output folder of a run, and the only module that writes to it.

    out/manifest.json   what the folder belongs to, its state, and the records so far
    out/journal         the records, appended and synced one by one; gone when the run has ended
    out/shards/         what finished shards yielded, until their section of the run ends
    out/rounds/<n>/     kept, rejected and the retrained query model of each round
    out/synthetic/, out/rejected/, out/summary.json, out/config.yaml, out/run.log

A file appears under its name only when it is whole and on disk (`durable`); then a record is
appended to the journal. So a shard is done or it never happened, whatever kills the process.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import pyarrow as pa

from ssra_engine.checksums import checksum, file_checksum, folder_checksums
from ssra_engine.durable import TEMPORARY, make_folder, put_file, put_folder, remove, writing
from ssra_engine.errors import StoreError
from ssra_engine.journal import Journal, Record
from ssra_engine.manifest import MANIFEST, START_AGAIN, Manifest, manifest_text, read_manifest

__all__ = ["START_AGAIN", "Store", "lock_for_reading", "open_store"]

_LOCK = ".lock"
_OUTPUTS = ("shards", "rounds", "synthetic", "rejected", "summary.json")
_LEFTOVERS = ("journal", "shards", "scratch")


def open_store(folder: Path, fingerprint: Mapping[str, Any], config_yaml: str) -> Store:
    """Make an output folder, or open one to go on where its run stopped.

    Args:
        folder: the output folder.
        fingerprint: all that the rows follow from: a JSON tree of text and numbers.
        config_yaml: the effective configuration, written beside the outputs.

    Raises:
        StoreError: the folder cannot be written, another process works on it, it holds another
            run (the message says what differs), or it is not the output folder of a run.
    """
    with writing(folder):
        make_folder(folder)
        lock = _lock(folder)
    try:
        return Store(folder, lock, fingerprint, config_yaml)
    except BaseException:
        os.close(lock)
        raise


class Store:
    """An output folder held by this process; made by `open_store`.

    Attributes:
        folder: the output folder.
        fingerprint: all that the rows follow from.
        finished: whether its run has ended.
        records: facts recorded so far, oldest first.
    """

    def __init__(
        self, folder: Path, lock: int, fingerprint: Mapping[str, Any], config_yaml: str
    ) -> None:
        self.folder = folder
        self._lock = lock
        self.fingerprint: dict[str, Any] = json.loads(json.dumps(fingerprint))
        self._journal: Journal | None = None
        manifest = _read_manifest(folder)
        self.finished = manifest is not None and manifest.state == "finished"
        if manifest is not None and self.finished:
            _check_fingerprint(folder, manifest.fingerprint, self.fingerprint)
            self.records: list[Record] = manifest.records
            self._remove(_LEFTOVERS)
            return
        if manifest is None:
            self.records = []
            self.write_manifest()
        self._journal = Journal(folder / "journal")
        self.records = self._journal.records
        if manifest is not None and self.records[: len(manifest.records)] != manifest.records:
            # The manifest is written after the journal, so the journal was lost or cut.
            raise StoreError(f"{self._journal.path}: records are missing. {START_AGAIN}")
        if manifest is not None and self.records:
            _check_fingerprint(folder, manifest.fingerprint, self.fingerprint)
        elif manifest is not None:
            # Nothing was ever finished here, so there is nothing to keep from another run.
            self._remove(_OUTPUTS)
            self.write_manifest()
        self._remove(path.relative_to(folder) for path in list(folder.rglob("*" + TEMPORARY)))
        self.put("config.yaml", config_yaml.encode())

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._journal is not None:
            self._journal.close()
        os.close(self._lock)

    def record(self, kind: str, **facts: Any) -> Record:
        """Append a fact to the journal; it is durable on return."""
        assert self._journal is not None
        with writing(self._journal.path):
            self._journal.append({"kind": kind, **facts})
        return self.records[-1]

    def find(self, kind: str, **facts: Any) -> Record | None:
        """The newest record of a kind with these facts."""
        for record in reversed(self.records):
            if record["kind"] == kind and all(record.get(k) == v for k, v in facts.items()):
                return record
        return None

    def put(self, name: str, data: bytes | pa.Buffer) -> Record:
        """Write a file of the folder, whole or not at all; its size and checksum."""
        put_file(self.folder / name, data)
        return checksum(data)

    def put_model(self, name: str, train: Callable[[Path], None]) -> None:
        """Let `train` write a model into an empty folder that gets its name when it is whole."""
        put_folder(self.folder / name, train)

    def checksums(self, name: str) -> dict[str, Record]:
        """Size and checksum of every file in a folder, by its name."""
        try:
            return folder_checksums(self.folder / name, self.folder)
        except OSError as error:
            raise StoreError(f"{self.folder / name}: cannot be read: {error}.") from error

    def holds(self, name: str, file: Record) -> bool:
        """Whether a file is there with the size that `put` returned."""
        try:
            return bool((self.folder / name).stat().st_size == file["bytes"])
        except OSError:
            return False

    def check(self, files: Mapping[str, Record]) -> None:
        """Read files of a record to their ends.

        Raises:
            StoreError: one is missing, cannot be read, or was changed.
        """
        for name, file in files.items():
            path = self.folder / name
            try:
                found = file_checksum(path)
            except OSError as error:
                raise StoreError(f"{path}: cannot be read: {error}. {START_AGAIN}") from error
            if any(file[fact] != value for fact, value in found.items()):
                raise StoreError(f"{path}: the file is damaged. {START_AGAIN}")

    def drop(self, name: str) -> None:
        """Remove a file or folder, if it is there."""
        self._remove([name])

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty folder that is gone afterwards."""
        folder = self.folder / "scratch"
        self.drop("scratch")
        with writing(folder):
            folder.mkdir()
            yield folder
        self.drop("scratch")

    @contextmanager
    def logging(self) -> Iterator[None]:
        """Append what this package logs to run.log."""
        path = self.folder / "run.log"
        with writing(path):
            handler = _Log(path, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logger = logging.getLogger("ssra_engine")
        level = logger.level
        logger.setLevel(min(logger.getEffectiveLevel(), logging.INFO))
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)
            handler.close()

    def write_manifest(self, state: Literal["running", "finished"] = "running") -> None:
        """Replace manifest.json by one that holds the records so far."""
        text = manifest_text(Manifest(state, self.fingerprint, self.records))
        self.put(MANIFEST, text.encode())

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json, declare the run finished, and remove what only a resume needs."""
        text = json.dumps(summary, ensure_ascii=False, indent=1) + "\n"
        self.put("summary.json", text.encode())
        self.write_manifest("finished")
        self.finished = True
        self._remove(_LEFTOVERS)

    def summary(self) -> dict[str, Any]:
        """summary.json of a finished run.

        Raises:
            StoreError: it or a final part is missing or was changed.
        """
        for record in self.records:
            for name, file in record.get("files", {}).items():
                if not self.holds(name, file):
                    raise StoreError(
                        f"{self.folder / name}: the run has finished, but this file is missing or "
                        f"was changed. {START_AGAIN}"
                    )
        path = self.folder / "summary.json"
        try:
            summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise StoreError(f"{path}: cannot be read: {error}. {START_AGAIN}") from error
        return summary

    def _remove(self, names: Iterable[str | Path]) -> None:
        with writing(self.folder):
            for name in names:
                remove(self.folder / name)


class _Log(logging.FileHandler):
    """A log that never fails: what fills the disk is told of by the step that needs it."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Leave the line out."""

    def close(self) -> None:
        """Release the file."""
        with suppress(OSError):
            super().close()


def lock_for_reading(folder: Path) -> int | None:
    """Keep runs away from an output folder until the descriptor is closed; None without a lock.

    Raises:
        StoreError: a run is working on it.
    """
    try:
        descriptor = os.open(folder / _LOCK, os.O_RDONLY)
    except OSError:
        return None
    _take(folder, descriptor, fcntl.LOCK_SH)
    return descriptor


def _lock(folder: Path) -> int:
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    _take(folder, descriptor, fcntl.LOCK_EX)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _take(folder: Path, descriptor: int, kind: int) -> None:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
        os.close(descriptor)
        raise StoreError(
            f"{folder}: {holder} is working on it. Wait for it to end, or give another --output."
        ) from error


def _read_manifest(folder: Path) -> Manifest | None:
    manifest = read_manifest(folder)
    if manifest is None:
        strangers = sorted(
            p.name for p in folder.iterdir() if p.name != _LOCK and p.suffix != TEMPORARY
        )
        if strangers:
            raise StoreError(
                f"{folder}: not empty and not the output of a run (it holds '{strangers[0]}'). "
                "Give another --output."
            )
    return manifest


def _check_fingerprint(folder: Path, there: dict[str, Any], ours: dict[str, Any]) -> None:
    old, new = _flatten(there), _flatten(ours)
    changed = [
        f"{key}: {old.get(key, 'none')} -> {new.get(key, 'none')}"
        for key in [*old, *(key for key in new if key not in old)]
        if old.get(key) != new.get(key)
    ]
    if changed:
        raise StoreError(
            f"{folder}: holds a run that differs in {'; '.join(changed)}. "
            "Give another --output, or remove the folder to start again."
        )


def _flatten(tree: Mapping[str, Any], start: str = "") -> dict[str, Any]:
    """Leaves by name: `inputs`, `config seed`, `config synthesize.per_grade`."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{start}{key}{'.' if start else ' '}")
        else:
            flat[f"{start}{key}"] = value
    return flat
