"""De-duplication by key: within a document while sampling, over the whole output at the end."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from ssra_engine.keys import mix

__all__ = ["find_repeats", "repeats", "sample_keys"]

# Rows resolved in memory at once (16 bytes each), and the most files that hold the rest.
_BUCKET_ROWS = 1 << 19
_MOST_BUCKETS = 512

_ENTRY = np.dtype([("key", "<u8"), ("row", "<u8")])


def sample_keys(query_keys: np.ndarray, grades: np.ndarray) -> np.ndarray:
    """Key of (normalised query, target grade), uint64[N].

    Among n samples, some two different ones share a key with a probability of about n^2 / 2^65:
    3e-8 for a million, 3 % for a thousand million.
    """
    return mix(query_keys, grades)


def repeats(keys: np.ndarray, alive: np.ndarray) -> np.ndarray:
    """Rows among the `alive` whose key an earlier living row has, bool[N]."""
    rows = np.flatnonzero(alive)
    _, first = np.unique(keys[rows], return_index=True)
    again = alive.copy()
    again[rows[first]] = False
    return again


def find_repeats(
    chunks: Iterable[tuple[np.ndarray, np.ndarray]], rows: int, scratch: Path
) -> np.ndarray:
    """Rows of a long table whose key an earlier living row has; memory does not grow with it.

    Keys are spread over files by their top bits; each file is resolved on its own, and the answer
    is a memory map.

    Args:
        chunks: consecutive (keys uint64[n], alive bool[n]) of the table, in row order.
        rows: length of the table.
        scratch: an empty folder to work in.

    Returns:
        uint8[rows], 1 where the row repeats an earlier one.
    """
    buckets = 1
    while buckets < _MOST_BUCKETS and rows > buckets * _BUCKET_ROWS:
        buckets *= 2
    paths = [scratch / f"keys-{number:03}" for number in range(buckets)]
    _spread(chunks, paths)
    answer = np.memmap(scratch / "repeats", np.uint8, "w+", shape=(max(rows, 1),))
    for path in paths:
        entries = np.fromfile(path, _ENTRY)
        again = repeats(entries["key"], np.ones(len(entries), bool))
        answer[entries["row"][again]] = 1
        path.unlink()
    return answer[:rows]


def _spread(chunks: Iterable[tuple[np.ndarray, np.ndarray]], paths: list[Path]) -> None:
    shift = np.uint64(64 - (len(paths) - 1).bit_length()) if len(paths) > 1 else None
    start = 0
    with ExitStack() as stack:
        files = [stack.enter_context(path.open("wb")) for path in paths]
        for keys, alive in chunks:
            living = np.flatnonzero(alive)
            entries = np.empty(len(living), _ENTRY)
            entries["key"] = keys[living]
            entries["row"] = living + start
            start += len(keys)
            if shift is None:
                entries.tofile(files[0])
                continue
            bucket = (entries["key"] >> shift).astype(np.int64)
            for number in np.unique(bucket):
                entries[bucket == number].tofile(files[number])
