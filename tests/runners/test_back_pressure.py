"""A slow writer or a slow engine: reading waits for it, and memory does not grow."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ssra_engine.config import load_config
from ssra_engine.corpus import Corpus
from ssra_engine.engines.fake import FakeEngine
from ssra_engine.roles import fake_roles
from ssra_engine.run import run
from ssra_engine.section import Section

_SHARDS, _DOCUMENTS, _TEXT = 40, 4, 64 << 10


class _Watch:
    """How far reading is ahead of committing, and how much memory Arrow holds."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.read = self.committed = self.ahead = self.most_bytes = 0

    def count(self, *, read: int = 0, committed: int = 0) -> None:
        with self.lock:
            self.read += read
            self.committed += committed
            self.ahead = max(self.ahead, self.read - self.committed)
            self.most_bytes = max(self.most_bytes, pa.total_allocated_bytes())


@pytest.mark.parametrize("slow", ["writer", "engine"])
def test_reading_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: str) -> None:
    rows = _SHARDS * _DOCUMENTS
    texts = [f"{number} " + "red panda " * (_TEXT // 10) for number in range(rows)]
    table = pa.table({"doc_id": [str(number) for number in range(rows)], "text": texts})
    with pa.ipc.new_stream(tmp_path / "c.arrows", table.schema) as writer:
        writer.write_table(table, max_chunksize=_DOCUMENTS)
    del table, texts
    watch = _Watch()
    commit, read = Section.commit, Corpus.batches_with_errors
    generate = FakeEngine.generate_batches

    def watched_commit(self: Section, *arguments: Any) -> None:
        if slow == "writer":
            time.sleep(0.02)
        commit(self, *arguments)
        watch.count(committed=1)

    def watched_read(self: Corpus, size: int) -> Iterator[tuple[pa.RecordBatch, pa.Table]]:
        for piece in read(self, size):
            watch.count(read=1)
            yield piece

    def slowly(self: FakeEngine, *arguments: Any) -> Iterator[pa.RecordBatch]:
        if slow == "engine":
            time.sleep(0.02)
        yield from generate(self, *arguments)

    monkeypatch.setattr(Section, "commit", watched_commit)
    monkeypatch.setattr(Corpus, "batches_with_errors", watched_read)
    monkeypatch.setattr(FakeEngine, "generate_batches", slowly)
    config = load_config(overrides={"refine.rounds": 0, "output.shard_documents": _DOCUMENTS})
    before = pa.total_allocated_bytes()
    run(config, [tmp_path / "c.arrows"], fake_roles(config.grades), tmp_path / "out")
    assert watch.committed == _SHARDS
    # One is read ahead, one is worked on, one is being written and one waits for it.
    assert watch.ahead <= 4
    assert watch.most_bytes - before < rows * _TEXT / 2
