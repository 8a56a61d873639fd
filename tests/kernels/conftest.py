from __future__ import annotations

import pytest

from ssra_engine import _core


@pytest.fixture(params=_core.available_isas())
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each instruction set that this processor has, in use."""
    monkeypatch.setenv("SSRA_ISA", request.param)
    return str(request.param)
