"""The CUDA extension: whether it is there, and how its kernels are launched on torch tensors.

Matrix products stay with cuBLAS, through torch; the kernels (csrc/cuda) do what surrounds them. See
`cuda_loss` and `cuda_mining`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ssra_engine import _cuda

__all__ = ["address", "computing_on", "extension", "is_built", "launch_on"]

#: Of a block.
THREADS = 256

_EXTENSION = "ssra_engine._cuda"


def is_built() -> bool:
    """Whether the extension is there. That it is does not mean that there is a GPU.

    Raises:
        ImportError: it is there and cannot be loaded.
    """
    return _found() is not None


def extension() -> Any:
    """The extension: what `_cuda.pyi` lists.

    Raises:
        ImportError: it is there and cannot be loaded.
        RuntimeError: it was not built.
    """
    kernels = _found()
    if kernels is None:
        raise RuntimeError(
            "the CUDA kernels are not built; with nvcc on the PATH: "
            "pip install --config-settings=cmake.define.SSRA_CUDA=ON ."
        )
    return kernels


@cache
def _found() -> Any:
    try:
        return import_module(_EXTENSION)
    except ModuleNotFoundError as error:
        if error.name != _EXTENSION:
            raise
        return None


def address(tensor: Tensor | None) -> int:
    """Where its values are, 0 for None."""
    return 0 if tensor is None else tensor.data_ptr()


def launch_on(tensor: Tensor) -> _cuda.Launch:
    """Launches on the GPU of a tensor, on the stream that torch uses there now.

    Raises:
        RuntimeError: the extension was not built.
    """
    kernels = extension()
    assert tensor.device.type == kernels.device_type
    device, stream = 0, 0
    if tensor.is_cuda:
        device = tensor.device.index
        stream = torch.cuda.current_stream(tensor.device).cuda_stream
    launch: _cuda.Launch = kernels.Launch(threads=THREADS, device=device, stream=stream)
    return launch


@contextmanager
def computing_on(device: torch.device) -> Iterator[None]:
    """Makes a device the current one, and float32 products exact: no TF32, no autocast."""
    settings = torch.backends.cuda.matmul
    # torch 2.8 and older have only the latter.
    name = "fp32_precision" if hasattr(settings, "fp32_precision") else "allow_tf32"
    before = getattr(settings, name)
    setattr(settings, name, "ieee" if name == "fp32_precision" else False)
    current = torch.cuda.device(device) if device.type == "cuda" else nullcontext()
    try:
        with current, torch.autocast(device.type, enabled=False):
            yield
    finally:
        setattr(settings, name, before)
