"""An append-only file of facts that survives `kill -9` at any moment.

One line a record: the XXH3 of the JSON, a space, the JSON. An appended line is on disk when
`append` returns. A line that a crash left unfinished, which can only be the last, does not count
and is cut off before the next is appended.
"""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import xxhash

from ssra_engine.durable import sync
from ssra_engine.errors import StoreError

__all__ = ["Journal", "Record"]

#: Facts about one step; `kind` says which.
Record = dict[str, Any]


class Journal:
    """Records of an output folder, oldest first.

    Raises:
        StoreError: it cannot be read, or a line before the last is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: list[Record] = []
        try:
            data = path.read_bytes() if path.exists() else b""
        except OSError as error:
            raise StoreError(f"{path}: cannot be read: {error.strerror or error}.") from error
        sound = 0
        for number, line in enumerate(data.splitlines(keepends=True), 1):
            record = _parse(line)
            if record is None:
                if sound + len(line) < len(data):
                    raise StoreError(
                        f"{path}: line {number} is damaged. "
                        "Remove the output folder and run again, or give another one."
                    )
                break
            self.records.append(record)
            sound += len(line)
        self._sound = sound
        self._file: io.FileIO | None = None

    def append(self, record: Record) -> None:
        """Add a record; it is durable on return.

        Raises:
            OSError: the disk is full or gone; the record does not count.
        """
        if self._file is None:
            self._file = self.path.open("ab", buffering=0)
            self._file.truncate(self._sound)
            os.fsync(self._file.fileno())
            sync(self.path.parent)
        text = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()
        line = b"%016x %s\n" % (xxhash.xxh3_64_intdigest(text), text)
        try:
            written = 0
            while written < len(line):
                written += self._file.write(line[written:]) or 0
            os.fsync(self._file.fileno())
        except OSError:
            # Whatever was written of the line is cut off before the next one.
            self.close()
            raise
        self._sound += len(line)
        self.records.append(record)

    def close(self) -> None:
        """Release the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _parse(line: bytes) -> Record | None:
    digest, _, text = line.removesuffix(b"\n").partition(b" ")
    if not line.endswith(b"\n") or digest != b"%016x" % xxhash.xxh3_64_intdigest(text):
        return None
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("kind"), str) else None
