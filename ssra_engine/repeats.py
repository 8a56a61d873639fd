"""Which of a stream of names came before, in memory that does not grow with the stream."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import xxhash

__all__ = ["RepeatFinder"]

_ENTRY = np.dtype([("high", "<u8"), ("low", "<u8"), ("place", "<u8")])
_BUCKETS = 256


class RepeatFinder:
    """Collects 128-bit hashes of names; beyond `held` of them they lie in files, by their top byte.

    Two different names share a hash with a probability of about n^2 / 2^129 among n names: below
    1e-20 for a thousand million. Memory is 24 bytes times the larger of `held` and a 256th of the
    names, and 16 bytes a repeat.

    Args:
        scratch: an existing folder; files named `names-*` are made in it.
        held: names held in memory.
    """

    def __init__(self, scratch: Path, held: int = 1 << 18) -> None:
        self._scratch = scratch
        self._held = held
        self._chunks: list[np.ndarray] = []
        self._count = 0
        self._spilled = False

    def add(self, names: pa.Array, places: np.ndarray) -> None:
        """Add names (string, no nulls) and where each stands (uint64, rising from call to call)."""
        values = names.cast(pa.binary()).to_pylist()
        digests = b"".join(map(xxhash.xxh3_128_digest, values))
        entries = np.empty(len(values), _ENTRY)
        halves = np.frombuffer(digests, "<u8").reshape(-1, 2)
        entries["high"], entries["low"], entries["place"] = halves[:, 0], halves[:, 1], places
        self._chunks.append(entries)
        self._count += len(entries)
        if self._count >= self._held:
            self._spill()

    def repeats(self) -> tuple[np.ndarray, np.ndarray]:
        """Places of names that came before, rising, and the place of the first of each; uint64."""
        if not self._spilled:
            found = [_repeats(self._take())]
        else:
            self._spill()
            found = []
            for path in self._paths():
                found.append(_repeats(np.fromfile(path, _ENTRY)))
                path.unlink()
        later = np.concatenate([pair[0] for pair in found])
        first = np.concatenate([pair[1] for pair in found])
        order = np.argsort(later)
        return later[order], first[order]

    def _paths(self) -> list[Path]:
        return [self._scratch / f"names-{bucket:03}" for bucket in range(_BUCKETS)]

    def _take(self) -> np.ndarray:
        entries = np.concatenate([*self._chunks, np.empty(0, _ENTRY)])
        self._chunks, self._count = [], 0
        return entries

    def _spill(self) -> None:
        entries = self._take()
        bucket = (entries["high"] >> np.uint64(56)).astype(np.uint8)
        order = np.argsort(bucket, kind="stable")
        ends = np.cumsum(np.bincount(bucket, minlength=_BUCKETS))
        with ExitStack() as stack:
            for path, part in zip(self._paths(), np.split(entries[order], ends[:-1]), strict=True):
                part.tofile(stack.enter_context(path.open("ab" if self._spilled else "wb")))
        self._spilled = True


def _repeats(entries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(later, first) places of equal hashes, among entries in the order of their places."""
    if len(entries) < 2:
        return np.empty(0, np.uint64), np.empty(0, np.uint64)
    entries = entries[np.argsort(entries["high"], kind="stable")]
    same = entries["high"][1:] == entries["high"][:-1]
    # Few are left: hashes that share their high half with another.
    entries = entries[np.append(same, False) | np.append(False, same)]
    entries = entries[np.lexsort((entries["place"], entries["low"], entries["high"]))]
    place = entries["place"]
    if len(entries) == 0:
        return place, place
    same = (entries["high"][1:] == entries["high"][:-1]) & (
        entries["low"][1:] == entries["low"][:-1]
    )
    again = np.append(False, same)
    start = np.maximum.accumulate(np.where(again, 0, np.arange(len(entries))))
    return place[again], place[start[again]]
