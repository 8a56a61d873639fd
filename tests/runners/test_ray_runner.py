"""Engines in Ray actors: the same answers, and what happens when actors and nodes go."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from documents import write_documents
from ray.cluster_utils import Cluster

from ssra_engine.config import RunnerConfig, load_config
from ssra_engine.engines.engine import Engine, Request
from ssra_engine.engines.fake import FakeEngine
from ssra_engine.errors import DataError, EngineError, EngineGoneError
from ssra_engine.roles import fake_roles
from ssra_engine.run import run
from ssra_engine.runners.ray import RayRunner
from ssra_engine.steps import NoProgress

REQUESTS = [Request(f"document {n}", f"grade {n % 4}") for n in range(60)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two nodes, the first of which has no room for actors."""
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    cluster.add_node(num_cpus=4)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def runner(**settings: Any) -> RayRunner:
    defaults = {"kind": "ray", "actors": {"score": {"replicas": 2, "cpus": 0.5}}}
    return RayRunner(RunnerConfig.model_validate(defaults | settings))


def answers(engine: Engine) -> list[Any]:
    """All requests, ten a batch, as shards send them."""
    return [
        (
            engine.generate(REQUESTS[n : n + 10], seed=7),
            engine.label_logits(REQUESTS[n : n + 10], "0123").tolist(),
        )
        for n in range(0, len(REQUESTS), 10)
    ]


@pytest.fixture
def pool(cluster: Cluster) -> Iterator[Engine]:
    engine = runner().open("score", FakeEngine)
    yield engine
    engine.close()


def test_a_pool_is_its_engine(pool: Engine) -> None:
    local = FakeEngine()
    assert answers(pool) == answers(local)
    assert pool.stats.requests == local.stats.requests
    assert pool.stats.generated_tokens == local.stats.generated_tokens
    with pytest.raises(EngineError, match="scores labels of one character"):
        pool.label_logits(REQUESTS, ["no", "yes"])
    assert answers(pool) == answers(local)


def test_shards_come_in_order(cluster: Cluster) -> None:
    taken: list[int] = []

    def shards() -> Iterator[int]:
        for n in range(20):
            taken.append(n)
            yield n

    def work(shard: int) -> int:
        time.sleep(0.01 * (shard % 3))
        return shard * shard

    for n, (shard, square) in enumerate(runner(shards_at_once=3).run_shards(shards(), work)):
        assert (shard, square) == (n, n * n)
        assert len(taken) <= n + 3  # no more are read than are worked on


def test_an_error_in_reading_comes_after_the_shards_before_it(cluster: Cluster) -> None:
    def shards() -> Iterator[int]:
        yield 1
        yield 2
        raise DataError("row 7 is broken")

    outcomes = runner().run_shards(shards(), lambda shard: shard)
    assert [next(outcomes), next(outcomes)] == [(1, 1), (2, 2)]
    with pytest.raises(DataError, match="row 7"):
        next(outcomes)


def test_signals_stay_ours() -> None:
    code = (
        "import signal; from ssra_engine.config import RunnerConfig;"
        "from ssra_engine.runners.ray import RayRunner;"
        "signal.signal(signal.SIGTERM, ours := lambda *_: None);"
        "runner = RayRunner(RunnerConfig(kind='ray'));"
        "assert signal.getsignal(signal.SIGTERM) is ours; runner.close()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_model_that_cannot_be_loaded(cluster: Cluster) -> None:
    def load() -> Engine:
        raise EngineError("engines/score: not a model folder.")

    with pytest.raises(EngineError, match=r"^engines/score: not a model folder\.$"):
        runner().open("score", load)


def test_cluster_without_room(cluster: Cluster) -> None:
    crowded = runner(actors={"score": {"replicas": 1, "cpus": 64}}, start_seconds=1)
    with pytest.raises(EngineError, match=r"runner\.actors\.score: the actors did not start"):
        crowded.open("score", FakeEngine)


def dying_at(folder: Path, times: int, how: str = "die") -> Any:
    """Loads an engine that fails at document 3: so often in all, over all actors."""

    def load() -> Engine:
        class Failing(FakeEngine):
            def _fail(self, batch: Any) -> None:
                marks = list(folder.iterdir())
                if len(marks) < times and "document 3" in batch.column("prefix").to_pylist():
                    (folder / str(len(marks))).touch()
                    time.sleep({"die": 0, "die slowly": 1.5, "hang": 60}[how])
                    os._exit(1)

            def score_batches(self, batches: Any, labels: Any) -> Any:
                for batch in batches:
                    self._fail(batch)
                    yield from super().score_batches([batch], labels)

        return Failing()

    return load


@pytest.mark.parametrize("how", ["die", "hang"])
def test_batches_of_a_lost_actor_are_worked_on_elsewhere(
    cluster: Cluster, tmp_path: Path, how: str
) -> None:
    seconds = 600 if how == "die" else 4
    pool = runner(batch_seconds=seconds).open("score", dying_at(tmp_path, 2, how))
    assert answers(pool) == answers(FakeEngine())
    assert len(list(tmp_path.iterdir())) == 2
    pool.close()


def test_batch_that_no_actor_survives(cluster: Cluster, tmp_path: Path) -> None:
    pool = runner(retries=1).open("score", dying_at(tmp_path, 1000))
    with pytest.raises(EngineError, match="given to the score model 2 times"):
        pool.label_logits(REQUESTS[:10], "0123")
    assert pool.label_logits(REQUESTS[10:], "0123").shape == (50, 4)
    pool.close()


def test_a_batch_that_waited_behind_a_fatal_one_is_not_to_blame(
    cluster: Cluster, tmp_path: Path
) -> None:
    one = {"score": {"replicas": 1, "cpus": 0.5}}
    pool = runner(actors=one, retries=0).open("score", dying_at(tmp_path, 1, "die slowly"))
    refusals: list[str] = []

    def fatal() -> None:
        with pytest.raises(EngineError) as caught:
            pool.label_logits(REQUESTS[:10], "0123")
        refusals.append(str(caught.value))

    thread = threading.Thread(target=fatal)
    thread.start()
    while not list(tmp_path.iterdir()):
        time.sleep(0.01)
    there = pool.label_logits(REQUESTS[10:20], "0123").tolist()
    thread.join(timeout=60)
    assert there == FakeEngine().label_logits(REQUESTS[10:20], "0123").tolist()
    assert ["given to the score model 1 times" in said for said in refusals] == [True]
    pool.close()


def test_node_that_leaves(cluster: Cluster) -> None:
    node = cluster.add_node(num_cpus=1, resources={"leaving": 1})
    pool = runner(actors={"score": {"replicas": 5, "cpus": 1}}).open("score", FakeEngine)
    expected, got = answers(FakeEngine()), []

    def work() -> None:
        got.extend(answers(pool) for _ in range(10))

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.3)
    cluster.remove_node(node)
    thread.join(timeout=60)
    assert got == [expected] * 10
    pool.close()


def test_without_any_actor_no_document_is_at_fault(cluster: Cluster) -> None:
    node = cluster.add_node(num_cpus=8)
    pool: Any = runner(actors={"score": {"cpus": 6}}).open("score", FakeEngine)
    cluster.remove_node(node)
    pool._settings = pool._settings.model_copy(update={"start_seconds": 0.5})
    for _ in range(4):  # each of which gives back what it took
        with pytest.raises(EngineGoneError, match="no actor of the score model has come back"):
            pool.label_logits(REQUESTS, "0123")
    pool.close()


def run_here(tmp_path: Path, output: str, runner: dict[str, Any], **options: Any) -> Path:
    corpus = write_documents(tmp_path / "corpus.arrow", 120)
    config = load_config(
        overrides={
            "refine.documents": 30,
            "output.shard_documents": 20,
            "runner": runner,
        }
    )
    roles = options.pop("roles", fake_roles(config.grades))
    run(config, [corpus], roles, tmp_path / output, **options)
    return tmp_path / output


def parts(output: Path) -> dict[str, bytes]:
    return {str(path.relative_to(output)): path.read_bytes() for path in output.rglob("part-*")}


class Impatient(NoProgress):
    """Has enough in the final synthesis, after more documents than four shards have."""

    def begin(self, name: str, documents: int, done: int) -> None:
        self.left = 85 if name == "final" else 1000

    def update(self, done: float) -> None:
        if done > self.left:
            raise KeyboardInterrupt


def test_run_gives_the_rows_of_a_local_one(cluster: Cluster, tmp_path: Path) -> None:
    local = run_here(tmp_path, "local", {})
    pools = {"score": {"replicas": 2, "cpus": 0.5}, "query": {"cpus": 0.5}}
    there = run_here(tmp_path, "ray", {"kind": "ray", "actors": pools})
    assert len(parts(local)) > 3
    assert parts(there) == parts(local)
    timing = json.loads((there / "summary.json").read_text())["timing"]
    assert timing["engines"]["score"]["requests"] > 0


@pytest.mark.parametrize(("first", "then"), [("local", "ray"), ("ray", "local")])
def test_a_run_goes_on_under_the_other_runner(
    cluster: Cluster, tmp_path: Path, first: str, then: str
) -> None:
    whole = run_here(tmp_path, "whole", {})
    with pytest.raises(KeyboardInterrupt):
        run_here(tmp_path, "cut", {"kind": first}, progress=Impatient())
    assert len(list((tmp_path / "cut/shards").rglob("*.*"))) > 0
    assert parts(run_here(tmp_path, "cut", {"kind": then})) == parts(whole)


def test_node_that_leaves_half_way_through_a_run(cluster: Cluster, tmp_path: Path) -> None:
    def slow() -> Engine:
        class Slow(FakeEngine):
            def score_batches(self, batches: Any, labels: Any) -> Any:
                for batch in batches:
                    time.sleep(0.2)
                    yield from super().score_batches([batch], labels)

        return Slow()

    node = cluster.add_node(num_cpus=1)
    roles = dataclasses.replace(fake_roles((0, 1, 2, 3)), open_score=slow)
    # The leaving node has one of the five score models, and nothing else.
    pools = {"score": {"replicas": 5, "cpus": 1}, "query": {"cpus": 0}}

    class Unplugging(NoProgress):
        done = False

        def update(self, done: float) -> None:
            if done > 50 and not self.done:
                self.done = True
                cluster.remove_node(node)

    progress = Unplugging()
    ray_runner = {"kind": "ray", "actors": pools}
    there = run_here(tmp_path, "ray", ray_runner, roles=roles, progress=progress)
    assert progress.done
    assert parts(there) == parts(run_here(tmp_path, "local", {}))
