"""Inference engines: `load_engine` opens a model folder with one of the backends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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

#: Names that `load_engine` takes beside auto.
BACKENDS = ("torch", "fake")


def load_engine(folder: str | Path | None, backend: str = "auto", **options: Any) -> Engine:
    """Open a model with a backend; only that backend's packages are imported.

    Args:
        folder: model folder or GGUF file; the fake backend needs none.
        backend: one of `BACKENDS`; auto takes the fastest that is always there, torch.
        **options: of the backend, such as ``dtype`` and ``batch_tokens`` (`TorchEngine`).

    Raises:
        EngineError: there is no such backend, it does not take an option, or it cannot open the
            model.
    """
    name = "torch" if backend == "auto" else backend
    if name not in BACKENDS:
        raise EngineError(f"no engine backend '{backend}'; choose auto, {' or '.join(BACKENDS)}.")
    if name == "fake":
        from ssra_engine.engines.fake import FakeEngine

        return _open(FakeEngine, name, options)
    if folder is None:
        raise EngineError(f"the {name} backend needs a model folder.")
    from ssra_engine.engines.torch_engine import TorchEngine

    return _open(TorchEngine, name, options, folder)


def _open(engine: type[Engine], name: str, options: dict[str, Any], *folder: str | Path) -> Engine:
    import inspect

    known = set(inspect.signature(engine).parameters)
    for option in options:
        if option not in known:
            raise EngineError(f"the {name} backend has no option '{option}'.")
    return engine(*folder, **options)
