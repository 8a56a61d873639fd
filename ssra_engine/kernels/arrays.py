"""What kernels accept, in the one dtype and layout that they take."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["Banned", "Vectors", "as_csr", "as_ids", "as_matrices", "as_matrix", "as_threads"]

#: Rows of floats: a NumPy array (a memory map too), a torch tensor on the CPU, or an Arrow array of
#: fixed-size lists, chunked or not.
Vectors: TypeAlias = "npt.ArrayLike | pa.Array | pa.ChunkedArray"

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
    usable = adjacent and array.strides[0] >= 0 and array.flags.aligned
    return array if usable else array.copy(order="C")


def as_matrices(
    vectors: Vectors, name: str, *, whole: bool = False
) -> list[npt.NDArray[np.float32]]:
    """`vectors` as float32 matrices, one for each Arrow chunk, or `whole` in one; see `as_matrix`.

    Raises:
        TypeError: not floating point, or an Arrow array that is not of fixed-size lists.
        ValueError: not two-dimensional, or an Arrow array with nulls.
    """
    if isinstance(vectors, pa.ChunkedArray):
        chunks = [vectors.combine_chunks()] if whole else vectors.chunks
        return [_from_arrow(chunk, name) for chunk in chunks]
    if isinstance(vectors, pa.Array):
        return [_from_arrow(vectors, name)]
    return [as_matrix(vectors, name)]


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
        return as_ids(lists[0], f"{name} offsets"), as_ids(lists[1], f"{name} ids")
    if len(lists) != rows:
        raise ValueError(f"{name}: expected one list for each of {rows} queries, got {len(lists)}")
    parts = [as_ids(part, f"{name}: row {row}") for row, part in enumerate(lists)]
    offsets = np.cumsum([0, *(len(part) for part in parts)], dtype=np.int64)
    return offsets, np.concatenate([np.empty(0, np.int64), *parts])


def as_ids(values: npt.ArrayLike, name: str) -> npt.NDArray[np.int64]:
    """`values` as contiguous int64[n].

    Raises:
        TypeError: not integers.
        ValueError: not one-dimensional.
    """
    array = np.asarray(values)
    if array.size == 0:
        return np.empty(0, np.int64)
    if not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"{name}: expected integers, got {array.dtype}")
    if array.ndim != 1:
        raise ValueError(f"{name}: expected one dimension, got shape {list(array.shape)}")
    return np.ascontiguousarray(array, np.int64)


def as_threads(threads: int | None) -> int:
    """`threads`, or as many as this process may run on."""
    return len(os.sched_getaffinity(0)) if threads is None else threads


def _from_arrow(array: pa.Array, name: str) -> npt.NDArray[np.float32]:
    if not pa.types.is_fixed_size_list(array.type):
        raise TypeError(f"{name}: expected an Arrow column of fixed-size lists, got {array.type}")
    values = array.flatten()  # without the slots of null rows, hence the second test
    if array.null_count or values.null_count:
        raise ValueError(f"{name}: {array.null_count + values.null_count} nulls")
    flat = values.to_numpy(zero_copy_only=False)
    return as_matrix(flat.reshape(len(array), array.type.list_size), name)
