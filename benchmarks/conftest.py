"""Benchmarks: ours and its peers on the same inputs, in one process, taking turns.

    pytest benchmarks           small sizes
    pytest benchmarks --gate    the same, failing where ours is not as far ahead as promised
    pytest benchmarks --full    the sizes that are reported; writes benchmarks/results/*.csv

A benchmark first asserts that the answers agree. Times are the best of several rounds. On a machine
that is busy with other things, processor seconds say more than wall-clock seconds, so both are
kept, and gates look at processor seconds.
"""

from __future__ import annotations

import csv
import platform
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

RESULTS = Path(__file__).parent / "results"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--gate", action="store_true", help="fail where a promised ratio is not met")
    parser.addoption("--full", action="store_true", help="reported sizes; write results/*.csv")
    parser.addoption(
        "--models",
        default="",
        help="bench_engines: model folders or GGUF files with colons between them. With --full, "
        "SmolLM2-135M and Gemma 3 270M together take about 15 minutes on two quiet cores",
    )
    parser.addoption("--vllm-python", help="bench_engines: the interpreter that has vLLM")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    named = parent.session.isinitpath(file_path)  # then pytest collects it by itself
    if file_path.match("bench_*.py") and not named:
        return pytest.Module.from_parent(parent, path=file_path)
    return None


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--full"))


@pytest.fixture(scope="session")
def gate(request: pytest.FixtureRequest) -> Callable[[str, float, float], None]:
    """`gate(what, ratio, least)`: with --gate, fails where `ratio` is below `least`."""

    def check(what: str, ratio: float, least: float) -> None:
        print(f"\n{what}: {ratio:.2f}x")
        if request.config.getoption("--gate"):
            assert ratio >= least, f"{what}: {ratio:.2f}x, promised {least:.2f}x"

    return check


@dataclass(frozen=True)
class Timing:
    """Best seconds of the rounds, and the most resident memory that a round added, in MB."""

    wall: float
    processor: float
    added_mb: float


def race(contestants: dict[str, Callable[[], object]], rounds: int = 3) -> dict[str, Timing]:
    """Runs each contestant once per round, in turn, so that a busy spell meets all of them."""
    best = {name: Timing(float("inf"), float("inf"), 0.0) for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            before = best[name]
            with _Memory() as memory:
                wall, processor = time.perf_counter(), time.process_time()
                run()
                processor = time.process_time() - processor
                wall = time.perf_counter() - wall
            best[name] = Timing(
                min(before.wall, wall),
                min(before.processor, processor),
                max(before.added_mb, memory.added_mb),
            )
    return best


class _Memory:
    """Samples resident memory while a block runs."""

    def __enter__(self) -> _Memory:
        self._process = psutil.Process()
        self._done = threading.Event()
        self._start = self._most = self._process.memory_info().rss
        self._sampler = threading.Thread(target=self._sample)
        self._sampler.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._sampler.join()

    @property
    def added_mb(self) -> float:
        return (self._most - self._start) / 2**20

    def _sample(self) -> None:
        while not self._done.wait(0.02):
            self._most = max(self._most, self._process.memory_info().rss)


@pytest.fixture(scope="session")
def machine() -> str:
    """Processor and how many of them, for the results."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return f"{line.split(':', 1)[1].strip()}, {psutil.cpu_count()} cores"
    return platform.processor()


@pytest.fixture(scope="module")
def record(
    request: pytest.FixtureRequest, full: bool, machine: str
) -> Iterator[Callable[..., None]]:
    """`record(column=value, ...)`: one row of results/<benchmark>.csv, written with --full."""
    rows: list[dict[str, object]] = []
    yield lambda **columns: rows.append({"machine": machine, **columns})
    if full and rows:
        name = request.module.__name__.rsplit(".", 1)[-1].removeprefix("bench_")
        with (RESULTS / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
