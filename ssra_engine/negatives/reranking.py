"""Scores of candidates by a cross-encoder."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from ssra_engine.errors import EngineError

__all__ = ["Reranker"]

# Pairs of texts at a time: enough for the model to sort by length.
_PAIRS = 16_384


class Reranker:
    """A CrossEncoder as a function of pairs of texts.

    Args:
        cross_encoder: of sentence-transformers, with one output.
        batch_size: pairs of one forward pass.
        pool: its worker processes, or None.
    """

    def __init__(self, cross_encoder: Any, batch_size: int, pool: Any) -> None:
        self._model, self._batch_size, self._pool = cross_encoder, batch_size, pool

    def __call__(self, pairs: Iterable[tuple[str, str]]) -> npt.NDArray[np.float32]:
        """Scores of (query, document), float32[n].

        Raises:
            EngineError: not one score a pair, or one that is not a number.
        """
        remaining, parts = iter(pairs), [np.empty(0, np.float32)]
        while some := list(islice(remaining, _PAIRS)):
            scores = self._model.predict(
                some, batch_size=self._batch_size, convert_to_tensor=True, pool=self._pool
            )
            part = scores.detach().float().cpu().numpy()
            if part.shape != (len(some),):
                raise EngineError(
                    f"the cross-encoder gave scores of shape {list(part.shape)} for {len(some)} "
                    "pairs. It must have one output."
                )
            bad = np.flatnonzero(np.isnan(part))
            if len(bad):
                query, document = (text[:80] for text in some[int(bad[0])])
                raise EngineError(
                    f"the cross-encoder's score of {query!r} and {document!r} is not a number."
                )
            parts.append(part)
        return np.concatenate(parts)
