from __future__ import annotations

import json
import subprocess
import sys

import pytest

from ssra_engine.doctor import diagnose, diagnosis_text
from ssra_engine.engines.backends import BACKENDS


def test_this_machine() -> None:
    report = diagnose()
    assert json.loads(json.dumps(report)) == report
    assert [engine["name"] for engine in report["engines"]] == list(BACKENDS)
    ready = {engine["name"]: engine["ready"] for engine in report["engines"]}
    assert ready["torch"]
    assert ready["fake"]
    assert report["packages"]["torch"]
    assert report["cpu"]["cores"] >= 1
    assert "portable" in report["kernels"]["isas"]
    text = diagnosis_text(report)
    assert all(engine["detail"] in text for engine in report["engines"])
    assert report["packages"]["torch"] in text


def test_a_machine_that_lacks_things(monkeypatch: pytest.MonkeyPatch) -> None:
    """No packages, no kernels, no /proc."""
    monkeypatch.setattr("ssra_engine.engines.backends.find_spec", lambda name: None)
    monkeypatch.setattr("ssra_engine.doctor._version", lambda name: None)
    monkeypatch.setattr("ssra_engine.doctor._proc_table", lambda path: {})
    monkeypatch.setitem(sys.modules, "ssra_engine._core", None)
    report = diagnose()
    engines = {engine["name"]: engine for engine in report["engines"]}
    torch = engines["torch"]
    assert [name for name, engine in engines.items() if engine["ready"]] == ["fake"]
    assert torch["detail"] == "needs torch, transformers: pip install 'ssra-engine'"
    assert "lacks vllm" in engines["vllm"]["detail"]
    assert "CUDA 13.1" in engines["tensorrt_llm"]["detail"]
    assert report["cpu"]["features"] == report["kernels"]["isas"] == report["gpus"] == []
    text = diagnosis_text(report)
    assert "not installed" in text
    assert "not built" in text
    assert "features unknown" in text


def test_the_interpreter_of_a_worker() -> None:
    report = diagnose({"vllm": sys.executable})
    vllm = next(engine for engine in report["engines"] if engine["name"] == "vllm")
    assert f"{sys.executable} (Python " in vllm["detail"]


def test_importing_the_engines_imports_no_model_library() -> None:
    code = (
        "import sys, ssra_engine.engines, ssra_engine.doctor; "
        "print([m for m in ('torch', 'transformers', 'tokenizers') if m in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert found.strip() == "[]"
