"""Counts of samples by target grade and fate; what summary.json says of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ssra_engine.reasons import KEPT, encode_reasons
from ssra_engine.schema import REASONS

__all__ = [
    "count_comparisons",
    "count_costs",
    "count_samples",
    "describe",
    "describe_comparisons",
    "describe_costs",
]


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


def count_costs(staged: pa.Table, targets: tuple[int, ...]) -> np.ndarray:
    """What the samples of a `schema.STAGED` table took, int64[len(targets), 2].

    Returns:
        for each target, tokens that the query model wrote, and samples that were scored.
    """
    sampled = staged.filter(staged.column("target").is_valid())
    row = np.searchsorted(targets, sampled.column("target").to_numpy())
    scored = sampled.column("grade").is_valid().to_numpy()
    sums = [
        np.bincount(row, weights, len(targets))
        for weights in (sampled.column("tokens").to_numpy(), scored)
    ]
    return np.stack(sums, axis=1).astype(np.int64)


def count_comparisons(staged: pa.Table) -> np.ndarray:
    """Pairs of queries of a `schema.STAGED` table that a language model was asked about, int64[2].

    Returns:
        how many, and how many of the answers changed with the order of the queries.
    """
    sums = [pc.sum(staged.column(name)).as_py() or 0 for name in ("compared", "flipped")]
    return np.array(sums, np.int64)


def describe_comparisons(compared: np.ndarray) -> dict[str, Any]:
    """Counts of `count_comparisons` as a JSON tree; the rate is null where nobody was asked."""
    pairs, flipped = compared.tolist()
    rate = round(flipped / pairs, 6) if pairs else None
    return {"pairs": pairs, "flipped": flipped, "flip_rate": rate}


def describe_costs(
    counts: np.ndarray, costs: np.ndarray, targets: tuple[int, ...]
) -> dict[str, Any]:
    """What each target grade took as a JSON tree; the ratios are null where nothing was kept.

    Args:
        counts: of `count_samples`.
        costs: of `count_costs`.
        targets: ascending.
    """
    tree = {}
    for target, row, (tokens, scored) in zip(targets, counts, costs.tolist(), strict=True):
        generated, kept = int(row.sum()), int(row[0])
        tree[str(target)] = {
            "samples": generated,
            "scored": scored,
            "tokens": tokens,
            "samples_per_kept": round(generated / kept, 3) if kept else None,
            "tokens_per_kept": round(tokens / kept, 3) if kept else None,
        }
    return tree


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
