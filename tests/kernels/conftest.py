from __future__ import annotations

import importlib.util
import os
import sys

import pytest

import ssra_engine

NAME = "ssra_engine._core"


def use_core(library: str) -> None:
    """Make another build of the kernels the one that is tested; see bin/sanitize."""
    assert NAME not in sys.modules
    spec = importlib.util.spec_from_file_location(NAME, library)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[NAME] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    ssra_engine._core = module  # type: ignore[attr-defined]


if "SSRA_CORE" in os.environ:
    use_core(os.environ["SSRA_CORE"])
core = importlib.import_module(NAME)


def pytest_report_header() -> str:
    return f"kernels: {core.__file__}"


@pytest.fixture(params=core.available_isas())
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each instruction set that this processor has, in use."""
    monkeypatch.setenv("SSRA_ISA", request.param)
    return str(request.param)
