"""`ssra-engine audit --serve` as its own process, killed and interrupted."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from ssra_engine.audit import Draw, draw_audit
from ssra_engine.auditing.pairs import draw_pairs
from ssra_engine.cli import main
from ssra_engine.config import load_config
from ssra_engine.roles import fake_roles
from ssra_engine.run import run
from ssra_engine.simulate import simulate, write


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    write(simulate(60, 4), folder)
    config = load_config(overrides={"refine.rounds": 0})
    run(config, [folder / "corpus.arrow"], fake_roles(config.grades), folder / "out")
    return folder / "out"


@contextmanager
def _page(out: Path, folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    options = ["--per-grade", "3", "--serve", "--output", str(folder)]
    command = [sys.executable, "-m", "ssra_engine.cli", "audit", str(out), *options]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.fullmatch(r"Open (http://127\.0\.0\.1:\d+/[\w-]{22}/)\n", line)
            assert found, line + process.stdout.read()
            yield process, found[1]
        finally:
            process.kill()


def _ask(url: str, path: str, sent: dict[str, Any] | None = None) -> Any:
    data = None if sent is None else json.dumps(sent).encode()
    with urlopen(Request(url + path, data, {"Content-Type": "application/json"})) as response:
        return json.load(response)


def _answer(url: str, number: int) -> None:
    state = _ask(url, "state?annotator=Anna")
    for _ in range(number):
        key = state["pair"]["key"]
        state = _ask(url, "answer", {"annotator": "Anna", "key": key, "label": "1"})


def test_killed_interrupted_and_accepted(out: Path, tmp_path: Path) -> None:
    folder = tmp_path / "audit"
    with _page(out, folder) as (process, url):
        _answer(url, 5)
        process.send_signal(signal.SIGKILL)
        assert process.wait(120) == -signal.SIGKILL
    with _page(out, folder) as (process, url):
        assert _ask(url, "state?annotator=Anna")["labelled"] == 5
        _answer(url, 7)
        process.send_signal(signal.SIGINT)
        told, _ = process.communicate(timeout=120)
    assert process.returncode == 0, told
    assert f"{folder}: 12 of 12 pairs have a label." in told
    assert "ssra-engine accept" in told
    assert len(pq.read_table(folder / "judgments.parquet")) == 12
    accept = ["accept", str(out), "--min-precision", "0.5", "--audit", str(folder)]
    done = CliRunner().invoke(main, [*accept, "--output", str(tmp_path / "accepted"), "--json"])
    assert done.exit_code == 0, done.output
    grades = json.loads(done.stdout)["grades"]
    assert {name: (row["audited"], row["right"]) for name, row in grades.items()} == {
        "0": (3, 0),
        "1": (3, 3),
        "2": (3, 0),
        "3": (3, 0),
    }


def test_the_page_shows_the_pairs_that_the_file_would_hold(out: Path, tmp_path: Path) -> None:
    draw = Draw(3, 1)
    draw_audit(out, draw, tmp_path / "audit.csv")
    lines = (tmp_path / "audit.csv").read_text("utf-8-sig").splitlines()[1:]
    pairs = draw_pairs(out, draw)
    assert pairs.simulated
    assert [pair.key for pair in pairs.pairs] == [line.split(",")[-3] for line in lines]
    kept = {(row["query"], row["target"]) for row in pq.read_table(out / "synthetic").to_pylist()}
    for pair in pairs.pairs:
        assert pair.kept == ((pair.query, pair.target) in kept)
        assert not pair.kept or pair.predicted == pair.target


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--serve", "--oracle"], "neither --oracle nor --json"),
        (["--port", "80"], "add --serve"),
    ],
)
def test_mistakes(out: Path, options: list[str], message: str) -> None:
    result = CliRunner().invoke(main, ["audit", str(out), *options])
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_port_that_is_taken(out: Path, tmp_path: Path) -> None:
    with _page(out, tmp_path / "a") as (_, url):
        port = url.split(":")[2].split("/")[0]
        options = ["--serve", "--port", port, "--output", str(tmp_path / "b")]
        result = CliRunner().invoke(main, ["audit", str(out), *options])
    assert result.exit_code == 2
    assert f"--port {port}: Address already in use" in result.stderr


def test_without_the_extra(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("ssra_engine.auditing.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    result = CliRunner().invoke(main, ["audit", str(out), "--serve"])
    assert result.exit_code == 2
    assert "pip install 'ssra-engine[audit]'" in result.stderr
