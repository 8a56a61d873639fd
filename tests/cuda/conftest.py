"""The CUDA kernels twice: built by nvcc, and for the host over emulated blocks of threads."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
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
def emulated_module(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Any:
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
    cache = getattr(pytestconfig, "cache", None)  # pytest can do without
    folder = cache.mkdir("cuda_emulation") if cache else tmp_path_factory.mktemp("emulation")
    library = folder / f"{key}.so"
    if not library.exists():
        partial = library.with_suffix(f".{os.getpid()}")
        subprocess.run([*command, "-o", str(partial)], check=True)
        partial.rename(library)
    return load("_cuda_emulated", library)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The extension as `SSRA_CUDA=ON` makes it, for one architecture."""
    cmake, nvcc = shutil.which("cmake", path=Path(sys.executable).parent), shutil.which("nvcc")
    if cmake is None or nvcc is None:
        pytest.skip("needs cmake and nvcc")
    folder = tmp_path_factory.mktemp("cuda")
    configure = [cmake, "-S", str(CSRC.parent), "-B", str(folder / "build"), "-DSSRA_CUDA=ON"]
    configure += [f"-DSSRA_CUDA_FOLDER={folder}", "-DCMAKE_CUDA_ARCHITECTURES=90"]
    configure += [f"-DPython_EXECUTABLE={sys.executable}"]
    configure += [f"-Dpybind11_DIR={pybind11.get_cmake_dir()}"]
    for command in (configure, [cmake, "--build", str(folder / "build"), "--target", "_cuda"]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    (library,) = folder.glob("_cuda*.so")
    return load("_cuda", library)


def load(name: str, library: Path) -> Any:
    spec = importlib.util.spec_from_file_location(name, library)
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
