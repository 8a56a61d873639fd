"""Shards that are worked on at the same time: their seconds are those of the clock on the wall."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from documents import write_documents

from ssra_engine.config import load_config
from ssra_engine.engines.fake import FakeEngine
from ssra_engine.report.throughput import throughput
from ssra_engine.roles import fake_roles
from ssra_engine.run import run
from ssra_engine.runners.local import LocalRunner

_TOGETHER, _SHARDS, _SECONDS = 6, 24, 0.125


class _Together(LocalRunner):
    """Works on several shards at once, as the runner of a cluster does."""

    def run_shards(
        self, shards: Iterable[Any], work: Callable[[Any], Any]
    ) -> Iterator[tuple[Any, Any]]:
        every = list(shards)
        with ThreadPoolExecutor(_TOGETHER) as workers:
            yield from zip(every, workers.map(work, every), strict=True)


class _Slow(FakeEngine):
    def score_batches(self, batches: Any, labels: Any) -> Any:
        time.sleep(_SECONDS)
        return super().score_batches(batches, labels)


def test_seconds_are_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssra_engine.run.open_runner", lambda _: _Together())
    corpus = write_documents(tmp_path / "c.arrow", 5 * _SHARDS)
    roles = dataclasses.replace(fake_roles((0, 1, 2, 3)), open_score=_Slow)
    config = load_config(
        overrides={
            "refine.rounds": 0,
            "output.shard_documents": 5,
            "synthesize.attempts": 1,
            # What the shards take one after another: six times what passes.
            "synthesize.budget": f"{round(_SECONDS * _SHARDS)} seconds",
        }
    )
    summary = run(config, [corpus], roles, tmp_path / "out").summary
    records = json.loads((tmp_path / "out/manifest.json").read_text())["records"]
    told = throughput(records)
    assert told["documents"] == 5 * _SHARDS
    assert _SECONDS * _SHARDS / _TOGETHER - 0.01 <= told["seconds"] <= summary["timing"]["seconds"]
    assert summary["documents_not_begun"] == 0
