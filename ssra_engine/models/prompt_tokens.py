"""Prompts as token ids, and token ids as text.

Prefix and suffix are tokenised apart, so that a document's ids do not depend on what is asked of
it. Special tokens stand before the prefix only. Text that spells a special or an added token
("</s>", "<think>") stays text, so a document cannot forge one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ssra_engine.errors import EngineError

__all__ = ["PromptTokens"]

#: Labels and completions are read after this text: tokenizers of the SentencePiece family write and
#: read a piece differently at the start of a text. No tokenizer merges across a line break.
_BEFORE = "\n"


class PromptTokens:
    """The tokens of prompts, labels and completions.

    Args:
        tokenizer: a fast transformers tokenizer.
        max_document_tokens: a longer prefix, special tokens included, is cut at its end.
    """

    def __init__(self, tokenizer: Any, max_document_tokens: int | None = None) -> None:
        self._tokenizer = tokenizer
        self._limit = max_document_tokens
        # Added tokens that are not marked as special are read out of any text, unlike special ones.
        self._added = [
            token.content
            for token in tokenizer.added_tokens_decoder.values()
            if not token.special and len(token.content.strip()) > 1
        ]
        self.vocabulary = len(tokenizer)
        with_special = tokenizer("a", add_special_tokens=True)["input_ids"]
        plain = tokenizer("a", add_special_tokens=False)["input_ids"]
        self.special: list[int] = list(with_special[: with_special.index(plain[0])])
        self._anchor = self._encode([_BEFORE])[0] or list(plain)

    def prefixes(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each document, special tokens first, cut to the limit."""
        return [self.cut(self.special + ids) for ids in self._encode(texts)]

    def cut(self, ids: list[int]) -> list[int]:
        """The head of a prefix that is longer than the limit."""
        return ids if self._limit is None else ids[: self._limit]

    def suffixes(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each suffix."""
        return self._encode(texts)

    def label_ids(self, labels: Sequence[str | int]) -> list[int]:
        """The token of each label, as it stands after other text.

        Raises:
            EngineError: there is no label, a text is not exactly one token, or an id is not one of
                the vocabulary.
        """
        if not labels:
            raise EngineError("no labels to score; give at least one.")
        (before,) = self._encode([_BEFORE])
        ids = []
        for label in labels:
            if not isinstance(label, str):
                if not 0 <= label < self.vocabulary:
                    raise EngineError(
                        f"label {label} is not a token id of this model (0 to "
                        f"{self.vocabulary - 1})."
                    )
                ids.append(int(label))
                continue
            (both,) = self._encode([_BEFORE + label])
            tokens = both[len(before) :]
            if both[: len(before)] != before or len(tokens) != 1:
                raise EngineError(
                    f"label '{label}' is {len(tokens)} tokens of this model; a label must be "
                    "exactly one. Give labels of one token each, or token ids."
                )
            ids.append(tokens[0])
        return ids

    def texts(self, completions: Sequence[Sequence[int]]) -> list[str]:
        """What each run of tokens adds to the text before it, special tokens left out."""
        decoded = self._tokenizer.batch_decode(
            [self._anchor, *(self._anchor + list(ids) for ids in completions)],
            skip_special_tokens=True,
            clean_up_tokenization_spaces=False,
        )
        start = len(decoded[0])
        return [text[start:] for text in decoded[1:]]

    def pieces(self) -> list[str]:
        """The text of every token of the vocabulary, by id."""
        return self.texts([[token] for token in range(self.vocabulary)])

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        if not any(added in text for added in self._added for text in texts):
            return self._encode_plain(texts)
        pieces = [self._without_added(text) for text in texts]
        encoded = iter(self._encode_plain([piece for parts in pieces for piece in parts]))
        return [[token for _ in parts for token in next(encoded)] for parts in pieces]

    def _without_added(self, text: str) -> list[str]:
        """The text in pieces none of which spells an added token: each is cut after its start."""
        pieces = [text]
        for added in self._added:
            pieces = [part for piece in pieces for part in _cut(piece, added)]
        return pieces

    def _encode_plain(self, texts: Sequence[str]) -> list[list[int]]:
        encoded = self._tokenizer(
            list(texts),
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            split_special_tokens=True,
            verbose=False,
        )
        return list(encoded["input_ids"])


def _cut(text: str, forbidden: str) -> list[str]:
    """Pieces of a text, in order, cut after the first character of each `forbidden` in it."""
    pieces = []
    while (place := text.find(forbidden)) >= 0:
        pieces.append(text[: place + 1])
        text = text[place + 1 :]
    return [*pieces, text]
