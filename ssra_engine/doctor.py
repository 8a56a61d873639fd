"""What this machine can run: versions, CPU, kernels, and the engine backends."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ssra_engine import __version__
from ssra_engine.engines.backends import BACKENDS

__all__ = ["diagnose", "diagnosis_text"]

_PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "sentence-transformers",
    "gguf",
    "pyarrow",
    "numpy",
    "faiss-cpu",
)
#: Instruction sets that some part of this project uses, as the Linux kernel spells them.
_FEATURES = (
    "avx2",
    "fma",
    "avx_vnni",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "asimddp",
    "bf16",
    "sve",
)


def diagnose(pythons: Mapping[str, str | None] | None = None) -> dict[str, Any]:
    """Look at this machine.

    Args:
        pythons: interpreters of the backends that are worker processes, by name.

    Returns:
        ``version``, ``python``, ``platform``; ``packages``: version or None by name; ``cpu``: its
        name, cores, features and memory in GiB; ``kernels``: instruction sets of the compiled
        kernels that run here, best first, or why there are none; ``gpus``: their names;
        ``engines``: for each backend whether it is ready, what it is, and what is missing.
    """
    return {
        "version": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "cpu": _cpu(),
        "kernels": _kernels(),
        "gpus": _gpus(),
        "engines": [_engine(name, (pythons or {}).get(name)) for name in BACKENDS],
    }


def diagnosis_text(report: dict[str, Any]) -> str:
    """The report of `diagnose` for people."""
    cpu, kernels = report["cpu"], report["kernels"]
    memory = "" if cpu["memory_gib"] is None else f", {cpu['memory_gib']} GiB"
    lines = [
        f"ssra-engine {report['version']}, Python {report['python']}, {report['platform']}",
        f"cpu      {cpu['name']}, {cpu['cores']} cores{memory}",
        f"         {' '.join(cpu['features']) or 'features unknown'}",
        f"kernels  {kernels['problem'] or ', '.join(kernels['isas'])}",
        f"gpu      {', '.join(report['gpus']) or 'none that torch can use'}",
        "packages",
    ]
    width = max(map(len, report["packages"]))
    lines += [
        f"  {name:{width}}  {found or 'not installed'}"
        for name, found in report["packages"].items()
    ]
    lines.append("engines")
    for engine in report["engines"]:
        state = "ready" if engine["ready"] else "no"
        lines.append(f"  {engine['name']:{width}}  {state:5}  {engine['detail']}")
    return "\n".join(lines)


def _engine(name: str, python: str | None) -> dict[str, Any]:
    backend = BACKENDS[name]
    problem = backend.problem(python)
    detail = backend.summary if problem is None else problem
    if problem is None and name == "torch":
        detail += f"; {_torch_arithmetic()}"
    return {"name": name, "ready": problem is None, "detail": detail}


def _torch_arithmetic() -> str:
    import torch

    from ssra_engine.engines.torch_engine import multiplies_bfloat16

    dtype = "bfloat16" if multiplies_bfloat16() else "float32 (no native bfloat16)"
    return f"{dtype}, {torch.get_num_threads()} threads"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _kernels() -> dict[str, Any]:
    try:
        core = import_module("ssra_engine._core")
    except ImportError as error:
        return {"isas": [], "problem": f"not built ({error}): pip install ."}
    return {"isas": list(core.available_isas()), "problem": None}


def _gpus() -> list[str]:
    if _version("torch") is None:
        return []
    import torch

    if not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]


def _cpu() -> dict[str, Any]:
    facts = _proc_table(Path("/proc/cpuinfo"))
    flags = set(facts.get("flags", facts.get("Features", "")).split())
    memory = _proc_table(Path("/proc/meminfo")).get("MemTotal", "").split()
    return {
        "name": facts.get("model name") or platform.processor() or platform.machine(),
        "cores": _usable_cores(),
        "features": [feature for feature in _FEATURES if feature in flags],
        "memory_gib": round(int(memory[0]) / 2**20, 1) if memory else None,
    }


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _proc_table(path: Path) -> dict[str, str]:
    """The first value of each key of a Linux file of `key: value` lines; empty elsewhere."""
    if not path.is_file():
        return {}
    table: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        key, separator, value = line.partition(":")
        if separator:
            table.setdefault(key.strip(), value.strip())
    return table
