"""The names that others build on, and what importing the package costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import ssra_engine


@pytest.mark.parametrize("name", ssra_engine.__all__)
def test_every_public_name_can_be_imported(name: str) -> None:
    assert getattr(ssra_engine, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ssra_engine.nothing


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, ssra_engine; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    assert not {"torch", "numpy", "pyarrow", "ssra_engine._core"} & set(loaded)
