"""A score model that learns from reasons: its examples, its loss, and how it is asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from files import write
from transformers import LlamaConfig, LlamaForCausalLM

from ssra_engine.build import build
from ssra_engine.config import TrainConfig, load_config
from ssra_engine.engine_folder import open_roles, read_engines
from ssra_engine.engines.engine import GENERATED, Request, Sampling
from ssra_engine.engines.fake import FakeEngine
from ssra_engine.engines.reasoning_engine import ReasoningEngine
from ssra_engine.errors import ConfigError, DataError
from ssra_engine.models.packing import PackedSequence, collate
from ssra_engine.models.questions import QuestionEncoder
from ssra_engine.models.training import train
from ssra_engine.prompts import TEMPLATES
from ssra_engine.simulate import simulate


def _encoder(tokenizer: Any, template: str = "plain") -> QuestionEncoder:
    return QuestionEncoder(
        tokenizer,
        TEMPLATES[template],
        4,
        max_document_tokens=32,
        max_query_tokens=8,
        max_rationale_tokens=12,
    )


@pytest.mark.parametrize("template", ["plain", "instruct"])
def test_a_reason_is_two_questions(tokenizer: Any, template: str) -> None:
    encoder = _encoder(tokenizer, template)
    reason = "garlic  and\nginger, but no noodles at all and much more besides"
    told, graded = encoder.rationale_examples([5], ["noodles"], [reason], [2], [0.5])
    (plain,) = encoder.score_examples([5], ["noodles"], [2], [0.5])
    text = {name: tokenizer.decode(ids) for name, ids in vars(_Texts(told, graded, plain)).items()}
    assert text["asked"].startswith(text["plain"].split("\n")[0])
    assert len(told.target) == 13
    assert text["written"].endswith("\n")
    written = text["written"].removesuffix("\n")
    assert " garlic and ginger, but no noodles at all and".startswith(written)
    end = TEMPLATES[template].rationale_parts(4)[1]
    assert text["graded"] == f"{text['asked']}{written}{end}"
    assert graded.target == plain.target
    assert (told.text, graded.text, plain.text) == (True, False, False)
    assert told.weight == graded.weight == 0.5


class _Texts:
    def __init__(self, told: Any, graded: Any, plain: Any) -> None:
        self.asked, self.written = told.suffix, told.target
        self.graded, self.plain = graded.suffix, plain.suffix


def _model() -> LlamaForCausalLM:
    from small_models import sizes

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlamaForCausalLM(LlamaConfig(**sizes(num_hidden_layers=1))).eval()


def test_labels_compete_with_labels_and_text_with_all_tokens(tokenizer: Any) -> None:
    """The loss of a mixed batch is that of its parts, each with its own tokens to choose from."""
    encoder = _encoder(tokenizer)
    (label,) = encoder.score_examples([0], ["noodles"], [1], [1.0])
    told, _ = encoder.rationale_examples([0], ["noodles"], ["ginger"], [1], [2.0])
    prefix = tuple(encoder.prefixes(["T: a short video\n"])[0])
    config = TrainConfig(epochs=1, rate=1e-12, batch_rows=1, warmup=0)

    def loss(*examples: Any, label_ids: Sequence[int] | None) -> float:
        sequences = [PackedSequence(prefix, tuple(examples))]
        settings: Any = {"pad_id": 0, "seed": 0, "label_ids": label_ids}
        return train(_model(), sequences, config, **settings)["train_loss"]

    labels = encoder.label_ids
    alone, text = loss(label, label_ids=labels), loss(told, label_ids=None)
    assert loss(label, label_ids=None) > alone + 0.1
    both = loss(label, told, label_ids=labels)
    assert both == pytest.approx((alone + 2 * text) / 3, rel=1e-4)
    batch = collate([PackedSequence(prefix, (label, told))], 0)
    assert int(batch["text"].sum()) == len(told.target)


class _Writer(FakeEngine):
    """Writes a reason, and notes what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.graded: list[str] = []

    def generate_batches(
        self, batches: Iterable[pa.RecordBatch], sampling: Sampling
    ) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            self.asked += batch["suffix"].to_pylist()
            rows = [
                dict(zip(GENERATED.names, (i, 0, f" so\tit{i}", [1], 0.0, "stop"), strict=True))
                for i in range(len(batch))
            ]
            yield pa.RecordBatch.from_pylist(rows, schema=GENERATED)

    def score_batches(
        self, batches: Iterable[pa.RecordBatch], labels: Sequence[str | int]
    ) -> Iterator[pa.RecordBatch]:
        batches = list(batches)
        self.graded += [suffix for batch in batches for suffix in batch["suffix"].to_pylist()]
        return super().score_batches(batches, labels)


def test_the_reason_is_written_before_the_grade() -> None:
    template, writer = TEMPLATES["instruct"], _Writer()
    engine = ReasoningEngine(writer, template, 4, max_new_tokens=9)
    suffixes = template.score_suffixes(pa.array(["a", "b"]), 4).to_pylist()
    logits = engine.label_logits([Request("T: x\n", s) for s in suffixes], ["0", "1", "2", "3"])
    assert logits.shape == (2, 4)
    before, after = template.score_parts(4)
    ask, end = template.rationale_parts(4)
    assert writer.asked == [f"{before}{query}{ask}" for query in "ab"]
    assert writer.graded == [f"{before}{q}{ask} so it{i}{end}" for i, q in enumerate("ab")]
    assert f"{ask}{end}".replace("\nReason:", "") == after


_SMALL: dict[str, Any] = {
    "model.preset": "tiny",
    "model.tiny.vocabulary": 600,
    "model.tiny.width": 32,
    "model.tiny.layers": 1,
    "model.tiny.heads": 2,
    "model.tiny.pretrain_tokens": 1000,
    "model.score.max_steps": 2,
    "model.query.max_steps": 1,
    "model.max_rationale_tokens": 6,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    folder, made = tmp_path_factory.mktemp("world"), simulate(60, 0)
    told = [f"since {grade}" for grade in made.judgments["grade"].to_pylist()]
    judged = made.judgments.append_column("rationale", pa.array(told))
    corpus = made.corpus.drop_columns("facets")
    return {
        "corpus": [write(corpus, folder / "corpus.arrow")],
        "judgments": [write(judged, folder / "judgments.arrow")],
    }


@pytest.mark.slow
def test_a_build_with_reasons(world: dict[str, list[Path]], tmp_path: Path) -> None:
    cards, logits = {}, {}
    for mode in ("none", "train", "write"):
        settings = load_config(None, _SMALL | {"model.rationales": mode})
        build(settings, **world, output=tmp_path / mode)
        cards[mode] = read_engines(tmp_path / mode).manifest["figures"]["score"]
        roles = open_roles(tmp_path / mode, settings)
        engine = roles.open_score()
        suffixes = roles.score_template.score_suffixes(pa.array(["noodles"]), 4).to_pylist()
        logits[mode] = engine.label_logits([Request("T: x\n", suffixes[0])], roles.labels)
        engine.close()
    assert cards["none"]["training"] != cards["train"]["training"] == cards["write"]["training"]
    assert cards["train"]["held_out"] != cards["write"]["held_out"]
    assert not np.allclose(logits["train"], logits["write"])


def test_reasons_that_are_not_there(world: dict[str, list[Path]], tmp_path: Path) -> None:
    rows = [{"query": f"q{n}", "doc_id": "v0000000", "grade": n % 2} for n in range(20)]
    judgments = [write(rows, tmp_path / "plain.jsonl")]
    settings = load_config(None, _SMALL | {"model.rationales": "train"})
    with pytest.raises(DataError, match="no train judgment has a rationale"):
        build(settings, corpus=world["corpus"], judgments=judgments, output=tmp_path / "out")
    crossed = {"model.score_model": "cross-encoder", "model.cross_encoder.backbone": "x"}
    with pytest.raises(ConfigError, match="a cross-encoder writes nothing"):
        load_config(None, crossed | {"model.rationales": "train"})
