"""Size and checksum (XXH3) of what an output folder holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import xxhash

__all__ = ["checksum", "file_checksum", "folder_checksums"]

_CHUNK = 1 << 20


def checksum(data: bytes | pa.Buffer) -> dict[str, Any]:
    """`bytes` and `xxh3` of some data, as the records of a run hold them."""
    return {"bytes": len(data), "xxh3": xxhash.xxh3_64_hexdigest(data)}


def file_checksum(path: Path) -> dict[str, Any]:
    """`bytes` and `xxh3` of a file's content, read piece by piece.

    Raises:
        OSError: it cannot be read.
    """
    state, size = xxhash.xxh3_64(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            state.update(chunk)
            size += len(chunk)
    return {"bytes": size, "xxh3": state.hexdigest()}


def folder_checksums(folder: Path, root: Path) -> dict[str, dict[str, Any]]:
    """`file_checksum` of every file below `folder`, by its path relative to `root`.

    Raises:
        OSError: one cannot be read.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): file_checksum(path) for path in files}
