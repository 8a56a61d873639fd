"""An embedding model that works on slices of its texts, and tells how far it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ssra_engine.steps import Progress

__all__ = ["SlicedModel"]

# Long enough that sorting a slice by length wastes little padding.
_SLICE = 1024

Floats = npt.NDArray[np.floating[Any]]


class SlicedModel:
    """A SentenceTransformer whose vectors go into one array slice by slice.

    `encode` of sentence-transformers holds a tensor for each text until the last one is embedded;
    here they are at most a slice. Everything but embedding is the model's own.

    Args:
        model: a SentenceTransformer.
        progress: told of each side and its texts.
    """

    def __init__(self, model: Any, progress: Progress) -> None:
        self._model, self._progress = model, progress

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def encode_query(self, texts: Sequence[str], **options: Any) -> Floats:
        """As the model's."""
        return self._encode("embed the queries", self._model.encode_query, texts, options)

    def encode_document(self, texts: Sequence[str], **options: Any) -> Floats:
        """As the model's."""
        return self._encode("embed the documents", self._model.encode_document, texts, options)

    def _encode(self, step: str, encode: Any, texts: Sequence[str], options: Any) -> Floats:
        self._progress.begin(step, len(texts), 0)
        vectors: Floats = np.empty((0, 0), np.float32)
        for start in range(0, len(texts), _SLICE):
            part = encode(list(texts[start : start + _SLICE]), **options)
            if start == 0:
                vectors = np.empty((len(texts), part.shape[1]), part.dtype)
            vectors[start : start + len(part)] = part
            self._progress.update(start + len(part))
        return vectors
