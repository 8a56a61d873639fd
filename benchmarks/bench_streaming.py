"""Documents through `run` with an engine that returns at once, beside plain copying.

    pytest benchmarks/bench_streaming.py -s
    SSRA_BENCH_DOCUMENTS=10000,100000,1000000 pytest benchmarks/bench_streaming.py -s

Four requests a document: read, check, prompt, generate, filter, score, commit each shard to disk,
de-duplicate over everything, write Parquet. The peer reads the same documents with pyarrow and
reads and writes the same output rows, nothing else. Each size runs in a process of its own, so that
its peak of resident memory is its own: pinned to one core, or as the driver of a Ray cluster on
this machine, whose actors have the fake engine, and whose start is not timed. With
SSRA_BENCH_RECORD=1 the figures are added to results/streaming.csv.
"""

from __future__ import annotations

import csv
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from ssra_engine.config import load_config
from ssra_engine.roles import fake_roles
from ssra_engine.run import run

_RESULTS = Path(__file__).parent / "results" / "streaming.csv"
_SIZES = [int(size) for size in os.environ.get("SSRA_BENCH_DOCUMENTS", "10000").split(",")]
_WORDS = ("red panda", "小猫钓鱼", "how to fold", "第三集", "rain on a tin roof", "龙")

# Resident memory may differ by this much between the smallest and the largest corpus.
_FLAT_MB = 128


def _write_corpus(path: Path, documents: int) -> None:
    schema = pa.schema([(name, pa.string()) for name in ("doc_id", "title", "text")])
    with pa.ipc.new_file(path, schema) as writer:
        for start in range(0, documents, 8192):
            numbers = range(start, min(start + 8192, documents))
            titles = [f"{_WORDS[n % 6]} {_WORDS[n // 6 % 6]}, part {n}" for n in numbers]
            texts = [f"A short clip about {_WORDS[n // 36 % 6]}" for n in numbers]
            columns = [[f"video-{n}" for n in numbers], titles, texts]
            writer.write_batch(pa.record_batch([pa.array(c) for c in columns], schema=schema))


def _parts(out: Path) -> list[Path]:
    return sorted([*out.glob("synthetic/*.parquet"), *out.glob("rejected/*.parquet")])


def _copy(corpus: Path, out: Path, copy: Path) -> None:
    """The peer: the same rows in and out, with pyarrow alone."""
    with pa.ipc.open_file(corpus) as reader:
        for number in range(reader.num_record_batches):
            reader.get_batch(number).validate(full=True)
    copy.mkdir()
    for number, part in enumerate(_parts(out)):
        pq.write_table(pq.read_table(part), copy / f"{number}.parquet", compression="zstd")


def _peak_mb() -> float:
    """Peak resident memory of this process image (ru_maxrss would count its parent's too)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def _measure(corpus: Path, folder: Path, runner: str) -> dict[str, Any]:
    """Run and copy in this process."""
    if runner == "ray":
        import ray

        ray.init(include_dashboard=False, log_to_driver=False, logging_level="error")
    else:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    settings = {"refine.rounds": 0, "synthesize.attempts": 1, "runner.kind": runner}
    actors = {role: {"cpus": 0.5} for role in ("query", "score")}
    config = load_config(overrides={**settings, "runner.actors": actors})
    started, busy = time.perf_counter(), time.process_time()
    result = run(config, [corpus], fake_roles(config.grades), folder / "out")
    seconds, busy = time.perf_counter() - started, time.process_time() - busy
    peak = _peak_mb()
    started = time.perf_counter()
    _copy(corpus, folder / "out", folder / "copy")
    return {
        "documents": result.summary["documents"],
        "generated": result.summary["total"]["generated"],
        "seconds": seconds,
        "cpu_seconds": busy,
        "peer_seconds": time.perf_counter() - started,
        "rss_mb": peak,
        "cores": len(os.sched_getaffinity(0)),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


@pytest.fixture(scope="module")
def figures() -> Iterator[list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    yield rows
    if os.environ.get("SSRA_BENCH_RECORD"):
        new = not _RESULTS.exists()
        with _RESULTS.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerows(rows)


@pytest.mark.parametrize("runner", ["local", "ray"])
@pytest.mark.parametrize("documents", _SIZES)
def test_streaming(
    benchmark: BenchmarkFixture,
    tmp_path: Path,
    figures: list[dict[str, Any]],
    documents: int,
    runner: str,
) -> None:
    if runner == "ray":
        pytest.importorskip("ray")
    corpus = tmp_path / "corpus.arrow"
    _write_corpus(corpus, documents)

    def child() -> dict[str, Any]:
        command = [sys.executable, __file__, str(corpus), str(tmp_path), runner]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        measured: dict[str, Any] = json.loads(output.splitlines()[-1])
        return measured

    got = benchmark.pedantic(child, rounds=1)
    rows = sum(pq.read_metadata(part).num_rows for part in _parts(tmp_path / "out"))
    assert rows == got["generated"] == 4 * documents
    speed, ratio = documents / got["seconds"], got["seconds"] / got["peer_seconds"]
    figures.append(
        {
            "machine": _processor(),
            "runner": runner,
            "cores": got["cores"],
            "documents": documents,
            "seconds": round(got["seconds"], 2),
            "docs_per_s": round(speed),
            "docs_per_cpu_s": round(documents / got["cpu_seconds"]),
            "rss_mb": round(got["rss_mb"]),
            "peer_seconds": round(got["peer_seconds"], 2),
            "times_peer": round(ratio, 1),
        }
    )
    print(f"\n{figures[-1]}")
    smallest = next(row["rss_mb"] for row in figures if row["runner"] == runner)
    assert got["rss_mb"] - smallest < _FLAT_MB


def test_again_the_same_rows(tmp_path: Path) -> None:
    _write_corpus(tmp_path / "corpus.arrow", 5000)
    config = load_config(overrides={"refine.rounds": 0, "synthesize.attempts": 1})
    for name in ("one", "other"):
        run(config, [tmp_path / "corpus.arrow"], fake_roles(config.grades), tmp_path / name)
    for one, other in zip(_parts(tmp_path / "one"), _parts(tmp_path / "other"), strict=True):
        assert pq.read_table(one).equals(pq.read_table(other))


if __name__ == "__main__":
    print(json.dumps(_measure(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])))
