"""A budget of the final synthesis: so many samples, tokens or seconds, and each document's share.

Samples and tokens are shared out among the documents by their place in the corpus, so what a
document gets does not depend on shards or threads. A budget in seconds is the one setting without
that promise: when it is spent, the shards that are left are not begun.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np

__all__ = ["Budget", "acceptance", "parse_budget"]

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
