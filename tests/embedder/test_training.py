"""Embedders trained from files to a folder: of every kind of base, and after kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from worlds import save_encoder, write_world

from ssra_engine.cli import main
from ssra_engine.embedder.base import add_lora, merge_lora, open_base, prompts_of
from ssra_engine.embedder.fit import fit
from ssra_engine.embedder.rows import TrainingRows, read_training_rows
from ssra_engine.embedder.settings import TrainSettings
from ssra_engine.errors import ConfigError, EngineError

pytestmark = pytest.mark.slow

FEW = ("--batch-size", "12", "--log-steps", "1", "--checkpoint-steps", "4", "--rate", "1e-3")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_encoder(tmp_path_factory.mktemp("models") / "encoder")


@pytest.fixture(scope="module")
def trained(
    world: tuple[Path, Path], encoder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The encoder after two epochs, never interrupted."""
    output = tmp_path_factory.mktemp("whole") / "model"
    result = invoke(arguments(world, encoder, output))
    assert result.exit_code == 0, result.output
    assert "ndcg_exp@10" in result.output
    return output


def arguments(world: tuple[Path, Path], base: Path, output: Path, *more: str) -> list[str]:
    paths = {"--corpus": world[0], "--judgments": world[1], "--base": base, "--output": output}
    told = [str(part) for pair in paths.items() for part in pair]
    return ["train", *told, *FEW, "--epochs", "2", "--dims", "16,64", *more]


def invoke(told: list[str]) -> Any:
    return CliRunner().invoke(main, told)


def record_of(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / "training.json").read_text())
    return record


def vectors(folder: Path) -> np.ndarray:
    """As a user of sentence-transformers gets them, who knows nothing of this project."""
    from sentence_transformers import SentenceTransformer

    found: np.ndarray = SentenceTransformer(str(folder), local_files_only=True).encode(
        ["tram in sea", "a film about fox\nin river"]
    )
    return found


def test_the_output_is_a_model_with_its_card_and_record(trained: Path) -> None:
    assert vectors(trained).shape == (2, 64)
    record = record_of(trained)
    assert sum(record["data"]["judgments"].values()) > 150
    steps = [entry["step"] for entry in record["curve"]]
    assert steps == list(range(1, record["steps"] + 1))
    losses = [entry["loss"] for entry in record["curve"]]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    results = record["results"]
    assert results["queries"] == 6
    assert results["trained"]["dim64_ap_mean"] > results["base"]["dim64_ap_mean"]
    card = (trained / "README.md").read_text()
    for shown in (
        "library_name: sentence-transformers",
        "| dim64_ndcg_exp@10 |",
        "| rate | 0.001 |",
    ):
        assert shown in card
    assert not trained.with_name("model.training").exists()


def test_the_same_again_does_nothing_and_another_is_refused(
    world: tuple[Path, Path], encoder: Path, trained: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    again = invoke(arguments(world, encoder, trained, "--report-to", "none"))
    assert again.exit_code == 0, again.output
    assert "nothing was done" in again.output
    other = invoke(arguments(world, encoder, trained, "--seed", "1"))
    assert other.exit_code == 2
    assert "made from something else: settings.seed: 0 -> 1. Give another --output" in other.output
    assert before == {path: path.stat().st_mtime_ns for path in trained.rglob("*")}


def test_a_folder_of_something_else_is_refused(
    world: tuple[Path, Path], encoder: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    result = invoke(arguments(world, encoder, tmp_path))
    assert result.exit_code == 2
    assert "not empty and not a model of this command" in result.output


def test_a_report_that_cannot_be_made_is_told_before_anything_is_done(
    world: tuple[Path, Path], encoder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "model"
    result = invoke(arguments(world, encoder, output, "--report-to", "paper"))
    assert result.exit_code == 2
    assert "--report-to paper: paper is not supported, only" in result.output
    if find_spec("tensorboard") is None and find_spec("tensorboardX") is None:
        result = invoke(arguments(world, encoder, output, "--report-to", "tensorboard"))
        assert result.exit_code == 2
        assert "requires tensorboard to be installed" in result.output
        return
    result = invoke(arguments(world, encoder, output, "--report-to", "tensorboard"))
    assert result.exit_code == 0, result.output
    assert list(output.glob("runs/*/events.*"))


_KILLED = """
import os, signal, sys
from ssra_engine.cli import main
from ssra_engine.embedder import checkpoints, fit, model_folder

when, step = sys.argv.pop(1), int(sys.argv.pop(1))
if when == "between":
    told = fit._Watching.on_step_end
    def kill(self, args, state, control, **more):
        if state.global_step == step:
            os.kill(os.getpid(), signal.SIGKILL)
        told(self, args, state, control, **more)
    fit._Watching.on_step_end = kill
elif when == "at the end":
    model_folder.put_folder = lambda path, fill: os.kill(os.getpid(), signal.SIGKILL)
else:
    told = checkpoints.put_file
    def kill(path, data):
        if path.parent.name == f"checkpoint-{step}":
            os.kill(os.getpid(), signal.SIGKILL)
        told(path, data)
    checkpoints.put_file = kill
main()
"""


@pytest.mark.parametrize(
    ("when", "step"), [("between", 22), ("while writing", 12), ("at the end", 0)]
)
def test_a_killed_training_goes_on_as_if_nothing_had_been(
    world: tuple[Path, Path],
    encoder: Path,
    trained: Path,
    tmp_path: Path,
    when: str,
    step: int,
) -> None:
    output, whole = tmp_path / "model", record_of(trained)
    told = arguments(world, encoder, output)
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED, when, str(step), *told],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not output.exists()
    left = {path.name for path in (tmp_path / "model.training/checkpoints").iterdir()}
    last = whole["steps"] if when == "at the end" else step // 4 * 4
    assert left == {f"checkpoint-{last}", f"checkpoint-{(last - 1) // 4 * 4}"}

    other = invoke([*told, "--rate", "2e-3"])
    assert other.exit_code == 2
    assert "settings.rate: 0.001 -> 0.002" in other.output

    result = invoke(told)
    assert result.exit_code == 0, result.output
    resumed = record_of(output)
    assert resumed["steps"] == whole["steps"] > step
    for name in ("loss", "grad_norm", "learning_rate"):
        ours, theirs = ([entry[name] for entry in one["curve"]] for one in (resumed, whole))
        assert ours == pytest.approx(theirs, rel=1e-4)
    assert resumed["temperature"] == pytest.approx(whole["temperature"], rel=1e-6)
    assert whole["temperature"] != pytest.approx(0.03, rel=1e-6)
    np.testing.assert_allclose(vectors(output), vectors(trained), rtol=1e-4, atol=1e-5)
    assert not (tmp_path / "model.training").exists()


def test_a_causal_lm_is_trained_with_a_lora_that_is_merged(
    world: tuple[Path, Path], llama_folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "model"
    more = ("--lora", "4", "--query-prompt", "find: ", "--cached", "5", "--epochs", "1")
    more = (*more, "--judged-negatives", "1")
    result = invoke(arguments(world, llama_folder, output, *more))
    assert result.exit_code == 0, result.output
    assert record_of(output)["data"]["negatives"]["judged"] > 0
    modules = json.loads((output / "1_Pooling/config.json").read_text())
    assert modules["pooling_mode"] == "lasttoken"
    assert json.loads((output / "tokenizer_config.json").read_text())["padding_side"] == "left"
    assert json.loads((output / "config_sentence_transformers.json").read_text())["prompts"][
        "query"
    ].startswith("find: ")
    assert not list(output.rglob("adapter*"))
    results = record_of(output)["results"]
    assert results["trained"] != results["base"]

    # What it made is a base again, with a pooling of its own.
    again = arguments(world, output, tmp_path / "again", "--epochs", "0.2", "--binary-labels")
    result = invoke(again)
    assert result.exit_code == 0, result.output
    refused = invoke([*again[:-1], "--pooling", "mean", "--output", str(tmp_path / "third")])
    assert "the model has pooling of its own" in refused.output


@pytest.fixture(scope="module")
def rows(world: tuple[Path, Path]) -> TrainingRows:
    from ssra_engine.corpus import open_corpus

    documents = open_corpus([world[0]]).table()
    return read_training_rows(documents, [world[1]], (0, 1, 2, 3), TrainSettings())


def losses(base: Path, rows: TrainingRows, folder: Path, **more: Any) -> list[float]:
    settings = TrainSettings(
        **{"epochs": 0.5, "batch_rows": 12, "log_steps": 1, "checkpoint_steps": 100, **more}
    )
    model = open_base(base, settings)
    return [entry["loss"] for entry in fit(model, rows.dataset, settings, folder).curve]


def test_ways_to_save_memory_change_no_loss(
    encoder: Path, rows: TrainingRows, tmp_path: Path
) -> None:
    calm = save_encoder(
        tmp_path / "calm", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    plain = losses(calm, rows, tmp_path / "a")
    assert len(plain) > 5
    ways: tuple[dict[str, Any], ...] = (
        {"gradient_checkpointing": True},
        {"mini_batch_rows": 5},
        {"gradient_checkpointing": True, "mini_batch_rows": 5, "bf16": True},
    )
    for number, way in enumerate(ways):
        found = losses(calm, rows, tmp_path / str(number), **way)
        assert found == pytest.approx(plain, rel=0.03 if "bf16" in way else 1e-4), way
        if "bf16" in way:
            assert found != pytest.approx(plain, rel=1e-6)


def test_a_lora_goes_on_from_its_checkpoint(
    llama_folder: Path, rows: TrainingRows, tmp_path: Path
) -> None:
    settings = TrainSettings(
        lora_rank=4, epochs=0.5, batch_rows=12, rate=1e-3, log_steps=1, checkpoint_steps=3
    )

    class Stop(Exception):  # noqa: N818
        pass

    def stop(done: int, _steps: int) -> None:
        if done == 5:
            raise Stop

    def train(folder: Path, watch: Any = None) -> list[float]:
        model = open_base(llama_folder, settings)
        return [one["loss"] for one in fit(model, rows.dataset, settings, folder, watch).curve]

    with pytest.raises(Stop):
        train(tmp_path / "stopped", stop)
    assert train(tmp_path / "stopped") == pytest.approx(train(tmp_path / "whole"), rel=1e-4)


def test_a_fixed_temperature_stays(encoder: Path, rows: TrainingRows, tmp_path: Path) -> None:
    settings = TrainSettings(epochs=0.1, batch_rows=12, learn_temperature=False, temperature=0.07)
    fitted = fit(open_base(encoder, settings), rows.dataset, settings, tmp_path)
    assert fitted.temperature == pytest.approx(0.07)


def test_a_merged_lora_gives_the_same_vectors(llama_folder: Path, tmp_path: Path) -> None:
    settings = TrainSettings(lora_rank=4)
    model = open_base(llama_folder, settings)
    plain = model.encode(["fox in sea"])
    torch.manual_seed(0)
    add_lora(model, settings)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.02)
            else:
                assert weight.requires_grad == ("lora_A" in name)
    adapted = model.eval().encode(["fox in sea"])
    merge_lora(model, llama_folder, settings, tmp_path / "adapter")
    assert not any("lora" in name for name, _ in model.named_parameters())
    np.testing.assert_allclose(model.encode(["fox in sea"]), adapted, rtol=1e-4, atol=1e-5)
    assert np.abs(adapted - plain).max() > 0.01


def test_prompts_are_those_that_encoding_uses(encoder: Path) -> None:
    told = TrainSettings(query_prompt="q: ")
    model = open_base(encoder, told)
    assert prompts_of(model) == {"query": "q: ", "document": ""}
    model.prompts = {"passage": "p: ", "corpus": "c: "}
    assert prompts_of(model) == {"query": "", "document": "p: "}
    np.testing.assert_allclose(
        model.encode_document(["fox"]), model.encode(["p: fox"]), rtol=1e-5, atol=1e-6
    )


def test_what_is_no_base_is_refused(encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="there is no such folder"):
        open_base(tmp_path / "nowhere", TrainSettings())
    with pytest.raises(EngineError, match="neither modules"):
        open_base(tmp_path, TrainSettings())
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(EngineError, match="the model cannot be opened"):
        open_base(tmp_path, TrainSettings())
    with pytest.raises(ConfigError, match=r"dims must lie within 1 and 64, got \[65\]"):
        open_base(encoder, TrainSettings(dims=(65,)))
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    for path in encoder.iterdir():
        if path.suffix != ".safetensors":
            (pickled / path.name).write_bytes(path.read_bytes())
    torch.save({}, pickled / "pytorch_model.bin")
    with pytest.raises(EngineError, match="the model cannot be opened"):
        open_base(pickled, TrainSettings())
    short = open_base(encoder, TrainSettings(max_tokens=24))
    assert short.max_seq_length == 24
