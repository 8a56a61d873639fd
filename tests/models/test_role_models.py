from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
import torch

from ssra_engine.calibration import Calibration, evening_bias
from ssra_engine.config import LoraConfig, TinyConfig, TrainConfig
from ssra_engine.models import role_models
from ssra_engine.models.packing import PackedSequence
from ssra_engine.models.questions import QuestionEncoder
from ssra_engine.models.role_models import train_query_model, train_score_model
from ssra_engine.models.score_card import grade_weights, quality, unclear_shares
from ssra_engine.models.tiny import new_backbone, pretrain, train_tokenizer
from ssra_engine.prompts import TEMPLATES
from ssra_engine.schema import D2Q

WORDS = ["红茶", "绿茶", "咖啡", "牛奶", "果汁", "可乐", "苏打", "豆浆"]
SIZE = TinyConfig(vocabulary=400, width=32, layers=2, heads=2, pretrain_tokens=2000)


def rows(number: int) -> pa.Table:
    """Drinks: the query is in the document (grade 1) or is not (grade 0)."""
    picked = [(WORDS[i % 8], WORDS[(i * 3 + i // 8) % 8]) for i in range(number)]
    return pa.table(
        [
            [f"d{i}" for i in range(number)],
            [f"T: {document} 2024\n" for document, _ in picked],
            [query for _, query in picked],
            pa.array([int(document == query) for document, query in picked], pa.int8()),
            ["judgment"] * number,
        ],
        schema=D2Q,
    )


@pytest.fixture(scope="module")
def encoder() -> QuestionEncoder:
    texts = [*rows(64)["document"].to_pylist(), *(f"Q: {word}\n" for word in WORDS)]
    tokenizer = train_tokenizer(texts, 400)
    encoder = QuestionEncoder(
        tokenizer, TEMPLATES["plain"], 2, max_document_tokens=32, max_query_tokens=8
    )
    encoder.tokenizer = tokenizer  # type: ignore[attr-defined]
    return encoder


def backbone(encoder: QuestionEncoder, seed: int = 0) -> torch.nn.Module:
    return new_backbone(encoder.tokenizer, SIZE, 128, seed)  # type: ignore[attr-defined]


def test_the_tokenizer_gives_back_what_it_is_given(encoder: QuestionEncoder) -> None:
    tokenizer = encoder.tokenizer  # type: ignore[attr-defined]
    for text in ("T: 红茶 2024\n", "unseen Ünïcode 😀 字", "a  b"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == text
    assert len(set(encoder.label_ids)) == 2


def test_text_cannot_forge_a_special_token(encoder: QuestionEncoder) -> None:
    tokenizer = encoder.tokenizer  # type: ignore[attr-defined]
    (ids,) = encoder.prefixes(["<s></s><0x0A>"])
    assert ids[0] == tokenizer.bos_token_id
    assert not {tokenizer.bos_token_id, tokenizer.eos_token_id} & set(ids[1:])


def test_one_seed_gives_one_backbone(encoder: QuestionEncoder) -> None:
    first, again, other = (backbone(encoder, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_training_learns_and_repeats(encoder: QuestionEncoder) -> None:
    settings = TrainConfig(epochs=6, rate=3e-3, batch_rows=16)
    cards, weights = [], []
    for _ in range(2):
        model = backbone(encoder)
        pretrain(model, encoder, rows(64)["document"].to_pylist(), SIZE, seed=0)
        model, card = train_score_model(
            model,
            encoder,
            rows(128),
            rows(128).slice(100),
            settings,
            lora=None,
            evenness=1.0,
            seed=0,
        )
        cards.append(card)
        weights.append(model.get_input_embeddings().weight.detach().clone())
    assert cards[0] == cards[1]
    assert torch.equal(*weights)
    assert cards[0]["held_out"]["accuracy"] > 0.8
    assert cards[0]["temperature"] > 0


def test_rows_of_a_document_may_share_a_sequence(encoder: QuestionEncoder) -> None:
    judged = pa.concat_tables([rows(5), rows(3), rows(2)])
    alone, together = (
        role_models._score_sequences(encoder, judged, 0.5, together=most) for most in (1, 2)
    )
    assert [len(sequence.examples) for sequence in alone] == [1] * 10
    asked = encoder.score_examples(
        range(10), judged["query"].to_pylist(), judged["grade"].to_pylist(), [1.0] * 10
    )
    assert [s.examples[0].suffix for s in alone] == [example.suffix for example in asked]
    assert [len(sequence.examples) for sequence in together] == [2, 2, 2, 1, 1, 1, 1]
    assert _pairs(together) == _pairs(alone)
    shares = [0.3, 0.7]
    unclear = role_models._unclear_sequences(encoder, rows(3), shares, 2)
    assert [[e.weight for e in sequence.examples] for sequence in unclear] == [shares] * 3
    labels = [[e.target for e in sequence.examples] for sequence in unclear]
    assert labels == [[(label,) for label in encoder.label_ids]] * 3


def _pairs(sequences: list[PackedSequence]) -> Counter[object]:
    return Counter(
        (sequence.prefix, example.suffix, example.target, example.weight)
        for sequence in sequences
        for example in sequence.examples
    )


def test_the_bias_makes_what_is_learned_of_unclear_queries_even() -> None:
    grades = np.repeat([0, 1, 2, 3], [46, 4, 4, 46])
    shares = unclear_shares(grades, 5, 0.5)
    bias = evening_bias(grades, 5, 0.5)
    assert sum(shares) == pytest.approx(1)
    np.testing.assert_allclose(Calibration(1.0, bias).probs(np.log([shares])), [[0.2] * 5])


def test_lora_is_merged_and_changes_the_answers(encoder: QuestionEncoder) -> None:
    model = backbone(encoder)
    names = set(model.state_dict())
    prompt = torch.tensor([[1, 5, 6, 7]])
    with torch.no_grad():
        before = model(prompt).logits
    tuned, figures = train_query_model(
        model,
        encoder,
        rows(32),
        TrainConfig(epochs=5, rate=1e-2, batch_rows=8),
        lora=LoraConfig(rank=4, alpha=8, dropout=0),
        seed=0,
    )
    assert set(tuned.state_dict()) == names
    assert figures["train_loss"] > 0
    with torch.no_grad():
        assert (tuned(prompt).logits - before).abs().max() > 1e-3


def test_rare_grades_weigh_more_by_the_root_of_their_share() -> None:
    weights = np.array(grade_weights(np.array([0] * 9 + [1]), 2))
    assert weights.mean() == pytest.approx(1)
    assert weights[9] / weights[0] == pytest.approx(3)


def test_quality_of_a_known_table() -> None:
    logits = np.log(np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8], [0.8, 0.1, 0.1]]))
    card = quality(logits, np.array([0, 1, 2, 2]))
    assert card["accuracy"] == 0.75
    assert card["confusion"] == [[1, 0, 0], [0, 1, 0], [1, 0, 1]]
    assert card["f1"] == pytest.approx([2 / 3, 1.0, 2 / 3])
    assert card["calibration_error"] == pytest.approx(0.05)
    ((rows, confidence, accuracy),) = card["reliability"]
    assert (rows, accuracy) == (4, 0.75)
    assert confidence == pytest.approx(0.8)
