"""De-duplication by key: within a document while sampling, over the whole output at the end."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ssra_engine.buckets import HELD, Buckets
from ssra_engine.disk_array import disk_array
from ssra_engine.keys import mix

__all__ = ["find_repeats", "repeats", "sample_keys"]

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
    chunks: Iterable[tuple[np.ndarray, np.ndarray]], rows: int, scratch: Path, held: int = HELD
) -> np.ndarray:
    """Rows of a long table whose key an earlier living row has; memory does not grow with it.

    Keys lie in files by their top byte; each file is resolved on its own, and the answer is a
    memory map.

    Args:
        chunks: consecutive (keys uint64[n], alive bool[n]) of the table, in row order.
        rows: length of the table.
        scratch: an empty folder to work in.
        held: keys held in memory before files are written.

    Returns:
        uint8[rows], 1 where the row repeats an earlier one.
    """
    buckets = Buckets(scratch, "keys", _ENTRY, held)
    start = 0
    for keys, alive in chunks:
        living = np.flatnonzero(alive)
        entries = np.empty(len(living), _ENTRY)
        entries["key"], entries["row"] = keys[living], living + start
        buckets.add(entries)
        start += len(keys)
    answer = disk_array(scratch / "repeats", np.uint8, rows)
    for entries in buckets.drain():
        again = repeats(entries["key"], np.ones(len(entries), bool))
        answer[entries["row"][again]] = 1
    return answer
