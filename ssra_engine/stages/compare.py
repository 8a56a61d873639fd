"""The pairwise filter: queries of one document must be ordered as their targets say.

A comparator tells of two queries which is the more relevant (arXiv 2509.16717, stage 2). It is the
score model's expected grade, or any language model asked by prompt: which of the queries A and B
does the document answer better? A model that is asked favours one letter, so it is asked in both
orders, and an answer that changes with the order is none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ssra_engine.engines.engine import Engine
from ssra_engine.prompts import LETTERS, PromptTemplate
from ssra_engine.stages.synthesize import request_batches

__all__ = ["Preferences", "contradictions", "expected_grade", "prefer", "preferences"]

# Pairs compared at once, so that memory does not grow with the shard.
_PAIRS_AT_ONCE = 1 << 20

#: Of pairs of samples (lower target, higher target), whether the lower is the more relevant.
_Wrong = Callable[[np.ndarray, np.ndarray], np.ndarray]


def expected_grade(probs: np.ndarray) -> np.ndarray:
    """Mean of each distribution over grades, the score model as a comparator, float64[N]."""
    return probs.astype(np.float64) @ np.arange(probs.shape[1])


@dataclass(frozen=True)
class Preferences:
    """Answers of a language model to P pairs of queries.

    Attributes:
        second: float64[P], log-odds that the second query is the more relevant, mean of both
            orders; not a number where the model's logits are not.
        flipped: bool[P], whether the answer changed with the order.
    """

    second: np.ndarray
    flipped: np.ndarray


def prefer(
    engine: Engine,
    template: PromptTemplate,
    prefixes: pa.Array,
    document: np.ndarray,
    first: pa.Array,
    second: pa.Array,
) -> Preferences:
    """Ask a language model which of two queries each document answers better, in both orders.

    Args:
        engine: any model.
        template: of the prompts.
        prefixes: prompt prefix of each document, string[D].
        document: index of each pair's document, ascending, int32[P].
        first: string[P].
        second: string[P].
    """
    orders = (template.compare_suffixes(first, second), template.compare_suffixes(second, first))
    rows = np.repeat(document, 2)
    turns = np.arange(2 * len(document)).reshape(2, -1).T.ravel()
    suffixes = pa.concat_arrays(orders).take(pa.array(turns))
    batches = request_batches(prefixes, rows, suffixes, np.zeros(len(rows), np.uint64))
    answers = [
        scores.column("logits").flatten().to_numpy(zero_copy_only=False).reshape(-1, 2, 2)
        for scores in engine.score_batches(batches, LETTERS)
    ]
    return preferences(np.concatenate([np.empty((0, 2, 2)), *answers]))


def preferences(logits: np.ndarray) -> Preferences:
    """Answers of a comparator, from its logits.

    Args:
        logits: float[P, 2, 2], of the letters (last axis) when the first query is A, then when the
            second one is.
    """
    odds = np.diff(logits.astype(np.float64))[..., 0]
    forward, backward = odds[:, 0], -odds[:, 1]
    return Preferences((forward + backward) / 2, (forward > 0) != (backward > 0))


def contradictions(document: np.ndarray, target: np.ndarray, wrong: _Wrong) -> np.ndarray:
    """Samples to drop so that, within a document, the comparator orders them as the targets do.

    Of each document, the samples in the most contradicting pairs are dropped together, again and
    again until no such pair is left: a lone outlier goes alone, and of two samples that only
    contradict each other both go, since nothing tells which is wrong.

    Args:
        document: index of each sample's document, int32[N].
        target: integer[N].
        wrong: given the lower and the higher sample of P pairs with different targets (integer[P],
            documents ascending), which contradict their targets, bool[P].

    Returns:
        bool[N]; independent of the order of the samples.
    """
    drop = np.zeros(len(document), bool)
    for pairs in _pairs(document, target):
        against = wrong(*pairs)
        low, high = (side[against] for side in pairs)
        while len(low):
            samples, ends = np.unique(np.concatenate([low, high]), return_inverse=True)
            counts = np.bincount(ends)
            _, group = np.unique(document[samples], return_inverse=True)
            worst = np.zeros(group.max() + 1, np.int64)
            np.maximum.at(worst, group, counts)
            drop[samples[counts == worst[group]]] = True
            left = ~drop[low] & ~drop[high]
            low, high = low[left], high[left]
    return drop


def _pairs(document: np.ndarray, target: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(lower, higher) samples of one document, whole documents at a time."""
    order = np.argsort(document, kind="stable")
    _, first, counts = np.unique(document[order], return_index=True, return_counts=True)
    several = counts > 1
    first, counts = first[several], counts[several]
    if not len(counts):
        return
    width = int(counts.max())
    step = max(1, _PAIRS_AT_ONCE // width**2)
    for start in range(0, len(counts), step):
        place = first[start : start + step, None] + np.arange(width)
        real_DS = np.arange(width) < counts[start : start + step, None]
        rows_DS = order[np.where(real_DS, place, 0)]
        target_DS = target[rows_DS]
        lower_DSS = target_DS[:, :, None] < target_DS[:, None, :]
        lower_DSS &= real_DS[:, :, None] & real_DS[:, None, :]
        number, low, high = np.nonzero(lower_DSS)
        yield rows_DS[number, low], rows_DS[number, high]
