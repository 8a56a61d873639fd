from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples/train_with_sentence_transformers.py"


def test_example_runs_and_learns_the_grades(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLE], cwd=tmp_path, capture_output=True, text=True, timeout=300,
        env=os.environ | {"HF_HUB_OFFLINE": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    both, thing, neither = map(float, re.findall(r"-?\d\.\d+", done.stdout.splitlines()[-1]))
    assert both > 0.9
    assert both > thing + 0.1
    assert thing > neither + 0.5
