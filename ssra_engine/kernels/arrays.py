"""What kernels accept, in the one dtype and layout that they take."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Banned", "as_csr", "as_matrix", "as_threads"]

#: Ids per query: one sequence of ids for each query, or a CSR pair (offsets int64[Q + 1], ids).
Banned: TypeAlias = "Sequence[npt.ArrayLike] | tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]"


def as_matrix(values: npt.ArrayLike, name: str) -> npt.NDArray[np.float32]:
    """`values` as float32[rows, d] with adjacent columns; copies only where it must.

    Raises:
        TypeError: not floating point.
        ValueError: not two-dimensional.
    """
    array = np.asarray(values)
    if not np.issubdtype(array.dtype, np.floating):
        raise TypeError(f"{name}: expected floating point values, got {array.dtype}")
    if array.ndim != 2:
        raise ValueError(f"{name}: expected shape [rows, d], got {list(array.shape)}")
    array = array.astype(np.float32, copy=False)
    adjacent = array.shape[1] <= 1 or array.strides[1] == array.itemsize
    return array if adjacent and array.strides[0] >= 0 else np.ascontiguousarray(array)


def as_csr(
    lists: Banned | None, rows: int, name: str
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """`lists` as (offsets int64[rows + 1], ids int64[...]); None is `rows` empty lists.

    Raises:
        TypeError: ids or offsets are not integers.
        ValueError: not one list for each of `rows`.
    """
    if lists is None:
        return np.zeros(rows + 1, np.int64), np.empty(0, np.int64)
    if isinstance(lists, tuple) and len(lists) == 2:
        return _as_ids(lists[0], f"{name} offsets"), _as_ids(lists[1], f"{name} ids")
    if len(lists) != rows:
        raise ValueError(f"{name}: expected one list for each of {rows} queries, got {len(lists)}")
    parts = [_as_ids(part, f"{name}: row {row}") for row, part in enumerate(lists)]
    offsets = np.cumsum([0, *(len(part) for part in parts)], dtype=np.int64)
    return offsets, np.concatenate([np.empty(0, np.int64), *parts])


def as_threads(threads: int | None) -> int:
    """`threads`, or as many as this process may run on."""
    return len(os.sched_getaffinity(0)) if threads is None else threads


def _as_ids(values: npt.ArrayLike, name: str) -> npt.NDArray[np.int64]:
    array = np.asarray(values)
    if array.size == 0:
        return np.empty(0, np.int64)
    if not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"{name}: expected integers, got {array.dtype}")
    if array.ndim != 1:
        raise ValueError(f"{name}: expected one dimension, got shape {list(array.shape)}")
    return np.ascontiguousarray(array, np.int64)
