"""Stage 1: unlabelled pairs are graded by the score model, and become the query model's data."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ssra_engine.engines.engine import REQUESTS
from ssra_engine.keys import hash_strings, mix, normalise
from ssra_engine.prompts import PromptTemplate
from ssra_engine.schema import ANNOTATED, D2Q

__all__ = ["annotated", "d2q_rows", "score_requests", "training_data"]

_BATCH = 4096


def score_requests(
    rows: pa.Table, template: PromptTemplate, grades: int
) -> Iterator[pa.RecordBatch]:
    """Score requests of (document, query) rows, in order, as `REQUESTS` batches.

    Args:
        rows: columns document and query.
        template: prompt family of the score model.
        grades: size of the scale.
    """
    for start in range(0, len(rows), _BATCH):
        part = rows.slice(start, _BATCH)
        prefixes = part["document"].combine_chunks().dictionary_encode()
        suffixes = template.score_suffixes(part["query"], grades)
        seeds = pa.array(np.zeros(len(part), np.uint64))
        yield pa.RecordBatch.from_arrays([prefixes, suffixes, seeds], schema=REQUESTS)


def annotated(pairs: pa.Table, probs: np.ndarray) -> pa.Table:
    """Pairs with the grade that the score model finds likeliest.

    Args:
        pairs: `schema.PAIRS`.
        probs: float32[len(pairs), G].

    Returns:
        `schema.ANNOTATED` with source ``score``.
    """
    rows = pa.FixedSizeListArray.from_arrays(pa.array(probs.ravel()), probs.shape[1])
    return pa.table(
        [
            pairs["query"],
            pairs["doc_id"],
            pa.array(probs.argmax(1).astype(np.int8)),
            rows.cast(pa.list_(pa.float32())),
            pa.array(["score"] * len(pairs)),
        ],
        schema=ANNOTATED,
    )


def d2q_rows(graded: pa.Table, documents: pa.Table, source: str) -> pa.Table:
    """Lay graded rows beside their documents' prompt text.

    Args:
        graded: columns query, doc_id, grade.
        documents: columns doc_id (unique) and document; holds every doc_id of `graded`.
        source: where the grades come from.

    Returns:
        `schema.D2Q` in the order of `graded`.
    """
    places = pc.index_in(graded["doc_id"], documents["doc_id"].combine_chunks())
    return pa.table(
        [
            graded["doc_id"],
            documents["document"].take(places),
            graded["query"],
            graded["grade"].cast(pa.int8()),
            pa.array([source] * len(graded), pa.string()),
        ],
        schema=D2Q,
    )


def training_data(
    judged: pa.Table, annotations: pa.Table, confidence: np.ndarray, *, most: int, least: float
) -> pa.Table:
    """Training data of the first query model: judgments and annotations, popular queries capped.

    Many documents share one popular query, which would teach the query model to repeat it
    (arXiv 2509.16717, stage 1); each query is kept for `most` documents at most, judgments first,
    in order. A pair that was judged is not annotated again.

    Args:
        judged: `schema.D2Q` from people.
        annotations: `schema.D2Q` from the score model.
        confidence: float[len(annotations)], the score model's highest probability.
        most: documents per query.
        least: annotations below this confidence are left out.

    Returns:
        `schema.D2Q`.
    """
    merged = pa.concat_tables([judged, annotations.filter(pa.array(confidence >= least))])
    queries = hash_strings(normalise(merged["query"].combine_chunks()))
    pairs = mix(queries, hash_strings(merged["doc_id"].combine_chunks()))
    first = np.zeros(len(merged), bool)
    first[np.unique(pairs, return_index=True)[1]] = True
    kept = first.nonzero()[0]
    return merged.take(pa.array(kept[_rank_within(queries[kept]) < most]))


def _rank_within(keys: np.ndarray) -> np.ndarray:
    """How many earlier rows have the same key, int64[len(keys)]."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])[: len(keys)]
    sizes = np.diff(np.r_[starts, len(keys)])
    ranks = np.empty(len(keys), np.int64)
    ranks[order] = np.arange(len(keys)) - np.repeat(starts, sizes)
    return ranks
