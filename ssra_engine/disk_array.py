"""An array in a file, for what is too long for memory."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

__all__ = ["disk_array"]


def disk_array(
    path: Path, kind: npt.DTypeLike, rows: int, columns: int | None = None
) -> np.ndarray:
    """Zeros, `kind`[rows] or `kind`[rows, columns], in a new file that is mapped into memory.

    The file's room on the disk is taken at once: a page of a mapped file for which the disk has no
    room would end the process (SIGBUS) and not raise.

    Raises:
        OSError: the disk is full or cannot be written.
    """
    shape = (max(rows, 1),) if columns is None else (max(rows, 1), columns)
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, math.prod(shape) * np.dtype(kind).itemsize)
    return np.memmap(path, kind, "r+", shape=shape)[:rows]
