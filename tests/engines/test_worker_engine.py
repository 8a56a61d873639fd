"""The torch engine behind the worker protocol: the same answers, and through kills and hangs."""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch_worker_engine import TorchWorkerEngine

from ssra_engine.config import load_config
from ssra_engine.engine_folder import engine_options
from ssra_engine.engines import Engine, Request, load_engine
from ssra_engine.engines.workers import serve
from ssra_engine.errors import EngineError

DOCUMENTS = ["T:fox\n", "T:a short video about cooking noodles\nX:with garlic 小猫 at home\n", ""]
REQUESTS = [Request(d, s) for d in DOCUMENTS for s in ("Q:fox\nG:", "Q:noodles at home\nG:", "Q")]
LABELS = ["0", "1", "2", "3"]


@pytest.fixture(scope="module")
def worker(llama_folder: Path) -> Iterator[TorchWorkerEngine]:
    engine = TorchWorkerEngine(llama_folder, dtype="float32", batch_seconds=5.0)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def torch_engine(llama_folder: Path) -> Engine:
    return load_engine(llama_folder, dtype="float32")


def _draw(engine: Engine, **more: Any) -> Any:
    settings: dict[str, Any] = {"n": 3, "max_new_tokens": 12, "seed": 3, "top_p": 0.9, **more}
    rows = engine.generate(REQUESTS, **settings)
    return [[(c.text, c.token_ids, c.finish_reason) for c in row] for row in rows]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0.0},
        {"temperature": 0.7, "stop": ["e", "o", "t "]},
        {"stop": ["e", "i", "n "], "min_new_tokens": 6},
    ],
    ids=["sampled", "greedy", "stop strings", "minimal length"],
)
def test_the_same_completions(
    worker: TorchWorkerEngine, torch_engine: Engine, settings: dict[str, Any]
) -> None:
    found = worker.generate(REQUESTS, n=2, max_new_tokens=12, seed=5, **settings)
    expected = torch_engine.generate(REQUESTS, n=2, max_new_tokens=12, seed=5, **settings)
    for row, other in zip(found, expected, strict=True):
        for completion, wanted in zip(row, other, strict=True):
            assert completion.token_ids == wanted.token_ids
            assert completion.text == wanted.text
            assert completion.finish_reason == wanted.finish_reason
            assert completion.logprob == pytest.approx(wanted.logprob, abs=1e-3)
    reasons = {completion.finish_reason for row in expected for completion in row}
    assert "stop" not in settings or reasons == {"stop", "length"}


def test_the_same_scores(worker: TorchWorkerEngine, torch_engine: Engine) -> None:
    found, expected = (e.label_logits(REQUESTS, LABELS) for e in (worker, torch_engine))
    assert np.abs(found - expected).max() < 1e-4


@pytest.mark.parametrize("with_signal", [signal.SIGKILL, signal.SIGSTOP])
def test_a_killed_or_stopped_worker_changes_nothing(
    worker: TorchWorkerEngine, torch_engine: Engine, with_signal: signal.Signals
) -> None:
    drawn, started = _draw(worker), worker._process.started
    pid = worker._process.pid
    assert pid is not None
    os.kill(pid, with_signal)
    assert _draw(worker) == drawn == _draw(torch_engine)
    assert worker._process.started == started + 1


def test_many_messages(
    worker: TorchWorkerEngine, torch_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssra_engine.engines.worker_engine._MESSAGE_PROMPTS", 4)
    assert _draw(worker) == _draw(torch_engine)
    scores = worker.label_logits(REQUESTS[::-1], LABELS)[::-1]
    assert np.abs(scores - torch_engine.label_logits(REQUESTS, LABELS)).max() < 1e-4


def test_counts_and_limits(worker: TorchWorkerEngine, torch_engine: Engine) -> None:
    before = (worker.stats.prompt_tokens, worker.stats.shared_tokens)
    torch_before = (torch_engine.stats.prompt_tokens, torch_engine.stats.shared_tokens)
    for engine in (worker, torch_engine):
        engine.label_logits(REQUESTS, LABELS)
    assert (
        worker.stats.prompt_tokens - before[0] == torch_engine.stats.prompt_tokens - torch_before[0]
    )
    assert (
        worker.stats.shared_tokens - before[1] == torch_engine.stats.shared_tokens - torch_before[1]
    )
    assert "0.1 million parameters" in worker.stats.notes[1]
    assert "at most 192 tokens, a prompt to be scored at most 192." in worker.limits()[0]


def test_room_for_the_token_that_scoring_draws(
    worker: TorchWorkerEngine, torch_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the model's own limit a prompt loses one token more."""
    monkeypatch.setattr(worker, "_scoring_reserve", 1)
    found = worker.label_logits([Request(list(range(3, 303)), [5, 6])], LABELS)
    expected = torch_engine.label_logits([Request(list(range(3, 192)), [5, 6])], LABELS)
    assert np.abs(found - expected).max() < 1e-4
    monkeypatch.undo()
    found = worker.label_logits([Request(list(range(3, 303)), [5, 6])], LABELS)
    assert np.abs(found - expected).max() > 1e-3


def test_bad_options(llama_folder: Path, tmp_path: Path) -> None:
    for options, message in (
        ({"dtype": "int3"}, "dtype must be auto, float32 or bfloat16"),
        ({"batch_tokens": 0}, "batch_tokens must be at least 1"),
        ({"python": tmp_path / "python"}, "python: cannot be run: No such file or directory"),
    ):
        with pytest.raises(EngineError, match=message):
            TorchWorkerEngine(llama_folder, **options)  # type: ignore[arg-type]
    with pytest.raises(EngineError, match=r"config\.json is missing"):
        TorchWorkerEngine(tmp_path)


@pytest.mark.parametrize("backend", ["tensorrt_llm", "tensorrt-llm", "vllm"])
def test_a_missing_engine_says_what_to_install(llama_folder: Path, backend: str) -> None:
    package = backend.replace("-", "_")
    extra = {"tensorrt_llm": "Python 3.10 or 3.12, CUDA 13.1", "vllm": "CUDA 12.9 or newer"}
    with pytest.raises(EngineError) as told:
        load_engine(llama_folder, backend)
    assert f"the {package} backend cannot run: this interpreter lacks {package}" in str(told.value)
    assert extra[package] in str(told.value)
    with pytest.raises(EngineError, match=rf"\(Python 3[.\d]+\) lacks {package}"):
        load_engine(llama_folder, backend, python=sys.executable)
    with pytest.raises(EngineError, match=r"nowhere/python cannot be run \(No such file"):
        load_engine(llama_folder, backend, python="nowhere/python")


def test_settings_of_a_worker() -> None:
    engine = {"engine.backend": "tensorrt-llm", "engine.python": "other/python"}
    config = load_config(None, engine)
    options = engine_options(config, config.engine.backend)
    assert options["backend"] == "tensorrt_llm"
    assert options["python"] == "other/python"
    assert "python" not in engine_options(config, "torch")
    taken = inspect.signature(TorchWorkerEngine).parameters
    assert set(options) - {"backend"} <= set(taken)


def test_workers_of_other_engines_import_nothing_of_ours() -> None:
    """And no engine before it is asked for: TensorRT-LLM needs a driver to be imported."""
    code = (
        f"import sys; sys.path.insert(0, {str(Path(serve.__file__).parent)!r});"
        "import serve, vllm_worker, tensorrt_llm_worker;"
        "ours = ('ssra', 'torch', 'vllm.', 'tensorrt_llm.');"
        "print([name for name in sys.modules if name.startswith(ours)])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
