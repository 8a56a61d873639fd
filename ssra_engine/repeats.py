"""Which of a stream of names came before, in memory that does not grow with the stream."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import xxhash

from ssra_engine.buckets import HELD, Buckets

__all__ = ["RepeatFinder"]

_ENTRY = np.dtype([("key", "<u8"), ("low", "<u8"), ("place", "<u8")])


class RepeatFinder:
    """Collects 128-bit hashes of names; beyond `held` of them they lie in files.

    Two different names share a hash with a probability of about n^2 / 2^129 among n names: below
    1e-20 for a thousand million. Memory is 24 bytes times the larger of `held` and a 256th of the
    names, and 16 bytes a repeat.

    Args:
        scratch: an existing folder; files named `names-*` are made in it.
        held: names held in memory.
    """

    def __init__(self, scratch: Path, held: int = HELD) -> None:
        self._buckets = Buckets(scratch, "names", _ENTRY, held)

    def add(self, names: pa.Array, places: np.ndarray) -> None:
        """Add names (string, no nulls) and where each stands (uint64, rising from call to call)."""
        values = names.cast(pa.binary()).to_pylist()
        digests = b"".join(map(xxhash.xxh3_128_digest, values))
        entries = np.empty(len(values), _ENTRY)
        halves = np.frombuffer(digests, "<u8").reshape(-1, 2)
        entries["key"], entries["low"], entries["place"] = halves[:, 0], halves[:, 1], places
        self._buckets.add(entries)

    def repeats(self) -> tuple[np.ndarray, np.ndarray]:
        """Places of names that came before, rising, and the place of the first of each; uint64."""
        found = [_repeats(entries) for entries in self._buckets.drain()]
        later = np.concatenate([pair[0] for pair in found])
        first = np.concatenate([pair[1] for pair in found])
        order = np.argsort(later)
        return later[order], first[order]


def _repeats(entries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(later, first) places of equal hashes, among entries in the order of their places."""
    if len(entries) < 2:
        return np.empty(0, np.uint64), np.empty(0, np.uint64)
    entries = entries[np.argsort(entries["key"], kind="stable")]
    same = entries["key"][1:] == entries["key"][:-1]
    # Few are left: hashes that share their first half with another.
    entries = entries[np.append(same, False) | np.append(False, same)]
    entries = entries[np.lexsort((entries["place"], entries["low"], entries["key"]))]
    place = entries["place"]
    if len(entries) == 0:
        return place, place
    same = (entries["key"][1:] == entries["key"][:-1]) & (entries["low"][1:] == entries["low"][:-1])
    again = np.append(False, same)
    start = np.maximum.accumulate(np.where(again, 0, np.arange(len(entries))))
    return place[again], place[start[again]]
