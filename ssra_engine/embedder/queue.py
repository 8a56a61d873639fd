"""Hard negatives out of a queue of recent documents, mined while the model is trained.

The queue of the public code of arXiv 2509.16717: 65,536 documents as a slow copy of the model
embedded them, and of these, for each query, the three nearest that are at least 5 % less similar
than its positive (NV-Retriever's TopK-PercPos, arXiv 2407.15831).

It is searched exactly, by `MiningIndex`, on the CPU. The index is made anew in every step: on one
core, rounding all 65,536 vectors to eight bits takes less time than searching them for 512 queries,
and both together a quarter of that of a float32 product.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xxhash
from torch import Tensor
from torch.nn.functional import normalize

from ssra_engine.embedder.gather import gather_rows
from ssra_engine.embedder.momentum import MomentumCopy
from ssra_engine.kernels.mining import MiningIndex

__all__ = ["DocumentQueue", "token_keys"]

Int64s = npt.NDArray[np.int64]

# Pairs tokenised at a time.
_PAIRS = 1024


class DocumentQueue:
    """Recent documents that a loss takes hard negatives from: `GradedMatryoshkaLoss(queue=)`.

    With every training batch, the copy of the model takes a step towards it; the copy embeds the
    batch's documents; negatives are mined for its queries; then its documents join the queue, and
    the oldest leave. A document that is in the queue already gets its new vector in its old place.

    A document of the batch, and one that is known to be a positive of any of its queries, is no
    negative, since the loss holds each negative against all queries. Known are the pairs of grade
    above 0 of all batches so far, and those told to `know`. A document is what its tokens are, as
    the model reads them. No gradient flows into the queue.

    In a distributed training every process has the same queue, of the documents of all.

    Args:
        model: a SentenceTransformer, with its LoRA if it is to have one.
        size: documents held; size x dim floats of memory on the CPU.
        per_query: negatives mined for each query; what is mined for several counts once.
        relative_margin: leave out similarities above p - |p| x this, with p the positive's.
        momentum: of `MomentumCopy`.
        threads: of the search; as many as the process may use by default.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        model: Any,
        *,
        size: int = 65_536,
        per_query: int = 3,
        relative_margin: float = 0.05,
        momentum: float = 0.999,
        threads: int | None = None,
    ) -> None:
        if size < 1 or per_query < 1:
            raise ValueError(f"size and per_query must be 1 or above, got {size} and {per_query}")
        self._model = model
        self._copy = MomentumCopy(model, momentum)
        self.size, self.per_query, self.relative_margin = size, per_query, relative_margin
        self._threads = threads
        self._vectors = np.empty((0, 0), np.float32)
        self._keys = np.empty(0, np.int64)
        self._next = 0
        self._slots: dict[int, int] = {}
        self._known: dict[int, set[int]] = {}
        self._batch: tuple[Int64s, Int64s, npt.NDArray[np.float32]] | None = None

    def __len__(self) -> int:
        return len(self._slots)

    def know(
        self,
        queries: Sequence[str],
        documents: Sequence[str],
        *,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
    ) -> None:
        """Learn of pairs of query and positive; the prompts are those of the training."""
        for start in range(0, len(queries), _PAIRS):
            some = slice(start, start + _PAIRS)
            sides = ((queries, query_prompt, "query"), (documents, document_prompt, "document"))
            keys = [
                token_keys(self._model.preprocess(list(texts[some]), prompt=prompt, task=task))
                for texts, prompt, task in sides
            ]
            self._learn(*keys)

    def observe(
        self, query: Mapping[str, Any], document: Mapping[str, Any], grades: Tensor | None
    ) -> None:
        """Take in a batch before the model itself reads it, as modules may write into features.

        Args:
            query: tokenised texts of B queries.
            document: of their documents.
            grades: [B]; None for ones.

        Raises:
            ValueError: the features hold no tokens.
        """
        self._copy.follow()
        vectors = normalize(self._copy.embed(document), dim=1)
        device = vectors.device
        keys = [torch.from_numpy(token_keys(side)).to(device) for side in (query, document)]
        positive = torch.ones(len(vectors), device=device) if grades is None else grades.to(device)
        of_query, of_document, positive, vectors = (
            gather_rows(rows).cpu() for rows in (*keys, positive.reshape(-1), vectors)
        )
        graded = (positive > 0).numpy()
        queries, documents = of_query.numpy(), of_document.numpy()
        self._learn(queries[graded], documents[graded])
        self._batch = queries, documents, vectors.numpy()

    def negatives(self, query: Tensor, document: Tensor) -> Tensor | None:
        """Negatives for the batch that was observed, which joins the queue after that.

        Args:
            query: floats [B, D], of this process, as the model embeds them now.
            document: [B, D], their positives.

        Returns:
            float32[M, D], unit, M at most `per_query` x B of all processes; None where there are
            none. The same in all processes.
        """
        assert self._batch is not None, "observe comes first"
        queries, documents, vectors = self._batch
        self._batch = None
        found = self._mine(query.detach(), document.detach(), queries, documents)
        joint = gather_rows(torch.from_numpy(found).to(query.device)).cpu().numpy()
        chosen = np.unique(joint[joint >= 0])
        negatives = torch.from_numpy(self._vectors[chosen]) if len(chosen) else None
        self._push(documents, vectors)
        return None if negatives is None else negatives.to(query.device)

    def get_config_dict(self) -> dict[str, Any]:
        """Settings, as the model card shows them."""
        return {
            "size": self.size,
            "per_query": self.per_query,
            "relative_margin": self.relative_margin,
            "momentum": self._copy.momentum,
        }

    def state_dict(self) -> dict[str, Any]:
        """All that the next batches depend on, for a checkpoint."""
        known = [(query, one) for query, some in self._known.items() for one in sorted(some)]
        return {
            "size": self.size,
            "vectors": torch.from_numpy(self._vectors[: len(self)].copy()),
            "keys": torch.from_numpy(self._keys[: len(self)].copy()),
            "next": self._next,
            "known": torch.tensor(known, dtype=torch.int64).reshape(-1, 2),
            "copy": self._copy.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`.

        Raises:
            ValueError: it is that of another size or model.
        """
        if state["size"] != self.size:
            raise ValueError(f"the queue was saved with size {state['size']}, not {self.size}")
        self._copy.load_state_dict(state["copy"])
        vectors, keys = state["vectors"].numpy(), state["keys"].numpy()
        self._slots, self._next = {}, 0
        self._push(keys, vectors)
        self._next = int(state["next"])
        self._known = {}
        known = state["known"].numpy()
        self._learn(known[:, 0], known[:, 1])

    def _learn(self, queries: Int64s, documents: Int64s) -> None:
        for query, document in zip(queries.tolist(), documents.tolist(), strict=True):
            self._known.setdefault(query, set()).add(document)

    def _mine(self, query: Tensor, document: Tensor, queries: Int64s, documents: Int64s) -> Int64s:
        """Slots for each query of this process, int64[B, per_query], -1 behind the last."""
        free = np.ones(len(self), bool)
        banned = set(documents.tolist()).union(*map(self._known_of, queries.tolist()))
        free[[self._slots[key] for key in banned if key in self._slots]] = False
        slots = np.flatnonzero(free)
        if not len(slots):
            return np.full((len(query), self.per_query), -1)
        rows = self._vectors[: len(self)]
        index = MiningIndex(rows.shape[1], threads=self._threads)
        index.add(rows if len(slots) == len(rows) else rows[slots], ids=slots)
        left, right = (normalize(side.float(), dim=1).cpu() for side in (query, document))
        found = index.mine(
            left,
            self.per_query,
            positive_scores=(left * right).sum(1).numpy(),
            relative_margin=self.relative_margin,
        )
        return found.ids

    def _known_of(self, query: int) -> set[int]:
        return self._known.get(query, set())

    def _push(self, keys: Int64s, vectors: npt.NDArray[np.float32]) -> None:
        if not len(self._keys) and len(keys):
            self._vectors = np.empty((self.size, vectors.shape[1]), np.float32)
            self._keys = np.empty(self.size, np.int64)
        for key, vector in zip(keys.tolist(), vectors, strict=True):
            slot = self._slots.get(key)
            if slot is None:
                slot, self._next = self._next, (self._next + 1) % self.size
                if len(self._slots) == self.size:
                    del self._slots[int(self._keys[slot])]
                self._slots[key], self._keys[slot] = slot, key
            self._vectors[slot] = vector


def token_keys(features: Mapping[str, Any]) -> Int64s:
    """A hash of the tokens of each text; padding does not count.

    Args:
        features: tokenised texts, padded, flattened, or as the bags of a static embedding.

    Returns:
        int64[B].

    Raises:
        ValueError: there are no tokens.
    """
    if "input_ids" not in features:
        raise ValueError("a queue knows documents by their tokens, and these have no input_ids")
    hashes = [xxhash.xxh3_64_intdigest(row.tobytes()) for row in _token_rows(features)]
    return np.asarray(hashes, np.uint64).view(np.int64)


def _token_rows(features: Mapping[str, Any]) -> Iterator[Int64s]:
    ids = features["input_ids"].cpu().numpy().astype(np.int64)
    bounds = features.get("cu_seq_lens_q")
    if bounds is None and "offsets" in features:
        bounds = torch.cat([features["offsets"].cpu(), torch.tensor([ids.size])])
    if bounds is not None:
        yield from np.split(ids.reshape(-1), bounds.cpu().numpy()[:-1])[1:]
        return
    mask = features["attention_mask"].cpu().numpy().astype(bool)
    yield from (row[kept] for row, kept in zip(ids, mask, strict=True))
