"""Feeds damaged files to everything that reads files of strangers.

    python tests/fuzz/fuzz.py --seconds 600 --seed 0

A reader may accept a file or raise one of our errors. Anything else is a finding: another
exception, the end of the process, too much memory or too much time. Inputs are tried in a child
process, so that a crash costs one input; each follows from the seed and its number, so that
`--only NUMBER` tries it again.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any

if __name__ in ("__main__", "__mp_main__"):
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from mutations import mutate
from targets import Target, make_targets

__all__ = ["Finding", "Report", "fuzz"]

_MOST_MEMORY = 768 << 20
#: Of the processor: the machine may be busy.
_MOST_SECONDS = 20
_STUCK_SECONDS = 200
#: Beyond this an allocation fails: the machine is not only ours.
_ADDRESS_SPACE = 16 << 30
#: Inputs between two words of the child.
_TOGETHER = 50


@dataclass(frozen=True)
class Finding:
    """An input that is neither accepted nor refused with one of our errors."""

    number: int
    target: str
    what: str


@dataclass
class Report:
    """What was tried: inputs by target, and the findings."""

    tried: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)


def fuzz(seed: int, *, inputs: int | None = None, seconds: float = 1e9) -> Report:
    """Try so many inputs, or for so long."""
    context = multiprocessing.get_context("spawn")
    report, at = Report(), context.Value("q", 0)
    deadline = time.monotonic() + seconds
    number = 0
    while (inputs is None or number < inputs) and time.monotonic() < deadline:
        parent, child = context.Pipe()
        process = context.Process(target=_work, args=(child, at, seed, number, inputs, deadline))
        process.start()
        child.close()
        try:
            while True:
                last = at.value
                while not parent.poll(_STUCK_SECONDS):
                    if at.value == last:
                        process.kill()  # compiled code hears no signal
                        break
                    last = at.value
                tried, findings = parent.recv()
                report.tried.update(tried)
                report.findings += findings
        except EOFError:
            process.join()
        number = at.value + 1
        if process.exitcode != 0:
            what = f"the process ended with {process.exitcode}"
            report.findings.append(Finding(at.value, "?", what))
    return report


def _work(
    results: Connection, at: Any, seed: int, first: int, inputs: int | None, deadline: float
) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    signal.signal(signal.SIGPROF, _too_long)
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base)
        targets = make_targets(folder)
        number = first
        while (inputs is None or number < inputs) and time.monotonic() < deadline:
            tried: Counter[str] = Counter()
            findings = []
            stop = number + _TOGETHER if inputs is None else min(number + _TOGETHER, inputs)
            while number < stop:
                at.value = number
                target, path = _input(targets, folder, seed, number)
                tried[target.name] += 1
                what = _try(target, path)
                if what is not None:
                    findings.append(Finding(number, target.name, what))
                path.unlink()
                number += 1
            results.send((tried, findings))


def _input(targets: list[Target], folder: Path, seed: int, number: int) -> tuple[Target, Path]:
    dice = random.Random(f"{seed} {number}")
    target = targets[number % len(targets)]
    name = dice.choice(sorted(target.files))
    path = folder / "input" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(mutate(target.files[name], dice, sorted(target.files.values())))
    return target, path


def _try(target: Target, path: Path) -> str | None:
    """What is wrong with how the target took it, or None."""
    Path("/proc/self/clear_refs").write_text("5")
    before = _memory("VmRSS")
    signal.setitimer(signal.ITIMER_PROF, _MOST_SECONDS)
    try:
        target.read(path)
    except Exception as error:
        frames = [f"{f.name}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)[-4:]]
        return f"{type(error).__name__}: {error} in {' '.join(frames)}"[:600]
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    grown = _memory("VmHWM") - before
    return f"{grown >> 20} MiB of memory" if grown > _MOST_MEMORY else None


def _memory(kind: str) -> int:
    for line in _status():
        if line.startswith(kind):
            return int(line.split()[1]) << 10
    raise AssertionError(kind)


def _status() -> Iterator[str]:
    yield from Path("/proc/self/status").read_text().splitlines()


def _too_long(number: int, frame: FrameType | None) -> None:
    raise TimeoutError(f"more than {_MOST_SECONDS} s")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="try this input, here, and keep it")
    options = parser.parse_args()
    if options.only is not None:
        folder = Path(tempfile.mkdtemp())
        target, path = _input(make_targets(folder), folder, options.seed, options.only)
        print(target.name, path, os.path.getsize(path), flush=True)
        target.read(path)
        return
    report = fuzz(options.seed, seconds=options.seconds)
    for name, count in sorted(report.tried.items()):
        print(f"{count:8,}  {name}")
    print(f"{report.tried.total():8,}  inputs, {len(report.findings)} findings")
    for finding in report.findings:
        print(f"{finding.number}  {finding.target}: {finding.what}")


if __name__ == "__main__":
    main()
