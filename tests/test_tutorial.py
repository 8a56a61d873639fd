"""The tutorial's own commands, in its order, in a smaller world with a smaller model."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from ssra_engine.cli import main

pytestmark = pytest.mark.slow

_PAGE = Path(__file__).parent.parent / "docs/tutorial.md"
_SETTINGS = """
model:
  tiny: {vocabulary: 500, width: 32, layers: 1, heads: 2, pretrain_tokens: 2000}
  score: {max_steps: 3}
  query: {max_steps: 3}
refine: {documents: 10}
synthesize: {max_new_tokens: 8}
"""


def test_every_command_of_the_tutorial_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(_SETTINGS)
    blocks = re.findall(r"^```(sh|python)\n(.*?)^```", _PAGE.read_text("utf-8"), re.M | re.S)
    assert [kind for kind, _ in blocks].count("sh") >= 8
    for kind, text in blocks:
        if kind == "python":
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(text, {})
            assert "target" in printed.getvalue()
        else:
            _call(text)


def _call(text: str) -> None:
    program, command, *arguments = shlex.split(text.replace("\\\n", " "))
    assert program == "ssra-engine"
    if command in ("build", "run"):
        arguments += ["--config", "small.yaml"]
    small = ["50" if argument == "2000" else argument for argument in arguments]
    result = CliRunner().invoke(main, [command, *small])
    assert result.exit_code == 0, f"{text}\n{result.output}"
