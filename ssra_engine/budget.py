"""A budget of the final synthesis: so many samples, tokens or seconds, and each document's share.

Samples and tokens are shared out among the documents by their place in the corpus, so what a
document gets does not depend on shards or threads. A budget in seconds is the one setting without
that promise: when it is spent, the shards that are left are not begun. They are seconds of the
clock on the wall, however many shards are worked on at a time: see `WorkClock`.
"""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np

__all__ = ["Budget", "WorkClock", "acceptance", "parse_budget"]

Unit = Literal["samples", "tokens", "seconds"]

_FORM = re.compile(r"\s*(\d+)\s*(samples|tokens|seconds)\s*")


@dataclass(frozen=True)
class Budget:
    """How much the final synthesis may take; tokens are those that the query model writes."""

    amount: int
    unit: Unit

    def shares(self, documents: int, first: int, count: int) -> np.ndarray:
        """Shares of documents `first` to `first + count` among `documents`, int64[count].

        Shares differ by one at most, and those of all documents add up to the budget.
        """
        # In Python's integers: the products may pass 64 bits.
        places = range(first, first + count + 1)
        ends = [self.amount * place // documents for place in places]
        return np.diff(np.array(ends, np.int64))


class WorkClock:
    """Seconds that pass while shards are worked on, over all calls of a run.

    Each shard is given the time from the end of the one before it, so the seconds of shards that
    are worked on at once add up to what passed and no more. What passes between calls, and what an
    interrupted call spent on shards that it did not finish, is not counted.

    Args:
        before: seconds of the shards that earlier calls finished.
    """

    def __init__(self, before: float = 0.0) -> None:
        self._total = before
        self._ended: float | None = None
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Work on a shard begins, in whatever thread."""
        with self._lock:
            if self._ended is None:
                self._ended = time.perf_counter()

    def total(self) -> float:
        """Seconds until now."""
        with self._lock:
            return self._total + self._since_the_last(time.perf_counter())

    def lap(self) -> float:
        """A shard ends now: seconds since the one before it ended, or since work began."""
        with self._lock:
            now = time.perf_counter()
            passed = self._since_the_last(now)
            self._total, self._ended = self._total + passed, now
            return passed

    def _since_the_last(self, now: float) -> float:
        return 0.0 if self._ended is None else now - self._ended


def parse_budget(text: str) -> Budget:
    """Read "20000 samples", "500000 tokens" or "600 seconds".

    Raises:
        ValueError: it is none of these.
    """
    match = _FORM.fullmatch(text)
    if match is None or int(match[1]) < 1:
        raise ValueError(
            "a budget is a number and a unit, as in 20000 samples, 500000 tokens or 600 seconds"
        )
    return Budget(int(match[1]), cast("Unit", match[2]))


def acceptance(counts: np.ndarray) -> np.ndarray:
    """Chance of a sample to be kept at each target, float64[T], from counts as of `tally`.

    Laplace's rule, so that a target of which nothing is known is taken for even odds.
    """
    chance: np.ndarray = (counts[:, 0] + 1) / (counts.sum(axis=1) + 2)
    return chance
