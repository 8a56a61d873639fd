"""The most frequent texts of a stream, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["Frequent", "FrequentTexts"]


@dataclass(frozen=True)
class Frequent:
    """A text that occurs `least` to `most` times."""

    text: str
    least: int
    most: int


class FrequentTexts:
    """A Misra-Gries summary (Misra and Gries 1982; merging as Agarwal et al., PODS 2012).

    Every text with more than rows / (capacity + 1) occurrences is in it, and each count is at most
    that much too low. Exact while there are no more than `capacity` different texts.
    """

    def __init__(self, capacity: int = 20_000) -> None:
        self._capacity = capacity
        self._texts = pa.array([], pa.string())
        self._counts = np.zeros(0, np.int64)
        self._lost = 0

    def add(self, texts: pa.Array) -> None:
        """Count texts, string without nulls."""
        seen = pc.value_counts(texts)
        both = pa.table(
            {
                "text": pa.concat_arrays([self._texts, seen.field("values")]),
                "count": np.concatenate([self._counts, seen.field("counts").to_numpy()]),
            }
        )
        merged = both.group_by("text").aggregate([("count", "sum")])
        counts = merged["count_sum"].to_numpy()
        names = merged["text"].combine_chunks()
        if len(counts) > self._capacity:
            # The largest of those left out is taken from all, so that what is over stays in order.
            over = int(np.partition(counts, -self._capacity - 1)[-self._capacity - 1])
            counts = counts - over
            self._lost += over
            names, counts = names.filter(pa.array(counts > 0)), counts[counts > 0]
        self._texts, self._counts = names, counts

    def top(self, number: int) -> list[Frequent]:
        """The most frequent texts, equal counts in the order of the texts."""
        pairs = sorted(
            zip(self._texts.to_pylist(), self._counts.tolist(), strict=True),
            key=lambda pair: (-pair[1], pair[0]),
        )
        return [Frequent(text, count, count + self._lost) for text, count in pairs[:number]]
