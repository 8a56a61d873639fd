"""Inference engines: `load_engine` opens a model folder with one of the backends."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ssra_engine.engines.backends import BACKENDS
from ssra_engine.engines.engine import Completion, Engine, EngineStats, Request, Sampling
from ssra_engine.errors import EngineError

__all__ = [
    "BACKENDS",
    "Completion",
    "Engine",
    "EngineStats",
    "Request",
    "Sampling",
    "check_backend",
    "load_engine",
]


def load_engine(folder: str | Path | None, backend: str = "auto", **options: Any) -> Engine:
    """Open a model with a backend; only that backend's packages are imported.

    Args:
        folder: model folder or GGUF file; the fake backend needs none.
        backend: one of `BACKENDS`, with ``-`` or ``_``; auto is torch.
        **options: of the backend, such as ``dtype`` and ``batch_tokens`` (`TorchEngine`), or
            ``python``, the interpreter of a worker (`WorkerEngine`).

    Raises:
        EngineError: there is no such backend, its packages are not installed, it does not take an
            option, or it cannot open the model.
    """
    name = "torch" if backend == "auto" else backend.replace("-", "_")
    check_backend(name, options.get("python"))
    if BACKENDS[name].needs_folder and folder is None:
        raise EngineError(f"the {name} backend needs a model folder.")
    engine = _engine_class(name)
    known = inspect.signature(engine).parameters
    for option in options:
        if option not in known:
            raise EngineError(f"the {name} backend has no option '{option}'.")
    return engine(folder, **options) if BACKENDS[name].needs_folder else engine(**options)


def check_backend(name: str, python: str | Path | None = None) -> None:
    """Refuse a backend that does not exist or cannot run here.

    Args:
        name: of the backend.
        python: the interpreter of a worker, by default this one.

    Raises:
        EngineError: with what to install.
    """
    if name not in BACKENDS:
        raise EngineError(f"no engine backend '{name}'; choose auto, {' or '.join(BACKENDS)}.")
    problem = BACKENDS[name].problem(python)
    if problem is not None:
        raise EngineError(f"the {name} backend {problem}.")


def _engine_class(name: str) -> Callable[..., Engine]:
    if name == "fake":
        from ssra_engine.engines.fake import FakeEngine

        return FakeEngine
    if name == "openvino":
        from ssra_engine.engines.openvino_engine import OpenvinoEngine

        return OpenvinoEngine
    if name == "tensorrt_llm":
        from ssra_engine.engines.tensorrt_llm_engine import TensorRtLlmEngine

        return TensorRtLlmEngine
    if name == "vllm":
        from ssra_engine.engines.vllm_engine import VllmEngine

        return VllmEngine
    from ssra_engine.engines.torch_engine import TorchEngine

    return TorchEngine
