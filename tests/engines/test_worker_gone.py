"""A run whose worker dies and cannot be started again, and goes on when it can."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from documents import write_documents
from torch_worker_engine import TorchWorkerEngine

from ssra_engine.config import load_config
from ssra_engine.errors import EngineGoneError
from ssra_engine.roles import Roles, fake_roles
from ssra_engine.run import run

SHARDS, SHARD_DOCUMENTS = 4, 6


class DyingWorkerEngine(TorchWorkerEngine):
    """Its interpreter is taken away, and its process killed, before a given batch."""

    def __init__(self, folder: Path, python: Path, last: int) -> None:
        super().__init__(folder, dtype="float32", python=python)
        self._interpreter, self._left = python, last

    def score_batches(
        self, batches: Iterable[pa.RecordBatch], labels: Sequence[str | int]
    ) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if self._left == 0:
                self._interpreter.unlink()
                assert self._process.pid is not None
                os.kill(self._process.pid, signal.SIGKILL)
            self._left -= 1
            yield from super().score_batches([batch], labels)


def _rows(output: Path) -> dict[str, pa.Table]:
    return {
        str(path.relative_to(output)): pq.read_table(path) for path in output.rglob("*.parquet")
    }


def test_a_run_ends_and_goes_on(llama_folder: Path, tmp_path: Path) -> None:
    corpus = write_documents(tmp_path / "corpus.arrow", SHARDS * SHARD_DOCUMENTS)
    settings = {"refine.rounds": 0, "output.shard_documents": SHARD_DOCUMENTS}
    config = load_config(overrides={**settings, "synthesize.attempts": 1})
    python = tmp_path / "python"

    def roles(batches: int) -> Roles:
        python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
        python.chmod(0o755)
        return replace(
            fake_roles(config.grades),
            open_score=lambda: DyingWorkerEngine(llama_folder, python, batches),
        )

    whole = run(config, [corpus], roles(-1), tmp_path / "whole")
    assert whole.failed_documents == 0
    output = tmp_path / "out"
    with pytest.raises(EngineGoneError, match=r"python\) cannot be started again: .*cannot be run"):
        run(config, [corpus], roles(2), output)
    assert len(list((output / "shards" / "final").glob("*.arrow"))) == 2
    assert run(config, [corpus], roles(-1), output).failed_documents == 0
    assert _rows(output).keys() == _rows(tmp_path / "whole").keys()
    for name, rows in _rows(tmp_path / "whole").items():
        assert _rows(output)[name].equals(rows), name
