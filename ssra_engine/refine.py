"""A round of refinement: the documents it looks at, and what it teaches (arXiv 2509.16717)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from ssra_engine.keys import hash_strings
from ssra_engine.prompts import PromptTemplate
from ssra_engine.schema import CORPUS, D2Q

__all__ = ["sample_documents", "survivors"]


def sample_documents(batches: Iterable[pa.RecordBatch], count: int, seed: int) -> pa.Table:
    """A seeded sample without replacement, in document order; memory is that of `count` documents.

    Those with the smallest hashes of (doc_id, seed) are taken, so the sample does not depend on how
    the documents were cut into batches.

    Args:
        batches: of `schema.CORPUS`.
        count: size of the sample, unless there are fewer documents.
        seed: less than 2^64.
    """
    held = CORPUS.empty_table()
    keys = np.empty(0, np.uint64)
    for batch in batches:
        fresh = hash_strings(batch.column("doc_id"), seed)
        likely = np.flatnonzero(fresh < keys.max()) if len(keys) == count else slice(None)
        fresh, rows = fresh[likely], np.arange(len(batch))[likely]
        if not len(fresh):
            continue
        held = pa.concat_tables([held, pa.Table.from_batches([batch.take(pa.array(rows))])])
        keys = np.concatenate([keys, fresh])
        chosen = np.sort(np.argsort(keys, kind="stable")[:count])
        held, keys = held.take(pa.array(chosen)).combine_chunks(), keys[chosen]
    return held


def survivors(
    kept: pa.Table, documents: pa.Table, template: PromptTemplate, round_number: int
) -> pa.Table:
    """Kept samples of a round as training data of the next query model.

    Args:
        kept: rows of `schema.SYNTHETIC`.
        documents: rows of `schema.CORPUS` that hold every document of `kept`.
        template: writes the documents.
        round_number: of this round.

    Returns:
        rows of `schema.D2Q`, in the order of `kept`.
    """
    doc_ids = documents.column("doc_id").combine_chunks()
    texts = template.documents(documents.combine_chunks())
    place = {doc_id: row for row, doc_id in enumerate(doc_ids.to_pylist())}
    rows = pa.array([place[doc_id] for doc_id in kept.column("doc_id").to_pylist()], pa.int64())
    source = pa.array([f"round {round_number}"] * len(kept), pa.string())
    columns = [kept.column("doc_id"), texts.take(rows), kept.column("query"), kept.column("target")]
    return pa.Table.from_arrays([*columns, source], schema=D2Q)
