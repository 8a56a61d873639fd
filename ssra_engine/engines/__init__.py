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
    "load_engine",
]


def load_engine(folder: str | Path | None, backend: str = "auto", **options: Any) -> Engine:
    """Open a model with a backend; only that backend's packages are imported.

    Args:
        folder: model folder or GGUF file; the fake backend needs none.
        backend: one of `BACKENDS`; auto is torch.
        **options: of the backend, such as ``dtype`` and ``batch_tokens`` (`TorchEngine`).

    Raises:
        EngineError: there is no such backend, its packages are not installed, it does not take an
            option, or it cannot open the model.
    """
    name = "torch" if backend == "auto" else backend
    if name not in BACKENDS:
        raise EngineError(f"no engine backend '{name}'; choose auto, {' or '.join(BACKENDS)}.")
    problem = BACKENDS[name].problem()
    if problem is not None:
        raise EngineError(f"the {name} backend {problem}.")
    if BACKENDS[name].needs_folder and folder is None:
        raise EngineError(f"the {name} backend needs a model folder.")
    engine = _engine_class(name)
    known = inspect.signature(engine).parameters
    for option in options:
        if option not in known:
            raise EngineError(f"the {name} backend has no option '{option}'.")
    return engine(folder, **options) if BACKENDS[name].needs_folder else engine(**options)


def _engine_class(name: str) -> Callable[..., Engine]:
    if name == "fake":
        from ssra_engine.engines.fake import FakeEngine

        return FakeEngine
    from ssra_engine.engines.torch_engine import TorchEngine

    return TorchEngine
