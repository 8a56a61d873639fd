"""The comparison from end to end, on a world and with models as small as they can be."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from click.testing import CliRunner
from small_models import byte_tokenizer, sizes
from transformers import LlamaConfig, LlamaForCausalLM

from ssra_engine.cli import main
from ssra_engine.comparing import pipeline
from ssra_engine.comparing.compare import compare_methods
from ssra_engine.comparing.methods import METHODS, adapted
from ssra_engine.comparing.settings import CompareSettings, read_settings
from ssra_engine.comparing.tables import compare_figures, reference_of
from ssra_engine.config import load_config
from ssra_engine.errors import ConfigError
from ssra_engine.evaluation.lists import judged_pairs
from ssra_engine.evaluation.measuring import Figures, Settings, measure
from ssra_engine.simulate import simulate, write
from ssra_engine.steps import NoProgress

_SETTINGS: dict[str, Any] = {
    "model": {
        "preset": "tiny",
        "tiny": {"vocabulary": 600, "width": 32, "layers": 1, "heads": 2, "pretrain_tokens": 1000},
        "score": {"epochs": 1, "max_steps": 2},
        "query": {"max_steps": 80, "rate": 1e-2},
    },
    "refine": {"documents": 8},
    "synthesize": {"max_new_tokens": 16},
}


def _save_base(folder: Path) -> Path:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    tokenizer = byte_tokenizer().backend_tokenizer
    weights = np.random.default_rng(0).normal(size=(tokenizer.get_vocab_size(), 8))
    module = StaticEmbedding(tokenizer, embedding_weights=weights.astype(np.float32))
    SentenceTransformer(modules=[module], device="cpu").save_pretrained(str(folder))
    return folder


def _save_backbone(folder: Path) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(**sizes(hidden_size=32, max_position_embeddings=512)))
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write(simulate(120, 0), folder)
    _save_base(folder / "base")
    return folder


def _settings(world: Path, methods: Sequence[str], **changes: Any) -> CompareSettings:
    tree = {
        **{name: [str(world / f"{name}.arrow")] for name in ("corpus", "judgments", "pairs")},
        "base": str(world / "base"),
        "methods": list(methods),
        "documents": 40,
        "pairs_seen": 64,
        "min_list": 2,
        "resamples": 50,
        "settings": _SETTINGS,
        "embedder": {"batch_rows": 16, "log_steps": 1, "checkpoint_steps": 100},
        **changes,
    }
    return CompareSettings.model_validate(tree)


def _folders(output: Path) -> dict[str, set[str]]:
    return {
        name: {path.name for path in (output / name).iterdir() if "." not in path.name}
        for name in ("engines", "runs", "models", "vectors")
    }


def _kept(run: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in (run / "synthetic").glob("*.parquet")])


@pytest.mark.slow
def test_methods_share_what_they_can_and_nothing_is_made_twice(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "compare"
    first = compare_methods(_settings(world, ["judgments", "vanilla", "ssra"]), output)
    made = _folders(output)
    assert [len(made[name]) for name in made] == [2, 2, 3, 3]
    mismatched = [
        np.count_nonzero(table["grade"].to_numpy() != table["target"].to_numpy())
        for table in (_kept(output / "runs" / run) for run in sorted(made["runs"]))
    ]
    assert min(mismatched) == 0 < max(mismatched), "only SSRA filters by score"
    cards = {name: of["score_model"] for name, of in first["methods"].items()}
    assert cards["judgments"] == cards["vanilla"] == [None], "no score model decides there"
    assert cards["ssra"][0]["rows"] > 0
    more = compare_methods(
        _settings(world, ["judgments", "vanilla", "ssra", "ssra-binary"]), output
    )
    after = _folders(output)
    assert [len(after[n]) - len(made[n]) for n in made] == [0, 0, 1, 1]
    for name in first["methods"]:
        for part in ("data", "ranking", "pooled"):
            assert more["methods"][name][part] == first["methods"][name][part]
    monkeypatch.setattr(pipeline, "embed", None)
    again = compare_methods(_settings(world, ["judgments", "vanilla", "ssra"]), output)
    path = tmp_path / "c.yaml"
    path.write_text(
        yaml.safe_dump(_settings(world, ["judgments", "vanilla", "ssra"]).model_dump(mode="json"))
    )
    told = CliRunner().invoke(main, ["compare", "--config", str(path), "--output", str(output)])
    assert told.exit_code == 0, told.output
    parts = ("judgments only", "vanilla SFT", "SSRA minus it", "ap_mean", "p=", "simulation")
    for part in (*parts, f"on {cards['ssra'][0]['rows']} held-out judgments"):
        assert part in told.stdout
    assert (
        again == json.loads((output / "report.json").read_text()) == json.loads(json.dumps(first))
    )


class _Begun(NoProgress):
    """The steps that were begun."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    def begin(self, name: str, documents: int, done: int) -> None:
        self.steps.append(name)


@pytest.mark.slow
def test_methods_with_and_without_pairs_share_the_score_model_of_a_backbone(
    world: Path, tmp_path: Path
) -> None:
    settings = {
        "model": {
            "backbone": str(_save_backbone(tmp_path / "backbone")),
            "prompts": "plain",
            "max_document_tokens": 48,
            "lora": {"rank": 2},
            "score": {"max_steps": 2},
            "query": {"max_steps": 2},
        },
        "synthesize": {"max_new_tokens": 4},
    }
    methods = ["prompt", "vanilla", "ssra-without-stage-2"]
    begun = _Begun()
    changes = {"settings": settings, "documents": 4}
    report = compare_methods(_settings(world, methods, **changes), tmp_path / "out", begun)
    assert list(report["methods"]) == methods
    assert (
        begun.steps.count("train the score model") == begun.steps.count("keep the score model") == 1
    )
    cards = [
        json.loads((tmp_path / "out/engines" / name / "manifest.json").read_text())["figures"]
        for name in _folders(tmp_path / "out")["engines"]
    ]
    assert len(cards) == 2
    assert cards[0]["score"] == cards[1]["score"]
    assert sorted(any(card["d2q"]["score"]) for card in cards) == [False, True]


def test_what_each_method_changes() -> None:
    config = load_config(overrides={"refine.rounds": 2, "filter.comparator": "score"})
    changed = {name: adapted(config, method, 7) for name, method in METHODS.items()}
    assert all(one.seed == 7 and one.synthesize.attempts == 1 for one in changed.values())
    assert {name for name, one in changed.items() if one.refine.rounds} == {
        "ssra-without-stage-1", "ssra", "ssra-binary"
    }  # fmt: skip
    for name, one in changed.items():
        unfiltered = not one.filter.scored and one.filter.comparator == "none"
        assert unfiltered == (one.refine.rounds == 0)
        popular = one.annotate.max_documents_per_query == config.annotate.max_documents_per_query
        assert popular == METHODS[name].reannotate


def _random_figures(seed: int, strength: float) -> tuple[Any, Figures]:
    random = np.random.default_rng(0)
    query = np.repeat(np.arange(12), 10)
    grade = random.integers(0, 4, 120)
    ids = pa.array([f"d{n}" for n in range(120)])
    pairs = judged_pairs(query, np.arange(120), grade, ids, 0)
    noise = np.random.default_rng(seed).normal(size=120)
    documents = (strength * grade + noise).astype(np.float32)[:, None]
    return pairs, measure(pairs, np.ones((12, 1), np.float32), documents, Settings(resamples=0))


def test_seeds_are_averaged_and_the_reference_is_tested_against_each() -> None:
    pairs, strong = _random_figures(1, 1.0)
    strong_too, weak = _random_figures(2, 1.0)[1], _random_figures(3, 0.1)[1]
    figures = {"judgments": [weak], "ssra": [strong, strong_too]}
    report = compare_figures(figures, pairs, Settings(resamples=60))
    name = "ndcg_exp@10"
    both = np.nanmean((strong.per_query[name] + strong_too.per_query[name]) / 2)
    assert report["ssra"]["ranking"][name]["value"] == pytest.approx(both)
    difference = report["judgments"]["ranking_difference"][name]
    assert difference["value"] == pytest.approx(both - np.nanmean(weak.per_query[name]))
    assert 0 < difference["low"] < difference["value"] < difference["high"]
    assert difference["p"] < 0.01
    ap = [report[method]["pooled"]["ap_mean"]["value"] for method in ("ssra", "judgments")]
    told = report["judgments"]["pooled_difference"]["ap_mean"]
    assert told["value"] == pytest.approx(ap[0] - ap[1])
    assert told["low"] > 0
    assert "ranking_difference" not in report["ssra"]
    assert reference_of(["judgments", "vanilla"]) == "vanilla"


def test_mistakes_in_the_file(world: Path, tmp_path: Path) -> None:
    good = _settings(world, ["judgments"]).model_dump(mode="json")
    path = tmp_path / "c.yaml"
    for changes, message in [
        ({"methods": ["magic"]}, "methods: choose among judgments, prompt"),
        ({"seed": 3}, "seed: "),
        ({"settings": {"refine": {"rounds": -1}}}, "refine.rounds"),
        ({"embedder": {"speed": 3}}, "embedder: no such setting"),
        ({"embedder": {"rate": 0}}, "rate must be above 0"),
        ({"embedder": {"rate": "5e-5"}}, "embedder: no such setting, or a wrong value"),
        ({"embedder": {"dims": 128}}, "embedder: no such setting, or a wrong value"),
    ]:
        path.write_text(yaml.safe_dump({**good, **changes}))
        with pytest.raises(ConfigError, match=message):
            read_settings(path)
    path.write_text(yaml.safe_dump({**good, "methods": ["prompt"]}))
    result = CliRunner().invoke(main, ["compare", "--config", str(path), "--output", str(tmp_path)])
    assert result.exit_code == 2
    assert "prompt synthesis needs a language model" in result.stderr
