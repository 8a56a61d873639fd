from __future__ import annotations

from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest
from test_role_models import WORDS, backbone, encoder

from ssra_engine.config import TrainConfig
from ssra_engine.models import comparator as comparing
from ssra_engine.models.comparator import JudgedPairs, judged_pairs, train_comparator
from ssra_engine.models.questions import QuestionEncoder
from ssra_engine.schema import D2Q

__all__ = ["encoder"]  # a fixture


def _rows(*rows: tuple[str, str, int]) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                "doc_id": doc_id,
                "document": f"T: {doc_id}\n",
                "query": query,
                "grade": grade,
                "source": "judgment",
            }
            for doc_id, query, grade in rows
        ],
        schema=D2Q,
    )


def _told(pairs: JudgedPairs) -> list[tuple[str, str, str]]:
    return list(zip(pairs.documents, pairs.better, pairs.worse, strict=True))


def test_pairs_share_a_document_and_differ_in_grade() -> None:
    judged = _rows(("a", "x", 3), ("b", "y", 0), ("a", "z", 1), ("b", "u", 0), ("a", "v", 3))
    pairs = judged_pairs(judged, 4)
    assert _told(pairs) == [("T: a\n", "x", "z"), ("T: a\n", "v", "z")]
    assert pairs.kind.tolist() == [7, 7]
    assert len(judged_pairs(judged.slice(1, 1), 4)) == 0


def test_a_document_with_many_judgments_gives_a_bounded_number_of_pairs() -> None:
    judged = [("a", f"q{number}", number % 4) for number in range(20)]
    pairs = _told(judged_pairs(_rows(*judged), 4))
    assert len(pairs) == len(set(pairs)) == 16
    grades = {query: grade for _, query, grade in judged}
    assert all(grades[better] > grades[worse] for _, better, worse in pairs)
    few = judged[:6]
    expected = sum(a[2] != b[2] for a, b in combinations(few, 2))
    assert len(judged_pairs(_rows(*few), 4)) == expected


def test_all_grades_of_a_document_with_very_many_judgments_are_compared() -> None:
    judged = [("a", f"q{number}", min(number // 2000, 3)) for number in range(8000)]
    pairs = judged_pairs(_rows(*judged), 4)
    assert len(pairs) == 16
    assert len(set(pairs.kind.tolist())) == 6


def test_each_pair_is_asked_in_both_orders(encoder: QuestionEncoder) -> None:
    pairs = judged_pairs(_rows(("a", "x", 1), ("a", "z", 0)), 2)
    worse_first, better_first = comparing._sequences(encoder, pairs, 1.0)
    decode = encoder.tokenizer.decode  # type: ignore[attr-defined]
    assert "A: z\nB: x\n" in decode(worse_first.examples[0].suffix)
    assert "A: x\nB: z\n" in decode(better_first.examples[0].suffix)
    letters = [decode(s.examples[0].target) for s in (worse_first, better_first)]
    assert letters == ["B", "A"]


@pytest.mark.slow
def test_it_learns_which_query_is_better_whatever_the_order(encoder: QuestionEncoder) -> None:
    def drinks(first: int, last: int) -> JudgedPairs:
        numbers = range(first, last)
        return JudgedPairs(
            [f"T: {WORDS[n % 8]} 2024\n" for n in numbers],
            [WORDS[n % 3] for n in numbers],
            [WORDS[3 + n % 5] for n in numbers],
            np.ones(last - first, np.int64),
        )

    cards = []
    for _ in range(2):
        _, card = train_comparator(
            backbone(encoder),
            encoder,
            drinks(0, 96),
            drinks(96, 120),
            TrainConfig(epochs=5, rate=1e-2, batch_rows=16),
            lora=None,
            evenness=1.0,
            seed=0,
        )
        cards.append(card)
    assert cards[0] == cards[1]
    assert cards[0]["pairs"] == 96
    assert cards[0]["held_out"] == {"pairs": 24, "accuracy": 1.0, "flip_rate": 0.0}
