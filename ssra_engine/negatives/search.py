"""The nearest documents of queries, and scores of single pairs, under a model's similarity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ssra_engine.kernels.mining import Backend, MiningIndex
from ssra_engine.negatives.settings import MiningError

__all__ = ["RECALL_QUERIES", "IndexSearch", "Search", "pair_scores", "search_by"]

Int64s = npt.NDArray[np.int64]
Float32s = npt.NDArray[np.float32]

#: (vectors [q, d], k) -> (scores float32[q, k], ids int64[q, k]), best first, equal scores by
#: lowest id; -inf and -1 behind the last document.
Search = Callable[[npt.NDArray[np.floating[Any]], int], tuple[Float32s, Int64s]]

# Sides of a block where scores come from the model: 1,024 x 8,192 float32 are 32 MB.
_QUERIES, _DOCUMENTS = 1024, 8192
#: Queries of a measurement of recall.
RECALL_QUERIES = 256
# Pairs whose vectors are gathered at a time.
_PAIRS = 4096


def search_by(
    model: Any,
    corpus: npt.NDArray[np.floating[Any]],
    *,
    inner_product: bool,
    backend: Backend = "exact",
) -> Search:
    """A search of the corpus.

    Cosine and dot product go through `MiningIndex`. Any other similarity is computed by the model,
    block by block, exactly.

    Args:
        model: a SentenceTransformer.
        corpus: floats [N, d].
        inner_product: search by inner product, whatever the model's similarity.
        backend: of `MiningIndex`.

    Raises:
        MiningError: a backend other than "exact" for a similarity that only the model can compute.
        RuntimeError: a GPU that is asked for and not there.
    """
    kind = "dot" if inner_product else str(getattr(model, "similarity_fn_name", "") or "")
    if kind not in {"dot", "cosine"}:
        if backend != "exact":
            raise MiningError(
                f"backend {backend!r} knows cosine and dot product; the model's similarity is "
                f"{kind!r}. Use backend='exact'."
            )
        return _Blocks(model, corpus)
    index = MiningIndex(corpus.shape[1], "cosine" if kind == "cosine" else "ip", backend=backend)
    index.add(corpus)
    return IndexSearch(index)


class IndexSearch:
    """Search through a `MiningIndex`."""

    def __init__(self, index: MiningIndex) -> None:
        self._index = index

    def __call__(self, queries: npt.NDArray[np.floating[Any]], k: int) -> tuple[Float32s, Int64s]:
        """See `Search`."""
        mined = self._index.mine(queries, k)
        return mined.scores, mined.ids

    def recall(self, queries: npt.NDArray[np.floating[Any]], k: int) -> float:
        """Share of the k nearest documents that are found, over at most `RECALL_QUERIES` queries
        at equal distances."""
        step = -(-len(queries) // RECALL_QUERIES)
        return self._index.recall(queries[::step], k)


def pair_scores(
    model: Any,
    queries: npt.NDArray[np.floating[Any]],
    corpus: npt.NDArray[np.floating[Any]],
    query: Int64s,
    document: Int64s,
) -> Float32s:
    """The model's similarity of `queries[query[i]]` and `corpus[document[i]]`, float32[P]."""
    scores = np.empty(len(query), np.float32)
    for start in range(0, len(query), _PAIRS):
        some = slice(start, start + _PAIRS)
        left = _tensor(queries[query[some]])
        scores[some] = model.similarity_pairwise(left, _tensor(corpus[document[some]])).cpu()
    return scores


class _Blocks:
    """Search with the model's own similarity."""

    def __init__(self, model: Any, corpus: npt.NDArray[np.floating[Any]]) -> None:
        self._model, self._corpus = model, corpus

    def __call__(self, queries: npt.NDArray[np.floating[Any]], k: int) -> tuple[Float32s, Int64s]:
        parts = [
            self._best(queries[start : start + _QUERIES], k)
            for start in range(0, len(queries), _QUERIES)
        ]
        scores, ids = (np.concatenate(part) for part in zip(*parts, strict=True))
        return scores, ids

    def _best(self, queries: npt.NDArray[np.floating[Any]], k: int) -> tuple[Float32s, Int64s]:
        scores = np.empty((len(queries), 0), np.float32)
        ids = np.empty((len(queries), 0), np.int64)
        left = _tensor(queries)
        for start in range(0, len(self._corpus), _DOCUMENTS):
            right = _tensor(self._corpus[start : start + _DOCUMENTS])
            block = self._model.similarity(left, right).cpu().float().numpy()
            numbers = np.broadcast_to(np.arange(start, start + len(right)), block.shape)
            scores = np.concatenate([scores, block], axis=1)
            ids = np.concatenate([ids, numbers], axis=1)
            # Stable, and lower ids stand first: equal scores go by lowest id.
            best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
            scores = np.take_along_axis(scores, best, axis=1)
            ids = np.take_along_axis(ids, best, axis=1)
        missing = ((0, 0), (0, k - scores.shape[1]))
        return (
            np.pad(scores, missing, constant_values=-np.inf),
            np.pad(ids, missing, constant_values=-1),
        )


def _tensor(rows: npt.NDArray[np.floating[Any]]) -> Any:
    import torch

    return torch.from_numpy(np.array(rows, np.float32))
