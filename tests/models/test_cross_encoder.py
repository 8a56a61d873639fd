from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder
from small_models import byte_tokenizer, write_encoder
from test_role_models import rows

from ssra_engine.config import CrossEncoderConfig
from ssra_engine.engines.cross_encoder_engine import CrossEncoderEngine
from ssra_engine.engines.engine import Request
from ssra_engine.errors import EngineError
from ssra_engine.models import cross_encoder_training as training
from ssra_engine.models.cross_encoder import (
    open_cross_encoder,
    pair_logits,
    save_cross_encoder,
)
from ssra_engine.models.cross_encoder_training import train_cross_encoder

QUERIES = ["fox", "noodles with garlic", "", "a river bank near the old lazy dog", "fox"]
DOCUMENTS = [
    "T: the quick brown fox\n",
    "T: cooking\nX: noodles\n",
    "T: x\n",
    "T: bank\n",
    "T: a\n",
]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def trained(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    save_cross_encoder(open_cross_encoder(encoder, grades=4, max_tokens=40), folder)
    return folder


def test_logits_do_not_depend_on_the_batches(trained: Path) -> None:
    model = open_cross_encoder(trained)
    alone, tokens = pair_logits(model, QUERIES, DOCUMENTS, 1)
    together, same = pair_logits(model, QUERIES, DOCUMENTS, 10_000)
    assert tokens == same > 0
    np.testing.assert_allclose(alone, together, atol=1e-5)
    assert np.abs(alone[0] - alone[1]).max() > 1e-3
    none, _ = pair_logits(model, [], [], 100)
    assert none.shape == (0, 4)


def test_sentence_transformers_opens_the_folder_and_says_the_same(trained: Path) -> None:
    ours, _ = pair_logits(open_cross_encoder(trained), QUERIES, DOCUMENTS, 100)
    theirs = CrossEncoder(str(trained), device="cpu", local_files_only=True)
    predicted = theirs.predict(list(zip(QUERIES, DOCUMENTS, strict=True)))
    np.testing.assert_allclose(ours, predicted, atol=1e-5)


def test_a_document_cannot_forge_a_special_token(trained: Path) -> None:
    model = open_cross_encoder(trained)
    features = model.tokenizer(["a</s>"], ["<s>b<pad>"])["input_ids"][0]
    special = [model.tokenizer.convert_tokens_to_ids(token) for token in ("<pad>", "<s>", "</s>")]
    assert [token for token in features if token in special] == [1, 2, 2]


def test_a_long_pair_is_cut_and_keeps_its_query(trained: Path) -> None:
    model = open_cross_encoder(trained)
    _, tokens = pair_logits(model, ["fox"], ["a river " * 100], 100)
    assert tokens == 40
    assert open_cross_encoder(trained, max_tokens=9).max_seq_length == 9
    assert open_cross_encoder(trained, max_tokens=10_000).max_seq_length == 40


def test_one_seed_gives_one_head(encoder: Path) -> None:
    heads = [open_cross_encoder(encoder, grades=3, seed=seed) for seed in (1, 1, 2)]
    first, again, other = (pair_logits(model, ["a"], ["b"], 99)[0] for model in heads)
    assert first.tolist() == again.tolist() != other.tolist()


@pytest.mark.slow
def test_training_learns_and_repeats(encoder: Path) -> None:
    cards, weights = [], []
    settings = CrossEncoderConfig(epochs=6, rate=3e-3, batch_rows=16)
    for _ in range(2):
        model = open_cross_encoder(encoder, grades=2, max_tokens=48)
        card = train_cross_encoder(
            model, rows(192), rows(192).slice(140), settings, evenness=1.0, seed=0
        )
        cards.append(card)
        weights.append(torch.cat([weight.ravel() for weight in model.parameters()]))
    assert cards[0] == cards[1]
    assert torch.equal(*weights)
    assert cards[0]["held_out"]["accuracy"] > 0.8
    assert cards[0]["temperature"] > 0
    # The loss in the card is that of the weights it ends with.
    loss = training._held_out_loss(model, rows(192).slice(140), 0.5)
    assert loss == pytest.approx(cards[0]["training"]["held_out_loss"], abs=1e-6)


def test_a_label_may_name_what_is_learned_of_several_grades() -> None:
    random = torch.Generator().manual_seed(0)
    logits, weights = torch.randn(6, 3, generator=random), torch.tensor([0.5, 2.0, 1.0])
    shares = torch.tensor([0.2, 0.5, 0.3])
    loss = training._Targets(torch.cat([weights.diag(), shares[None]]))
    labels = torch.tensor([0, 1, 2, 1, 0, 2])
    usual = torch.nn.functional.cross_entropy(logits, labels, weight=weights)
    assert loss(logits, labels).item() == pytest.approx(usual.item())
    soft = torch.nn.functional.cross_entropy(logits, shares.expand(6, 3))
    assert loss(logits, torch.full((6,), 3)).item() == pytest.approx(soft.item())


@pytest.mark.slow
def test_queries_without_a_grade_are_learned_beside_the_judged(
    encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    forward = training._Targets.forward

    def watched(
        self: training._Targets, logits: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        seen.extend(labels.tolist())
        return forward(self, logits, labels)

    monkeypatch.setattr(training._Targets, "forward", watched)
    model = open_cross_encoder(encoder, grades=2, max_tokens=48)
    settings = CrossEncoderConfig(epochs=1, batch_rows=16)
    train_cross_encoder(model, rows(32), rows(0), settings, evenness=1.0, seed=0, unclear=rows(9))
    assert sorted(seen) == sorted([*rows(32)["grade"].to_pylist(), *[2] * 9])


def test_the_best_weights_are_kept_and_training_ends_without_progress() -> None:
    model, losses = torch.nn.Linear(1, 1), [3.0, 1.0, 2.0, 1.5]
    control = SimpleNamespace(should_training_stop=False)
    best = training._BestWeights(model, lambda: losses[epoch], patience=2)
    stopped = []
    for epoch in range(4):
        torch.nn.init.constant_(model.weight, epoch)
        best.on_epoch_end(None, None, control)
        stopped.append(control.should_training_stop)
    assert stopped == [False, False, False, True]
    assert best.restore() == 1.0
    assert model.weight.item() == 1.0


@pytest.mark.slow
def test_without_held_out_rows_it_trains_to_the_end(encoder: Path) -> None:
    model = open_cross_encoder(encoder, grades=2, max_tokens=48)
    settings = CrossEncoderConfig(epochs=1, max_steps=2, batch_rows=16)
    card = train_cross_encoder(model, rows(64), rows(0), settings, evenness=0.5, seed=0)
    assert card["temperature"] == 1.0
    assert "held_out" not in card


def test_the_engine_scores_texts_and_writes_none(trained: Path) -> None:
    engine = CrossEncoderEngine(trained, batch_tokens=64)
    requests = [Request(d, q) for d, q in zip(DOCUMENTS, QUERIES, strict=True)]
    logits = engine.label_logits([*requests, requests[0]], list("0123"))
    expected, tokens = pair_logits(open_cross_encoder(trained), QUERIES, DOCUMENTS, 64)
    np.testing.assert_allclose(logits[:5], expected, atol=1e-5)
    assert logits[5].tolist() == logits[0].tolist()
    assert engine.stats.prompt_tokens == tokens, "a pair that is there twice is read once"
    assert engine.stats.requests == 6
    with pytest.raises(EngineError, match="has 4 grades, asked for 3"):
        engine.label_logits(requests, list("012"))
    with pytest.raises(EngineError, match="reads texts"):
        engine.label_logits([Request([1, 2], [3])], list("0123"))
    with pytest.raises(EngineError, match="writes no text"):
        engine.generate(requests)


def test_what_is_no_cross_encoder_is_refused(encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no such model folder"):
        open_cross_encoder(tmp_path / "nowhere")
    with pytest.raises(EngineError, match="a model folder, not a file"):
        open_cross_encoder(encoder / "config.json")
    pickled = tmp_path / "pickled"
    shutil.copytree(encoder, pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(EngineError, match="pickled"):
        open_cross_encoder(pickled)
    broken = tmp_path / "broken"
    shutil.copytree(encoder, broken)
    (broken / "model.safetensors").write_bytes(b"junk")
    with pytest.raises(EngineError, match="cannot be read as a cross-encoder"):
        open_cross_encoder(broken, grades=2)


def test_code_of_a_folder_is_not_run(encoder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "custom"
    shutil.copytree(encoder, folder)
    config = json.loads((folder / "config.json").read_text())
    name = "AutoModelForSequenceClassification"
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "m.C", name: "m.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "m.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(EngineError, match="cannot be read"):
        open_cross_encoder(folder, grades=2)
    assert not (tmp_path / "ran").exists()


def test_a_tokenizer_that_cannot_pad_is_refused(encoder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "unpadded"
    shutil.copytree(encoder, folder)
    tokenizer = byte_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    with pytest.raises(EngineError, match="no padding token"):
        open_cross_encoder(folder, grades=2)
