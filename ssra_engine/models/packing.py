"""Training sequences in which several questions share one document.

A packed sequence is ``document | suffix 1, target 1 | suffix 2, target 2 | ...``. Every question
sees the document and itself, never its siblings, and its positions go on from the document's end;
so the loss is that of separate sequences, while the document is computed once. With four questions
of a quarter of the document's length, that is half of the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

__all__ = ["IGNORED", "Example", "PackedSequence", "collate", "pack"]

#: Target of a position that carries no loss.
IGNORED = -100


@dataclass(frozen=True)
class Example:
    """One question about one document, in token ids.

    Attributes:
        document: index of the document's prefix.
        suffix: what is asked.
        target: tokens to be predicted after the suffix.
        weight: factor of this example's loss.
        text: the target is text, even where other examples' targets are one of some labels.
    """

    document: int
    suffix: tuple[int, ...]
    target: tuple[int, ...]
    weight: float = 1.0
    text: bool = False


@dataclass(frozen=True)
class PackedSequence:
    """A document's prefix and the questions that share it."""

    prefix: tuple[int, ...]
    examples: tuple[Example, ...]

    def __len__(self) -> int:
        return len(self.prefix) + sum(len(e.suffix) + len(e.target) - 1 for e in self.examples)


def pack(
    prefixes: Sequence[Sequence[int]], examples: Sequence[Example], max_per_sequence: int = 8
) -> list[PackedSequence]:
    """Group examples by document, in first-seen order, `max_per_sequence` in one at most."""
    groups: dict[int, list[Example]] = {}
    for example in examples:
        groups.setdefault(example.document, []).append(example)
    return [
        PackedSequence(tuple(prefixes[document]), tuple(group[start : start + max_per_sequence]))
        for document, group in groups.items()
        for start in range(0, len(group), max_per_sequence)
    ]


def collate(sequences: Sequence[PackedSequence], pad_id: int) -> dict[str, torch.Tensor]:
    """Lay B packed sequences into tensors of the longest one's T tokens.

    Returns:
        ``input_ids`` and ``position_ids`` int64[B, T]; ``attention_mask`` bool[B, 1, T, T], true
        where a position (third axis) sees another (fourth); ``targets`` int64[B, T], the token to
        predict *at* each position (already shifted) or `IGNORED`; ``weights`` float32[B, T], the
        example's weight divided by its number of target tokens; ``text`` bool[B, T], where the
        example says so.
    """
    rows, width = len(sequences), max(map(len, sequences))
    input_ids = np.full((rows, width), pad_id, np.int64)
    position_ids = np.zeros((rows, width), np.int64)
    segments = np.full((rows, width), -1, np.int64)
    targets = np.full((rows, width), IGNORED, np.int64)
    weights = np.zeros((rows, width), np.float32)
    text = np.zeros((rows, width), bool)
    for row, sequence in enumerate(sequences):
        prefix, start = sequence.prefix, len(sequence.prefix)
        input_ids[row, :start] = prefix
        position_ids[row, :start] = np.arange(start)
        segments[row, :start] = 0
        for number, example in enumerate(sequence.examples, 1):
            assert example.suffix or number == 1, "only the first question can be the document"
            # The last target token is predicted but never read.
            tokens = (*example.suffix, *example.target[:-1])
            end = start + len(tokens)
            input_ids[row, start:end] = tokens
            position_ids[row, start:end] = np.arange(len(prefix), len(prefix) + len(tokens))
            segments[row, start:end] = number
            targets[row, end - len(example.target) : end] = example.target
            weights[row, end - len(example.target) : end] = example.weight / len(example.target)
            text[row, end - len(example.target) : end] = example.text
            start = end
    return {
        "input_ids": torch.from_numpy(input_ids),
        "position_ids": torch.from_numpy(position_ids),
        "attention_mask": torch.from_numpy(_visible(segments)),
        "targets": torch.from_numpy(targets),
        "weights": torch.from_numpy(weights),
        "text": torch.from_numpy(text),
    }


def _visible(segments: np.ndarray) -> np.ndarray:
    """bool[B, 1, T, T] from segment numbers: 0 the document, -1 padding."""
    query, key = segments[:, :, None], segments[:, None, :]
    causal = np.tril(np.ones((segments.shape[1],) * 2, bool))
    seen = causal & ((key == 0) | (key == query)) & (key >= 0)
    # A padding position attends to itself, so that no softmax runs over nothing.
    return np.asarray(seen | np.eye(segments.shape[1], dtype=bool))[:, None]
