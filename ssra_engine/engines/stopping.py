"""When a completion ends: end tokens and stop strings, checked cheaply while it grows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ssra_engine.models.prompt_tokens import PromptTokens

__all__ = ["StopRules"]

#: What decoders write for bytes that are no whole character yet.
_INCOMPLETE = "�"


class StopRules:
    """End tokens and stop strings for one tokenizer.

    A stop string is completed by a token that brings its last character, or the last byte of it. So
    text is decoded and searched only after such tokens.

    Attributes:
        banned: int64[...], tokens that end a completion on their own: end tokens, and tokens that
            contain a whole stop string.
    """

    def __init__(
        self,
        tokens: PromptTokens,
        pieces: Sequence[str],
        end_ids: Sequence[int],
        stop: Sequence[str],
        vocabulary: int,
    ) -> None:
        self._tokens = tokens
        self._stop = tuple(stop)
        self._ends = np.zeros(vocabulary, bool)
        self._ends[list(end_ids)] = True
        self._completes = np.zeros(vocabulary, bool)
        contains = np.zeros(vocabulary, bool)
        last = {text[-1] for text in stop}
        for token, piece in enumerate(pieces):
            self._completes[token] = _INCOMPLETE in piece or any(char in piece for char in last)
            contains[token] = any(text in piece for text in stop)
        self.banned = torch.from_numpy(np.flatnonzero(self._ends | contains))

    def ended(
        self, tokens: np.ndarray, branches: np.ndarray, generated: np.ndarray, length: int
    ) -> np.ndarray:
        """Which completions end with their newest token, bool[N].

        Args:
            tokens: int64[N], the newest tokens.
            branches: int64[N], rows of `generated`.
            generated: int32[B, max_new_tokens].
            length: tokens generated so far, the newest included.
        """
        ended: np.ndarray = self._ends[tokens]
        suspects = np.flatnonzero(self._completes[tokens] & ~ended)
        if len(suspects):
            rows = generated[branches[suspects], :length].tolist()
            texts = self._tokens.texts(rows)
            ended[suspects] = [any(stop in text for stop in self._stop) for text in texts]
        return ended

    def cut(self, text: str) -> str:
        """The text before the first stop string."""
        places = [place for stop in self._stop if (place := text.find(stop)) >= 0]
        return text[: min(places)] if places else text
