"""`ssra-engine train` under torchrun: two processes are one with the joint batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from worlds import save_encoder, write_world

from ssra_engine.cli import main

pytestmark = pytest.mark.slow

_KILLED = """
import os, signal
from ssra_engine.cli import main
from ssra_engine.embedder import fit

told = fit._Watching.on_step_end
def kill(self, args, state, control, **more):
    if state.global_step == 8 and os.environ["RANK"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)
    told(self, args, state, control, **more)
fit._Watching.on_step_end = kill
main()
"""


def arguments(folder: Path, batch: int, output: str) -> list[str]:
    files = {"--corpus": "corpus.parquet", "--judgments": "judgments.parquet", "--base": "encoder"}
    told = {name: str(folder / file) for name, file in {**files, "--output": output}.items()}
    told |= {"--batch-size": str(batch), "--log-steps": "1", "--checkpoint-steps": "5"}
    told |= {"--rate": "1e-3", "--epochs": "1", "--cosent": "0.5"}
    return ["train", *(part for pair in told.items() for part in pair)]


def train_two(folder: Path, *script: str) -> subprocess.CompletedProcess[str]:
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")
    return subprocess.run(
        [sys.executable, *launcher, *script, *arguments(folder, 6, "two")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )


def record_of(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / "training.json").read_text())
    return record


def test_two_processes_equal_one_with_the_joint_batch_even_after_a_kill(tmp_path: Path) -> None:
    write_world(tmp_path)
    save_encoder(tmp_path / "encoder", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    (tmp_path / "killed.py").write_text(_KILLED)
    killed = train_two(tmp_path, str(tmp_path / "killed.py"))
    assert "SIGKILL" in killed.stdout
    assert not (tmp_path / "two").exists()
    left = {path.name for path in tmp_path.glob("two.training/checkpoints/*")}
    assert left == {"checkpoint-5"}

    done = train_two(tmp_path, "-m", "ssra_engine.cli")
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("Model in ") == 1
    assert not (tmp_path / "two.training").exists()
    alone = CliRunner().invoke(main, arguments(tmp_path, 12, "one"))
    assert alone.exit_code == 0, alone.output
    two, one = record_of(tmp_path / "two"), record_of(tmp_path / "one")
    assert two["fingerprint"]["processes"] == 2
    card = (tmp_path / "two/README.md").read_text()
    assert "steps on the joint batch of 2 processes" in card
    assert two["steps"] == one["steps"] > 10
    for name in ("loss", "grad_norm"):
        ours, theirs = ([entry[name] for entry in each["curve"]] for each in (two, one))
        assert ours == pytest.approx(theirs, rel=1e-4)
    for name, value in one["results"]["trained"].items():
        np.testing.assert_allclose(two["results"]["trained"][name], value, rtol=1e-3)
