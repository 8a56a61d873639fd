"""The CUDA kernels on the host: the module _cuda again, over emulated blocks of threads."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pybind11
import pytest

from ssra_engine.kernels import cuda

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"
UNITS = [HERE / "emulation.cpp", HERE / "emulated_module.cpp", CSRC / "bindings/register_cuda.cpp"]
READ = [
    *UNITS,
    *HERE.glob("*.h"),
    *CSRC.glob("cuda/*.h"),
    CSRC / "bindings/register.h",
    CSRC / "support/check.h",
]


@pytest.fixture(scope="session")
def emulated_module(pytestconfig: pytest.Config) -> Any:
    """The module, compiled anew where any file it is made of has changed."""
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        pytest.skip("no C++ compiler")
    command = [compiler, "-std=c++20", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    command += ["-fvisibility=hidden", f"-I{CSRC}", f"-I{HERE}"]
    command += [f"-I{pybind11.get_include()}", f"-I{sysconfig.get_path('include')}"]
    command += map(str, UNITS)
    made_from = [*command, pybind11.__version__, *(path.read_text() for path in sorted(READ))]
    key = hashlib.sha256("\0".join(made_from).encode()).hexdigest()[:16]
    assert pytestconfig.cache is not None
    library = pytestconfig.cache.mkdir("cuda_emulation") / f"{key}.so"
    if not library.exists():
        partial = library.with_suffix(f".{os.getpid()}")
        subprocess.run([*command, "-o", str(partial)], check=True)
        partial.rename(library)
    spec = importlib.util.spec_from_file_location("_cuda_emulated", library)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def emulated(emulated_module: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Whoever asks for the CUDA extension gets the emulated one, for tensors on the CPU."""
    monkeypatch.setattr(cuda, "_found", lambda: emulated_module)
    emulated_module.take_barriers()
    yield emulated_module
    emulated_module.set_order(0)
    emulated_module.skip_barrier("")
