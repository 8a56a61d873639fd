"""Ranked lists out of vectors: each query's judged documents, or the best of the whole corpus."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ssra_engine.kernels.topk import exact_topk
from ssra_engine.keys import hash_strings, mix

__all__ = ["JudgedPairs", "Lists", "corpus_lists", "judged_lists", "judged_pairs", "pair_scores"]

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class JudgedPairs:
    """Judgments as indices, P pairs of Q queries and N documents.

    Attributes:
        query: int64[P], 0..Q-1 by first appearance.
        document: int64[P], row of the document.
        grade: int64[P].
        key: N strings, each document's name in ranked lists. Documents of equal score are ordered
            by it; it starts with a hash of the doc_id, so ties favour no grade.
    """

    query: Ints
    document: Ints
    grade: Ints
    key: list[str]

    def __post_init__(self) -> None:
        assert len(self.query) == len(self.document) == len(self.grade) > 0

    @property
    def queries(self) -> int:
        """How many queries there are."""
        return int(self.query.max()) + 1

    def grades(self) -> list[dict[str, int]]:
        """Grade by key, for each query."""
        found: list[dict[str, int]] = [{} for _ in range(self.queries)]
        rows = zip(self.query.tolist(), self.document.tolist(), self.grade.tolist(), strict=True)
        for query, document, grade in rows:
            found[query][self.key[document]] = grade
        return found


#: Score by key, for each query.
Lists = list[dict[str, float]]


def judged_pairs(
    query: Ints, document: Ints, grade: Ints, doc_ids: pa.Array, seed: int = 0
) -> JudgedPairs:
    """Name the documents for ranked lists.

    Args:
        query: int64[P], 0..Q-1.
        document: int64[P], 0..N-1.
        grade: int64[P].
        doc_ids: string[N].
        seed: of the order of ties.
    """
    hashes = mix(hash_strings(doc_ids), seed).tolist()
    key = [f"{value:016x}-{row}" for row, value in enumerate(hashes)]
    return JudgedPairs(query, document, grade, key)


def pair_scores(pairs: JudgedPairs, queries: Floats, documents: Floats) -> npt.NDArray[np.float32]:
    """Inner product of each judged pair, float32[P]."""
    scores = np.empty(len(pairs.query), np.float32)
    for start in range(0, len(scores), 1 << 14):  # so that memory does not grow with P x dim
        rows = slice(start, start + (1 << 14))
        left, right = queries[pairs.query[rows]], documents[pairs.document[rows]]
        scores[rows] = np.einsum("pd,pd->p", left, right)
    return scores


def judged_lists(pairs: JudgedPairs, scores: npt.NDArray[np.float32]) -> Lists:
    """Each query's judged documents with the score of `pair_scores`."""
    lists: Lists = [{} for _ in range(pairs.queries)]
    rows = zip(pairs.query.tolist(), pairs.document.tolist(), scores.tolist(), strict=True)
    for query, document, score in rows:
        lists[query][pairs.key[document]] = score
    return lists


def corpus_lists(pairs: JudgedPairs, queries: Floats, documents: Floats, depth: int) -> Lists:
    """The `depth` best of all documents for each query, by exact search (`kernels.topk`)."""
    found = exact_topk(queries, documents, min(depth, len(documents)))
    return [
        {pairs.key[document]: score for document, score in zip(ids, scores, strict=True)}
        for ids, scores in zip(found.ids.tolist(), found.scores.tolist(), strict=True)
    ]
