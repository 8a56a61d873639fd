"""Which of a query's candidates become its negatives: the best, any, or the ambiguous ones."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ssra_engine.negatives.settings import Settings

__all__ = ["Draws", "order_of_choice"]

Int64s = npt.NDArray[np.int64]
Float32s = npt.NDArray[np.float32]


class Draws:
    """The random numbers of one call, drawn query by query, so that no batch size shows.

    Args:
        seed: None to draw from Python's global generator, as sentence-transformers does.
    """

    def __init__(self, seed: int | None) -> None:
        own = None if seed is None else random.Random(seed)
        self.sample: Callable[[range, int], list[int]] = (own or random).sample
        self._bits = (own or random).getrandbits

    @cached_property
    def generator(self) -> np.random.Generator:
        """NumPy's, seeded once from the other one."""
        return np.random.default_rng(self._bits(64))


def order_of_choice(
    scores: Float32s,
    counts: Int64s,
    positive_scores: Float32s,
    settings: Settings,
    draws: Draws,
    *,
    whole: bool,
) -> Int64s:
    """For each row, candidates in the order in which they are to be chosen.

    "top" takes them as they come. "random" draws without replacement, each candidate alike.
    "simans" draws without replacement with weights exp(-a (s - p - b)^2), s the candidate's score
    and p the positive's (SimANS, arXiv 2210.11773), through the Gumbel top-k trick.

    Args:
        scores: float32[g, w], falling, w at least the number wanted.
        counts: int64[g], how many of each row, from the left, are candidates.
        positive_scores: float32[g].
        settings: the strategy, its weights, and how many are wanted.
        draws: of the call.
        whole: order all candidates, rather than only as many as are wanted.

    Returns:
        int64[g, m], m at least the number wanted: columns of `scores`. Those that are not below
        the row's count hold no candidate.
    """
    width, n = scores.shape[1], settings.num_negatives
    if settings.sampling_strategy == "random":
        return _uniform(counts, width, n, draws, whole=whole)
    if settings.sampling_strategy == "simans":
        order = _ambiguous(scores, counts, positive_scores, settings, draws)
    else:
        order = np.broadcast_to(np.arange(width), scores.shape)
    return order if whole else order[:, :n]


def _uniform(counts: Int64s, width: int, n: int, draws: Draws, *, whole: bool) -> Int64s:
    """Drawn as sentence-transformers draws: n of the candidates, or of n where there are fewer."""
    # The last column holds no candidate where it is not drawn: then fewer than width are left.
    order = np.full((len(counts), width if whole else n), width - 1)
    for row, count in enumerate(counts.tolist()):
        options = max(count, n)
        order[row, : options if whole else n] = draws.sample(
            range(options), options if whole else n
        )
    return order


def _ambiguous(
    scores: Float32s,
    counts: Int64s,
    positive_scores: Float32s,
    settings: Settings,
    draws: Draws,
) -> Int64s:
    candidate = np.arange(scores.shape[1]) < counts[:, None]
    gap = np.where(candidate, scores, 0).astype(np.float64) - positive_scores[:, None]
    keys = draws.generator.gumbel(size=scores.shape)
    keys -= settings.simans_a * (gap - settings.simans_b) ** 2
    keys[~candidate] = -np.inf
    return np.argsort(-keys, axis=1, kind="stable")
