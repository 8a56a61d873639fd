"""The rules of mining, checked and in one layout, for the indexes that are not the C++ one."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ssra_engine.kernels.arrays import Banned, as_csr

__all__ = ["Rules", "check_rules", "extend_ids"]

Int64s = npt.NDArray[np.int64]


class Rules(NamedTuple):
    """What `MiningIndex.mine` is told beside k, for Q queries.

    Attributes:
        banned_offsets: int64[Q + 1].
        banned_ids: int64, rising within a query.
        positives: float32[Q], or None where no margin is given.
        absolute_margin: -inf where none is given, and so on.
    """

    banned_offsets: Int64s
    banned_ids: Int64s
    positives: npt.NDArray[np.float32] | None
    absolute_margin: float
    relative_margin: float
    min_score: float
    max_score: float

    def upper_limits(self, queries: int) -> npt.NDArray[np.float32]:
        """float32[queries]: the highest score that margins and max_score allow."""
        limits = np.full(queries, self.max_score, np.float32)
        if self.positives is None:
            return limits
        p = self.positives
        if self.absolute_margin > -np.inf:
            limits = np.minimum(limits, p - np.float32(self.absolute_margin))
        if self.relative_margin > -np.inf:
            limits = np.minimum(limits, p - np.abs(p) * np.float32(self.relative_margin))
        return limits


def check_rules(
    queries: int,
    *,
    banned: Banned | None,
    positive_scores: npt.ArrayLike | None,
    absolute_margin: float | None,
    relative_margin: float | None,
    min_score: float | None,
    max_score: float | None,
) -> Rules:
    """The arguments of `MiningIndex.mine` for so many queries.

    Raises:
        TypeError: ids that are not integers.
        ValueError: shapes that do not fit, a rule that is NaN, a margin without positive scores.
    """
    margins = (absolute_margin, relative_margin)
    return Rules(
        *_sorted_csr(banned, queries),
        _positives(positive_scores, margins, queries),
        _number(absolute_margin, "absolute_margin", -np.inf),
        _number(relative_margin, "relative_margin", -np.inf),
        _number(min_score, "min_score", -np.inf),
        _number(max_score, "max_score", np.inf),
    )


def extend_ids(known: Int64s | None, names: Int64s | None, size: int, rows: int) -> Int64s | None:
    """The ids of an index of `size` vectors after `rows` more.

    Args:
        known: int64[size], or None: positions.
        names: int64[rows], or None: positions.
        size: vectors that are there.
        rows: vectors that come.

    Raises:
        ValueError: ids with some batches only, too few or too many, negative or repeated.
    """
    if size and (names is None) != (known is None):
        raise ValueError("ids: give them with every batch of vectors or with none")
    if names is None:
        return None
    if len(names) != rows:
        raise ValueError(f"ids: expected one for each of {rows} vectors, got {len(names)}")
    if (names < 0).any():
        raise ValueError(f"ids: row {int(np.argmax(names < 0))}: ids must not be negative")
    both = names if known is None else np.concatenate([known, names])
    values, counts = np.unique(both, return_counts=True)
    if (counts > 1).any():
        raise ValueError(f"ids: {values[np.argmax(counts > 1)]} appears twice")
    return both


def _sorted_csr(banned: Banned | None, rows: int) -> tuple[Int64s, Int64s]:
    offsets, ids = as_csr(banned, rows, "banned")
    if len(offsets) != rows + 1 or offsets[0] != 0 or offsets[-1] != len(ids):
        raise ValueError(f"banned: {rows} queries need {rows + 1} offsets from 0 to {len(ids)}")
    lengths = np.diff(offsets)
    if (lengths < 0).any():
        raise ValueError("banned: offsets must not fall")
    return offsets, ids[np.lexsort((ids, np.repeat(np.arange(rows), lengths)))]


def _positives(
    scores: npt.ArrayLike | None, margins: tuple[float | None, float | None], rows: int
) -> npt.NDArray[np.float32] | None:
    if scores is None:
        if margins != (None, None):
            raise ValueError("a margin needs positive_scores, one for each query")
        return None
    values = np.asarray(scores, np.float32)
    if values.shape != (rows,):
        raise ValueError(
            f"positive_scores: expected one for each of {rows} queries, got {values.shape}"
        )
    if np.isnan(values).any():
        raise ValueError(f"positive_scores: row {int(np.argmax(np.isnan(values)))} is NaN")
    return values


def _number(value: float | None, name: str, default: float) -> float:
    if value is None:
        return default
    if np.isnan(value):
        raise ValueError(f"{name} is NaN")
    return float(value)
