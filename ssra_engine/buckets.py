"""Entries by a 64-bit key: in memory while they are few, else in files by the key's top byte."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np

__all__ = ["HELD", "Buckets"]

#: Entries held in memory before any file is written.
HELD = 1 << 18

_BUCKETS = 256


class Buckets:
    """Collects entries so that those of one key can be looked at together.

    Where keys are hashes, memory is that of the larger of `held` entries and a 256th of all.

    Args:
        scratch: an existing folder; files named `<name>-*` are made in it.
        name: of the files.
        dtype: of the entries, with a field `key`, uint64.
        held: entries held in memory.
    """

    def __init__(self, scratch: Path, name: str, dtype: np.dtype, held: int = HELD) -> None:
        self._paths = [scratch / f"{name}-{bucket:03}" for bucket in range(_BUCKETS)]
        self._dtype = dtype
        self._held = held
        self._chunks: list[np.ndarray] = []
        self._count = 0
        self._spilled = False

    def add(self, entries: np.ndarray) -> None:
        """Add entries; those of one key keep the order in which they were added."""
        self._chunks.append(entries)
        self._count += len(entries)
        if self._count >= self._held:
            self._spill()

    def drain(self) -> Iterator[np.ndarray]:
        """All entries, once: in one piece, or by rising top byte of their keys."""
        if not self._spilled:
            yield self._take()
            return
        self._spill()
        for path in self._paths:
            entries = np.fromfile(path, self._dtype)
            path.unlink()
            yield entries

    def _take(self) -> np.ndarray:
        entries = np.concatenate([*self._chunks, np.empty(0, self._dtype)])
        self._chunks, self._count = [], 0
        return entries

    def _spill(self) -> None:
        entries = self._take()
        bucket = (entries["key"] >> np.uint64(56)).astype(np.uint8)
        order = np.argsort(bucket, kind="stable")
        ends = np.cumsum(np.bincount(bucket, minlength=_BUCKETS))
        with ExitStack() as stack:
            for path, part in zip(self._paths, np.split(entries[order], ends[:-1]), strict=True):
                part.tofile(stack.enter_context(path.open("ab" if self._spilled else "wb")))
        self._spilled = True
