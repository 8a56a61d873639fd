"""Counts of samples by target grade and fate; what summary.json says of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from ssra_engine.reasons import KEPT, encode_reasons
from ssra_engine.schema import REASONS

__all__ = ["count_samples", "describe"]


def count_samples(staged: pa.Table, targets: tuple[int, ...]) -> tuple[np.ndarray, int]:
    """Count the rows of a `schema.STAGED` table.

    Returns:
        samples by target and fate, int64[len(targets), 1 + len(REASONS)], where the first fate is
        to be kept; and the number of documents that failed, which are rows without a target.
    """
    target = staged.column("target").combine_chunks()
    sampled = target.is_valid()
    fate = encode_reasons(staged.column("reason").filter(sampled)).astype(np.int64) - KEPT
    fates = 1 + len(REASONS)
    row = np.searchsorted(targets, target.filter(sampled).to_numpy())
    counts = np.bincount(row * fates + fate, minlength=len(targets) * fates)
    return counts.reshape(len(targets), fates), target.null_count


def describe(counts: np.ndarray, targets: tuple[int, ...]) -> dict[str, Any]:
    """Counts of `count_samples` as a JSON tree, for each target grade and in all.

    `duplicate_rate` is the share of duplicates among the samples that hold a query of their own:
    those not empty, too long or copied.
    """
    return {
        "grades": {str(target): _fates(row) for target, row in zip(targets, counts, strict=True)},
        "total": _fates(counts.sum(axis=0)),
    }


def _fates(row: np.ndarray) -> dict[str, Any]:
    rejected = dict(zip(REASONS, row[1:].tolist(), strict=True))
    generated = int(row.sum())
    own = generated - rejected["empty"] - rejected["too_long"] - rejected["copied"]
    return {
        "generated": generated,
        "kept": int(row[0]),
        "rejected": rejected,
        "duplicate_rate": round(rejected["duplicate"] / own, 6) if own else 0.0,
    }
