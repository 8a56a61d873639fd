"""Whatever kills a run, the same command again gives the rows of an uninterrupted one."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from documents import write_documents
from hypothesis import given, settings
from hypothesis import strategies as st
from resumable import run_here

from ssra_engine import durable

_KILLS = 20


def _results(out: Path) -> dict[str, Any]:
    """Everything that must not depend on interruptions."""
    results: dict[str, Any] = {
        str(path.relative_to(out)): pq.read_table(path) for path in out.rglob("*.parquet")
    }
    for path in out.rglob("weights.txt"):
        results[str(path.relative_to(out))] = path.read_text()
    summary = json.loads((out / "summary.json").read_text())
    del summary["timing"]
    results["summary"] = summary
    results["files"] = sorted(
        str(path.relative_to(out)) for path in out.rglob("*") if path.name != "run.log"
    )
    return results


def _assert_same(got: dict[str, Any], expected: dict[str, Any]) -> None:
    assert got.keys() == expected.keys()
    for name, result in expected.items():
        same = got[name].equals(result) if isinstance(result, pa.Table) else got[name] == result
        assert same, name


class _Killed(BaseException):
    """Stands for the end of the process."""


class _Disk:
    """Counts what makes the disk change for good, and ends the process before the n-th of them.

    What a file gained since it was last synced is half lost, as when the power fails.
    """

    def __init__(self, alive_for: int | None) -> None:
        self.left = alive_for
        self.count = 0
        self._fsync, self._replace, self._remove = os.fsync, os.replace, durable.remove
        self._synced: dict[int, int] = {}

    def _step(self) -> None:
        if self.left is not None and self.count >= self.left:
            raise _Killed
        self.count += 1

    def fsync(self, descriptor: int) -> None:
        status = os.fstat(descriptor)
        is_file = stat.S_ISREG(status.st_mode)
        try:
            self._step()
        except _Killed:
            gained = status.st_size - self._synced.get(status.st_ino, 0)
            if is_file and gained > 0:
                os.truncate(f"/proc/self/fd/{descriptor}", status.st_size - (gained + 1) // 2)
                self._synced[status.st_ino] = status.st_size
            raise
        if is_file:
            self._synced[status.st_ino] = status.st_size

    def replace(self, source: Path, target: Path) -> None:
        self._step()
        self._replace(source, target)

    def remove(self, path: Path) -> None:
        self._step()
        self._remove(path)


@contextmanager
def _disk(alive_for: int | None = None) -> Iterator[_Disk]:
    disk = _Disk(alive_for)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", disk.fsync)
        patch.setattr(os, "replace", disk.replace)
        patch.setattr("ssra_engine.store.remove", disk.remove)
        yield disk


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], int]:
    """A folder with a corpus, the results of an uninterrupted run, and its steps on the disk."""
    folder = tmp_path_factory.mktemp("small")
    write_documents(folder / "corpus.arrow", 12)
    with _disk() as disk:
        run_here(folder, 12, 4)
    results = _results(folder / "out")
    shutil.rmtree(folder / "out")
    return folder, results, disk.count


def test_a_crash_before_every_step_on_the_disk(small: tuple[Path, dict[str, Any], int]) -> None:
    folder, expected, steps = small
    assert steps > 40
    for alive_for in range(steps):
        with _disk(alive_for), pytest.raises(_Killed):
            run_here(folder, 12, 4)
        with _disk():
            run_here(folder, 12, 4)
        _assert_same(_results(folder / "out"), expected)
        shutil.rmtree(folder / "out")


@settings(max_examples=15, deadline=None)
@given(crashes=st.lists(st.integers(0, 40), min_size=2, max_size=8))
def test_crashes_one_after_another(
    small: tuple[Path, dict[str, Any], int], crashes: list[int]
) -> None:
    folder, expected, _ = small
    for alive_for in crashes:
        with _disk(alive_for):
            try:
                run_here(folder, 12, 4)
            except _Killed:
                continue
            break
    with _disk():
        run_here(folder, 12, 4)
    _assert_same(_results(folder / "out"), expected)
    shutil.rmtree(folder / "out")


def test_a_finished_shard_is_not_done_again(small: tuple[Path, dict[str, Any], int]) -> None:
    folder, expected, steps = small
    with _disk(steps - 20), pytest.raises(_Killed):
        run_here(folder, 12, 4)
    journal = (folder / "out" / "journal").read_bytes()
    with _disk() as disk:
        run_here(folder, 12, 4)
    assert journal.count(b'"kind":"shard"') == 4
    assert disk.count < steps - 15
    _assert_same(_results(folder / "out"), expected)
    shutil.rmtree(folder / "out")


def test_lost_staged_shards_and_torn_journals_are_done_again(
    small: tuple[Path, dict[str, Any], int],
) -> None:
    folder, expected, steps = small
    with _disk(steps - 20), pytest.raises(_Killed):
        run_here(folder, 12, 4)
    out = folder / "out"
    (out / "shards" / "final" / "000001.arrow").unlink()
    journal = (out / "journal").read_bytes()
    (out / "journal").write_bytes(journal[: journal.rindex(b"}")])
    run_here(folder, 12, 4)
    assert "is lost: its shard is done again" in (out / "run.log").read_text()
    _assert_same(_results(out), expected)
    shutil.rmtree(out)


def test_kill_9_at_random_moments(tmp_path: Path) -> None:
    documents, shard_documents = 300, 10
    write_documents(tmp_path / "corpus.arrow", documents)
    run_here(tmp_path, documents, shard_documents, 2)
    expected = _results(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ssra_engine.run", "pyarrow.parquet", "pandas"])
    chance = random.Random(20)
    kills = 0
    while kills < _KILLS:
        process = context.Process(target=run_here, args=(tmp_path, documents, shard_documents, 2))
        process.start()
        time.sleep(chance.uniform(0.0, 0.4))
        process.kill()
        process.join()
        if process.exitcode == 0:
            _assert_same(_results(tmp_path / "out"), expected)
            shutil.rmtree(tmp_path / "out")
        else:
            assert process.exitcode == -9
            kills += 1
    run_here(tmp_path, documents, shard_documents, 2)
    _assert_same(_results(tmp_path / "out"), expected)
