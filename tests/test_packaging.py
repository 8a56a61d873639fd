"""What is installed agrees with what the repository says."""

from __future__ import annotations

import os
import re
from importlib import metadata
from pathlib import Path

import pytest

import ssra_engine
from ssra_engine import _core

_ROOT = Path(__file__).parent.parent


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _pins() -> dict[str, str]:
    text = (_ROOT / "constraints.txt").read_text(encoding="utf-8")
    found = re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE)
    return {_normal(name): version for name, version in found}


def test_the_versions_of_metadata_package_and_compiled_module_agree() -> None:
    assert ssra_engine.__version__ == metadata.version("ssra-engine")
    assert _core.__version__ == metadata.version("ssra-engine")


def test_every_direct_dependency_is_pinned() -> None:
    requirements = metadata.requires("ssra-engine") or []
    names = {_normal(re.split(r"[^\w.-]", line, maxsplit=1)[0]) for line in requirements}
    assert {"torch", "pyarrow", "pytest"} <= names
    assert names <= set(_pins())


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(ssra_engine.__file__).parent / "py.typed").is_file()


@pytest.mark.parametrize(
    "script", ["bin/setup", "bin/test", "bin/demo", "bin/docs", "bin/vulnerabilities", ".ci/run"]
)
def test_scripts_can_be_run(script: str) -> None:
    assert os.access(_ROOT / script, os.X_OK)
