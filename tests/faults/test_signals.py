"""SIGINT and SIGTERM to a real process: what is done is kept, and the way to go on is printed."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from documents import write_documents
from resumable import assert_same, results

from ssra_engine.cli import main
from ssra_engine.interruption import Interrupted, Interruption
from ssra_engine.steps import NoProgress
from ssra_engine.verify import verify_output

_SHARDS = 6

# The command line, with an engine that takes its time over every batch.
_SLOWLY = """
import sys, time
from ssra_engine.engines import fake

generate = fake.FakeEngine.generate_batches
def slowly(self, batches, sampling):
    for batch in generate(self, batches, sampling):
        time.sleep({seconds})
        yield batch
fake.FakeEngine.generate_batches = slowly
from ssra_engine.cli import main
main(prog_name="ssra-engine")
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("a world")
    write_documents(folder / "corpus.arrow", 10 * _SHARDS)
    return folder


def _arguments(world: Path, out: Path) -> list[str]:
    flags = "--backend fake --rounds 0 --shard-documents 10"
    return ["run", "--input", str(world / "corpus.arrow"), *flags.split(), "--output", str(out)]


def _started(arguments: list[str], seconds: float) -> subprocess.Popen[str]:
    code = _SLOWLY.format(seconds=seconds)
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _wait_for_a_shard(out: Path, process: subprocess.Popen[str]) -> None:
    while not (out / "shards/final/000001.arrow").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_batch_and_the_run(
    world: Path, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "out"
    process = _started(_arguments(world, out), 0.15)
    _wait_for_a_shard(out, process)
    process.send_signal(number)
    said, complained = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert said == ""
    assert "Traceback" not in complained
    assert "Stopping when this batch ends" in complained
    assert f"What is finished is kept in {out}. To go on:\n" in complained
    verdict = verify_output(out)
    assert (verdict.findings, verdict.finished) == ([], False)
    assert verdict.files >= 2
    command = shlex.split(complained.splitlines()[-1])
    assert command == ["ssra-engine", *_arguments(world, out)]
    assert CliRunner().invoke(main, command[1:]).exit_code == 0
    assert CliRunner().invoke(main, _arguments(world, tmp_path / "whole")).exit_code == 0
    assert_same(results(out), results(tmp_path / "whole"))


def test_a_second_signal_ends_it_at_once(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = _started(_arguments(world, out), 60)
    while not (out / "journal").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == -signal.SIGTERM
    assert CliRunner().invoke(main, _arguments(world, out)).exit_code == 0
    assert verify_output(out).findings == []


def test_where_there_is_no_batch_to_wait_for_it_ends_at_once() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Interruption() as interruption:
        progress = interruption.watch(NoProgress())
        progress.begin("training", 0, 0)
        with pytest.raises(Interrupted) as caught:
            signal.raise_signal(signal.SIGTERM)
        assert caught.value.number == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


def test_within_a_batch_it_waits_for_the_end(capfd: pytest.CaptureFixture[str]) -> None:
    with Interruption() as interruption:
        progress = interruption.watch(NoProgress())
        progress.begin("final", 10, 0)
        progress.update(1)
        signal.raise_signal(signal.SIGINT)
        assert "Stopping when this batch ends" in capfd.readouterr().err
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
        with pytest.raises(Interrupted):
            progress.update(2)
