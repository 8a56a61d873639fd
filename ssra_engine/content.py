"""What a file or a folder holds, as a key."""

from __future__ import annotations

from pathlib import Path

import xxhash

from ssra_engine.errors import EngineError

__all__ = ["content_key"]

_CHUNK = 1 << 20


def content_key(path: str | Path) -> str:
    """XXH3-128 over the bytes of a file, or over the names and bytes of a folder's files.

    Raises:
        EngineError: there is nothing at `path`.
    """
    path = Path(path)
    digest = xxhash.xxh3_128()
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    if not path.exists():
        raise EngineError(f"{path}: no such file or folder.")
    for file in files:
        digest.update(str(file.relative_to(path)).encode())
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()
