"""Our calls of TensorRT-LLM and vLLM against their sources, which are parsed and not imported.

The sources are those of an interpreter (SSRA_TRT_PYTHON, SSRA_VLLM_PYTHON) or a folder that holds
the package (SSRA_TRT_SOURCES, SSRA_VLLM_SOURCES). Without them there is nothing to compare with.
"""

from __future__ import annotations

import ast
import os
import subprocess
from pathlib import Path

import pytest

from ssra_engine.engines.workers import serve

WORKERS = Path(serve.__file__).parent


def _sources(package: str, short: str) -> Path:
    folder = os.environ.get(f"SSRA_{short}_SOURCES")
    python = os.environ.get(f"SSRA_{short}_PYTHON")
    if folder is None and python is not None:
        code = f"import importlib.util as u; print(u.find_spec('{package}').origin)"
        told = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
        return Path(told.stdout.strip()).parent
    if folder is None:
        pytest.skip(f"no {package} here: set SSRA_{short}_PYTHON or SSRA_{short}_SOURCES")
    return Path(folder) / package


def _calls(worker: str) -> dict[str, set[str]]:
    """Names of the keyword arguments that a worker's file passes, by the last name called."""
    tree = ast.parse((WORKERS / worker).read_text(encoding="utf-8"))
    constants = {
        target.id: [ast.literal_eval(key) for key in node.value.keys if key is not None]
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    calls: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.keywords:
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            names = calls.setdefault(name, set())
            for keyword in node.keywords:
                if keyword.arg is not None:
                    names.add(keyword.arg)
                elif isinstance(keyword.value, ast.Name):
                    names.update(constants[keyword.value.id])
    return calls


def _fields(file: Path, *classes: str) -> set[str]:
    """Annotated names of classes, those that they are derived from in that file included."""
    defined = {
        node.name: node
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    }
    names: set[str] = set()
    waiting = list(classes)
    while waiting:
        node = defined.get(waiting.pop())
        if node is None:
            continue
        waiting += [base.id for base in node.bases if isinstance(base, ast.Name)]
        names |= {
            item.target.id
            for item in node.body
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
        }
    return names


def _arguments(file: Path, owner: str, function: str) -> set[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef) and node.name == owner:
            for item in node.body:
                if isinstance(item, ast.FunctionDef) and item.name == function:
                    return {a.arg for a in (*item.args.args, *item.args.kwonlyargs)}
    return set()


def test_tensorrt_llm() -> None:
    sources = _sources("tensorrt_llm", "TRT")
    calls = _calls("tensorrt_llm_worker.py")
    options = sources / "llmapi" / "llm_args.py"
    assert calls["LLM"] <= _fields(options, "TorchLlmArgs")
    assert calls["KvCacheConfig"] <= _fields(options, "KvCacheConfig")
    assert calls["_params"] <= _fields(sources / "sampling_params.py", "SamplingParams")
    assert calls["generate"] <= _arguments(sources / "llmapi" / "llm.py", "BaseLLM", "generate")
    answer = _fields(sources / "executor" / "result.py", "CompletionOutput")
    assert {"token_ids", "logprobs", "generation_logits"} <= answer


def test_vllm() -> None:
    sources = _sources("vllm", "VLLM")
    calls = _calls("vllm_worker.py")
    llm = sources / "entrypoints" / "llm.py"
    engine = _fields(sources / "engine" / "arg_utils.py", "EngineArgs")
    assert calls["LLM"] <= _arguments(llm, "LLM", "__init__") | engine
    assert calls["_params"] <= _fields(sources / "sampling_params.py", "SamplingParams")
    assert calls["generate"] <= _arguments(llm, "LLM", "generate")
    assert {"token_ids", "logprobs"} <= _fields(sources / "outputs.py", "CompletionOutput")
    assert "logprob" in _fields(sources / "logprobs.py", "Logprob")


def test_the_calls_are_found() -> None:
    """What the comparisons above compare."""
    trt, vllm = _calls("tensorrt_llm_worker.py"), _calls("vllm_worker.py")
    assert {"model", "kv_cache_config", "gather_generation_logits"} <= trt["LLM"]
    assert {"enable_block_reuse", "free_gpu_memory_fraction"} == trt["KvCacheConfig"]
    assert {"max_tokens", "return_generation_logits", "end_id", "pad_id"} <= trt["_params"]
    assert {"model", "enable_prefix_caching"} <= vllm["LLM"]
    assert {"logprob_token_ids", "stop_token_ids", "seed"} <= vllm["_params"]
    assert vllm["generate"] == {"sampling_params", "use_tqdm"}
