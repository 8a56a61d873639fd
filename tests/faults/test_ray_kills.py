"""kill -9 of Ray actors, of a node and of the driver, and documents that no engine survives."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import psutil
import pyarrow.parquet as pq
import ray
from click.testing import CliRunner
from documents import write_documents
from ray.cluster_utils import Cluster
from resumable import assert_same, results

from ssra_engine.cli import main
from ssra_engine.config import load_config
from ssra_engine.engines.engine import Engine
from ssra_engine.engines.fake import FakeEngine
from ssra_engine.roles import Roles, fake_roles
from ssra_engine.run import run
from ssra_engine.steps import NoProgress
from ssra_engine.verify import verify_output

_DOCUMENTS = 120
_SETTINGS = {"refine.documents": 40, "output.shard_documents": 8}
_POOLS = {"score": {"replicas": 3, "cpus": 1}, "query": {"replicas": 2, "cpus": 0.5}}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head without room for actors, and two nodes, neither of which has room for all."""
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    cluster.add_node(num_cpus=3)
    cluster.add_node(num_cpus=3)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with documents and what the local runner makes of them."""
    folder = tmp_path_factory.mktemp("whole")
    write_documents(folder / "corpus.arrow", _DOCUMENTS)
    config = load_config(overrides=_SETTINGS)
    run(config, [folder / "corpus.arrow"], fake_roles(config.grades), folder / "out")
    return folder


def _on_ray(whole: Path, out: Path, roles: Roles, progress: Any) -> None:
    runner = {"kind": "ray", "actors": _POOLS, "retries": 50, "shards_at_once": 4}
    config = load_config(overrides=_SETTINGS | {"runner": runner})
    run(config, [whole / "corpus.arrow"], roles, out, progress)


def _assert_whole(out: Path, whole: Path) -> None:
    assert_same(results(out), results(whole / "out"))
    assert verify_output(out).findings == []


def _marked(marks: Path) -> Roles:
    """The fake engine, a little slower, which leaves word of its process in a folder."""

    def marking(open_engine: Callable[[], FakeEngine]) -> Engine:
        class Marked(FakeEngine):
            def __init__(self) -> None:
                super().__init__(open_engine().salt)
                process = psutil.Process()
                (marks / str(process.pid)).write_text(str(process.create_time()))

            def generate_batches(self, batches: Any, sampling: Any) -> Any:
                time.sleep(0.02)
                return super().generate_batches(batches, sampling)

            def score_batches(self, batches: Any, labels: Any) -> Any:
                time.sleep(0.02)
                return super().score_batches(batches, labels)

        return Marked()

    marks.mkdir()
    roles = fake_roles((0, 1, 2, 3))
    open_query: Any = roles.open_query
    return dataclasses.replace(
        roles,
        open_score=lambda: marking(FakeEngine),
        open_query=lambda folder: marking(lambda: open_query(folder)),
    )


class _Killing(NoProgress):
    """Does something at random moments of a run, so many in each of its two sections."""

    def __init__(self, what: Callable[[], bool], seed: int, times: int) -> None:
        self._what, self._dice, self._times = what, random.Random(seed), times
        self._moments: list[float] = []
        self._lock = threading.Lock()
        self.done = 0

    def begin(self, name: str, documents: int, done: int) -> None:
        some = [self._dice.uniform(0.0, 0.9 * documents) for _ in range(self._times)]
        self._moments = sorted(some) if documents else []

    def update(self, done: float) -> None:
        with self._lock:
            while self._moments and done > self._moments[0]:
                time.sleep(self._dice.uniform(0.0, 0.03))  # others are in the middle of a batch
                self._moments.pop(0)
                self.done += self._what()


def _alive(marks: Path) -> list[psutil.Process]:
    """Processes of engines, oldest first; numbers may have been given to others since."""
    found = []
    for path in marks.iterdir():
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(int(path.name))
            if str(process.create_time()) == path.read_text():
                found.append(process)
    return sorted(found, key=lambda process: process.create_time())


def test_kill_9_of_actors(cluster: Cluster, whole: Path, tmp_path: Path) -> None:
    marks, dice = tmp_path / "marks", random.Random(1)

    def kill() -> bool:
        alive = _alive(marks)
        if alive:
            dice.choice(alive).kill()
        return bool(alive)

    progress = _Killing(kill, 1, 4)
    _on_ray(whole, tmp_path / "out", _marked(marks), progress)
    assert progress.done >= 6
    _assert_whole(tmp_path / "out", whole)


def test_kill_9_of_nodes(cluster: Cluster, whole: Path, tmp_path: Path) -> None:
    """Each of them with the engine of a random actor, and whatever else it has."""
    marks, dice = tmp_path / "marks", random.Random(3)
    for _ in range(2):
        cluster.add_node(num_cpus=3)

    def kill() -> bool:
        raylet = dice.choice(_alive(marks)).ppid()
        (node,) = (
            node
            for node in cluster.worker_nodes
            if node.all_processes["raylet"][0].process.pid == raylet
        )
        cluster.remove_node(node, allow_graceful=False)
        return True

    progress = _Killing(kill, 3, 1)
    _on_ray(whole, tmp_path / "out", _marked(marks), progress)
    assert progress.done == 2
    _assert_whole(tmp_path / "out", whole)


_DRIVER = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}, {faults!r}]
from test_ray_kills import _marked, _on_ray
from ssra_engine.steps import NoProgress
import ray
ray.init(address={address!r}, log_to_driver=False, logging_level="error")
_on_ray(Path({whole!r}), Path({out!r}), _marked(Path({marks!r})), NoProgress())
"""


def test_kill_9_of_the_driver(cluster: Cluster, whole: Path, tmp_path: Path) -> None:
    out, dice = tmp_path / "out", random.Random(4)
    for life in range(2):
        script = _DRIVER.format(
            tests=str(Path(__file__).parents[1]),
            faults=str(Path(__file__).parent),
            address=cluster.address,
            whole=str(whole),
            out=str(out),
            marks=str(tmp_path / f"marks {life}"),
        )
        driver = subprocess.Popen([sys.executable, "-c", script])
        shards = dice.randint(1, 8) + 9 * life
        while driver.poll() is None and _journal(out).count(b'"kind":"shard"') < shards:
            time.sleep(0.002)
        driver.kill()
        assert driver.wait() == -signal.SIGKILL
        assert verify_output(out).findings == []
    _on_ray(whole, out, _marked(tmp_path / "marks"), NoProgress())
    _assert_whole(out, whole)


def _journal(out: Path) -> bytes:
    with suppress(FileNotFoundError):
        return (out / "journal").read_bytes()
    return b""


def _failing(how: str, local: bool) -> Roles:
    """Engines of which none survives document 4."""

    def load() -> Engine:
        class Failing(FakeEngine):
            def score_batches(self, batches: Any, labels: Any) -> Any:
                for batch in batches:
                    if any(p.endswith(" 4\n") for p in batch.column("prefix").to_pylist()):
                        self._fail()
                    yield from super().score_batches([batch], labels)

            def _fail(self) -> None:
                if local:
                    raise RuntimeError("out of order")
                if how == "dies":
                    os.kill(os.getpid(), signal.SIGKILL)
                if how == "hangs":
                    time.sleep(600)
                import resource

                import numpy as np

                before = resource.getrlimit(resource.RLIMIT_AS)
                resource.setrlimit(resource.RLIMIT_AS, (1 << 36, before[1]))
                try:
                    np.ones(1 << 34)
                finally:
                    resource.setrlimit(resource.RLIMIT_AS, before)

        return Failing()

    return dataclasses.replace(fake_roles((0, 1, 2, 3)), open_score=load)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("dies", "the last time its actor failed: Actor"),
        ("hangs", "the last time its actor was silent for 15 s"),
        ("lacks memory", "the last time its actor ran out of memory: Unable to allocate 128. GiB"),
    ],
)
def test_a_document_that_no_engine_survives_is_rejected(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, said: str
) -> None:
    write_documents(tmp_path / "corpus.arrow", 8)
    seconds = 15 if how == "hangs" else 600
    # One at a time, so that no other document waits at an actor that this one takes along.
    runner = {"batch_seconds": seconds, "retries": 1, "shards_at_once": 1}
    (tmp_path / "config.yaml").write_text(json.dumps({"runner": runner}))
    base = ["run", "--input", str(tmp_path / "corpus.arrow"), "--backend", "fake", "--rounds", "0"]
    base += ["--shard-documents", "1", "--quiet", "--config", str(tmp_path / "config.yaml")]
    rejected = []
    for kind in ("local", "ray"):
        roles = _failing(how, kind == "local")
        monkeypatch.setattr("ssra_engine.roles.fake_roles", lambda *_, roles=roles: roles)
        out = tmp_path / kind
        ended = CliRunner().invoke(main, [*base, "--runner", kind, "--output", str(out)])
        assert ended.exit_code == 3, ended.output
        assert json.loads((out / "summary.json").read_text())["failed_documents"] == 1
        assert verify_output(out).findings == []
        rejected.append(pq.read_table(out / "rejected").to_pylist())
    (failed,) = [row for row in rejected[1] if row["reason"] == "error"]
    assert failed["doc_id"] == "doc-4"
    assert "given to the score model 2 times" in failed["message"]
    assert said in failed["message"]
    for row in rejected[0] + rejected[1]:
        del row["message"]
    assert rejected[0] == rejected[1]
    kept = [
        (tmp_path / kind / "synthetic/part-00000.parquet").read_bytes() for kind in ("local", "ray")
    ]
    assert kept[0] == kept[1]
