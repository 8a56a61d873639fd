"""Other Python interpreters: whether one has what a worker needs. Nothing is imported in them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence

__all__ = ["lacks"]

_SECONDS = 60
#: Looks for packages without importing them, and for the CUDA driver by opening it.
_PROBE = """
import ctypes, importlib.util, json, sys
cuda = True
if sys.argv[1] == "cuda":
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        cuda = False
missing = [name for name in sys.argv[2:] if importlib.util.find_spec(name) is None]
print(json.dumps({"version": sys.version.split()[0], "missing": missing, "cuda": cuda}))
"""


def lacks(python: str, packages: Sequence[str], *, cuda: bool) -> str | None:
    """What the interpreter `python` lacks to run an engine, or None.

    Args:
        python: path of an interpreter, or its name on ``PATH``.
        packages: top-level modules it must find.
        cuda: whether the NVIDIA driver must be there.
    """
    command = [python, "-c", _PROBE, "cuda" if cuda else "-", *packages]
    try:
        told = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=True)
        found = json.loads(told.stdout.splitlines()[-1])
    except OSError as error:
        return f"{python} cannot be run ({error.strerror or error})"
    except (subprocess.SubprocessError, ValueError, IndexError):
        return f"{python} is not a working Python interpreter"
    if found["missing"]:
        return f"{python} (Python {found['version']}) lacks {', '.join(found['missing'])}"
    return None if found["cuda"] else "no NVIDIA driver (libcuda.so.1) is on this machine"
