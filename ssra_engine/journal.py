"""An append-only file of facts that survives `kill -9` at any moment.

One line a record: the XXH3 of the JSON, a space, the JSON. An appended line is on disk when
`append` returns. A line that a crash left unfinished, which can only be the last, does not count
and is cut off before the next is appended.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, BinaryIO

import xxhash

from ssra_engine.durable import sync
from ssra_engine.errors import StoreError

__all__ = ["Journal", "Record"]

#: Facts about one step; `kind` says which.
Record = dict[str, Any]


class Journal:
    """Records of an output folder, oldest first.

    Raises:
        StoreError: a line before the last is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: list[Record] = []
        data = path.read_bytes() if path.exists() else b""
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
        self._file: BinaryIO | None = None

    def append(self, record: Record) -> None:
        """Add a record; it is durable on return."""
        if self._file is None:
            self._file = self.path.open("ab")
            self._file.truncate(self._sound)
            os.fsync(self._file.fileno())
            sync(self.path.parent)
        text = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()
        self._file.write(b"%016x %s\n" % (xxhash.xxh3_64_intdigest(text), text))
        self._file.flush()
        os.fsync(self._file.fileno())
        self.records.append(record)

    def close(self) -> None:
        """Release the file."""
        if self._file is not None:
            self._file.close()


def _parse(line: bytes) -> Record | None:
    digest, _, text = line.removesuffix(b"\n").partition(b" ")
    if not line.endswith(b"\n") or digest != b"%016x" % xxhash.xxh3_64_intdigest(text):
        return None
    record: Record = json.loads(text)
    return record
