"""The trained comparator: which of two queries does a document answer better?

It learns from judged queries that share a document and differ in grade (arXiv 2509.16717, stage 2).
Each pair is asked in both orders, so neither letter is the likelier answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from ssra_engine.config import LoraConfig, TrainConfig
from ssra_engine.models.packing import PackedSequence
from ssra_engine.models.questions import QuestionEncoder
from ssra_engine.models.role_models import fine_tune, predict
from ssra_engine.models.score_card import grade_weights
from ssra_engine.stages.compare import preferences

__all__ = ["JudgedPairs", "judged_pairs", "train_comparator"]

_Item = TypeVar("_Item")

# A document with many judged queries has many more pairs of them, which would outweigh the others'.
_MOST_PER_DOCUMENT = 16
# Of so many judged queries of a document, evenly chosen over its grades, all pairs are looked at.
_MOST_QUERIES = 64


@dataclass(frozen=True)
class JudgedPairs:
    """P pairs of judged queries of one document each, whose grades differ.

    Attributes:
        documents: prompt text of each pair's document.
        better: the query of the higher grade.
        worse: the other one.
        kind: (lower grade, higher grade) as one number, int64[P].
    """

    documents: list[str]
    better: list[str]
    worse: list[str]
    kind: np.ndarray

    def __len__(self) -> int:
        return len(self.better)


def judged_pairs(rows: pa.Table, grades: int) -> JudgedPairs:
    """Pairs of `schema.D2Q` rows, by document in the order of the rows.

    Args:
        rows: judgments.
        grades: size of the scale.
    """
    by_document: dict[str, list[tuple[str, str, int]]] = {}
    for row in rows.select(["doc_id", "document", "query", "grade"]).to_pylist():
        kept = (row["document"], row["query"], row["grade"])
        by_document.setdefault(row["doc_id"], []).append(kept)
    chosen = []
    for judged in by_document.values():
        few = _evenly(judged, _MOST_QUERIES, key=_grade)
        pairs = [sorted(pair, key=_grade) for pair in combinations(few, 2)]
        pairs = [pair for pair in pairs if _grade(pair[0]) != _grade(pair[1])]
        chosen += _evenly(pairs, _MOST_PER_DOCUMENT, key=lambda pair: tuple(map(_grade, pair)))
    return JudgedPairs(
        [worse[0] for worse, _ in chosen],
        [better[1] for _, better in chosen],
        [worse[1] for worse, _ in chosen],
        np.array([worse[2] * grades + better[2] for worse, better in chosen], np.int64),
    )


def _evenly(items: list[_Item], most: int, key: Callable[[_Item], Any]) -> list[_Item]:
    """All items, or `most` of them with each key in its proportion."""
    if len(items) <= most:
        return items
    ordered = sorted(items, key=key)
    return [ordered[int(place)] for place in np.linspace(0, len(items), most, endpoint=False)]


def _grade(row: tuple[str, str, int]) -> int:
    return row[2]


def train_comparator(
    model: Any,
    encoder: QuestionEncoder,
    judged: JudgedPairs,
    held_out: JudgedPairs,
    config: TrainConfig,
    *,
    lora: LoraConfig | None,
    evenness: float,
    seed: int,
) -> tuple[Any, dict[str, Any]]:
    """(document, query A, query B) -> the letter of the more relevant, as logits of both letters.

    Args:
        model: the backbone; it is changed.
        encoder: of this backbone's tokenizer.
        judged: to train on, at least one.
        held_out: of other queries; stop the training early; may be empty.
        config: of the training.
        lora: train a LoRA and merge it; None trains all weights.
        evenness: how far rare kinds of pairs weigh more, as rare grades do for a score model.
        seed: of data order, dropout and the adapter's weights.

    Returns:
        the trained model, and its card: ``pairs`` it learned from, ``training`` and, with held-out
        pairs, what it says of them (``held_out``): their number, the share answered rightly in both
        orders (``accuracy``), and the share whose answer changed with the order (``flip_rate``).
    """
    sequences, watched = (_sequences(encoder, pairs, evenness) for pairs in (judged, held_out))
    letters = encoder.letter_ids
    model, figures = fine_tune(
        model, sequences, watched, config, encoder, lora=lora, seed=seed, label_ids=letters
    )
    card: dict[str, Any] = {"pairs": len(judged), "training": figures}
    if watched:
        logits = predict(model, watched, encoder.pad_id, letters)
        found = preferences(logits.reshape(-1, 2, 2))
        right = ~found.flipped & (found.second > 0)
        card["held_out"] = {
            "pairs": len(held_out),
            "accuracy": float(right.mean()),
            "flip_rate": float(found.flipped.mean()),
        }
    return model, card


def _sequences(
    encoder: QuestionEncoder, pairs: JudgedPairs, evenness: float
) -> list[PackedSequence]:
    """Two sequences a pair: the worse query first, then the better one."""
    if not len(pairs):
        return []
    kinds = int(pairs.kind.max()) + 1
    weights = np.repeat(grade_weights(pairs.kind, kinds, evenness / 2), 2).tolist()
    place = np.arange(len(pairs)).repeat(2).tolist()
    turns = [(w, b) for w, b in zip(pairs.worse, pairs.better, strict=True)]
    both = [turn for pair in turns for turn in (pair, pair[::-1])]
    first, second = ([turn[side] for turn in both] for side in (0, 1))
    answers = [1, 0] * len(pairs)
    examples = encoder.compare_examples(place, first, second, answers, weights)
    prefixes = encoder.prefixes(pairs.documents)
    return [PackedSequence(tuple(prefixes[e.document]), (e,)) for e in examples]
