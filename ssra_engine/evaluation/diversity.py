"""How varied queries are, and how much of them their documents already say."""

from __future__ import annotations

import re
import tempfile
import zlib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ssra_engine.stages.near_duplicates import find_near_repeats

__all__ = ["diversity", "words"]

_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")


def words(text: str) -> list[str]:
    """Words of a normalised text: runs of letters and digits, and single CJK characters."""
    return _WORD.findall(text)


def diversity(
    queries: Sequence[str],
    documents: Sequence[frozenset[str]] | None = None,
    *,
    similarity: float = 0.8,
) -> dict[str, Any]:
    """Figures of a set of queries. Those of another size are not to be compared by distinct-n.

    Args:
        queries: normalised (`keys.normalise`).
        documents: the `words` of each query's document, where they are known.
        similarity: from which two queries are near duplicates (see `stages.near_duplicates`).

    Returns:
        samples; duplicate_rate, the share of queries that repeat another one of the set;
        near_duplicate_rate, the share that goes where near duplicates are left out in order;
        distinct_1 and distinct_2 (Li et al., NAACL 2016): different words, and pairs of neighbours,
        over all of them; compression: bytes of all queries, one a line, over those that zlib makes
        of them, the higher the more they repeat each other (arXiv 2403.00553); mean_characters;
        mean_words; overlap: the mean share of a query's words that its document holds. Null where
        there is nothing to take it of.
    """
    count = len(queries)
    tokens = [words(query) for query in queries]
    singles = [word for one in tokens for word in one]
    pairs = [pair for one in tokens for pair in pairwise(one)]
    overlaps = []
    if documents is not None:
        overlaps = [
            sum(word in document for word in one) / len(one)
            for one, document in zip(tokens, documents, strict=True)
            if one
        ]
    return {
        "samples": count,
        "duplicate_rate": _ratio(count - len(set(queries)), count),
        "near_duplicate_rate": _ratio(_near_duplicates(queries, similarity), count),
        "distinct_1": _ratio(len(set(singles)), len(singles)),
        "distinct_2": _ratio(len(set(pairs)), len(pairs)),
        "compression": _compression(queries),
        "mean_characters": _ratio(sum(map(len, queries)), count),
        "mean_words": _ratio(len(singles), count),
        "overlap": _ratio(sum(overlaps), len(overlaps)),
    }


def _near_duplicates(queries: Sequence[str], similarity: float) -> int:
    chunk = (
        pa.array(queries, pa.string()),
        np.zeros(len(queries), np.uint64),
        np.ones(len(queries), bool),
    )
    with tempfile.TemporaryDirectory() as folder:
        return int(find_near_repeats([chunk], len(queries), similarity, Path(folder)).sum())


def _compression(queries: Sequence[str]) -> float | None:
    text = "\n".join(queries).encode()
    return _ratio(len(text), len(zlib.compress(text, 9))) if text else None


def _ratio(part: float, whole: int) -> float | None:
    return part / whole if whole else None
