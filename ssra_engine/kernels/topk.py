"""Exact inner-product top-k with banned ids, on float32."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ssra_engine import _core
from ssra_engine.kernels.arrays import Banned, as_csr, as_matrix, as_threads

__all__ = ["TopK", "exact_topk"]


class TopK(NamedTuple):
    """Best first; where fewer than k documents survive, score -inf and id -1."""

    scores: npt.NDArray[np.float32]
    ids: npt.NDArray[np.int64]


def exact_topk(
    queries: npt.ArrayLike,
    documents: npt.ArrayLike,
    k: int,
    *,
    banned: Banned | None = None,
    threads: int | None = None,
) -> TopK:
    """For each query, the k documents of largest inner product.

    Equal scores are ordered by lowest id. The answer does not depend on the number of threads.

    Args:
        queries: floats [Q, d].
        documents: floats [N, d]; a document's id is its row.
        k: how many documents to return, at least 1.
        banned: ids that a query must not get, one list per query or a CSR pair. Ids of documents
            that do not exist are allowed.
        threads: defaults to the processors this process may use.

    Returns:
        scores float32[Q, k], ids int64[Q, k].

    Raises:
        TypeError: values that are not floats, ids that are not integers.
        ValueError: shapes that do not fit; a row that holds NaN or infinity, or is so long
            (squared norm above 1e37) that a float32 product could overflow.
    """
    query_rows = as_matrix(queries, "queries")
    document_rows = as_matrix(documents, "documents")
    offsets, ids = as_csr(banned, len(query_rows), "banned")
    return TopK(*_core.exact_topk(query_rows, document_rows, k, offsets, ids, as_threads(threads)))
