"""`graded_infonce` beside plain torch in float32: forward and backward, one thread.

    pytest benchmarks/bench_loss.py -s [--gate] [--full]

Promised in float32: 3 times torch, 4.5 times with self-contrast, gradients within 1e-4 of float64,
at a tenth of torch's memory. Memory is the peak that a call adds in a process of its own; float64
is affordable up to 4,096 queries, and torch itself up to there too with self-contrast.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

import psutil
import pytest
import torch
from conftest import race
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from ssra_engine.kernels.loss import graded_infonce

D, DIMS = 1024, [128, 256, 512, 768, 1024]
SMALL = [(1024, 0, False), (1024, 0, True)]
FULL = [
    (b, m, self_contrast)
    for b, m in ((1024, 0), (4096, 0), (4096, 4096), (16384, 0))
    for self_contrast in (False, True)
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    sizes = FULL if metafunc.config.getoption("--full") else SMALL
    metafunc.parametrize(("b", "m", "self_contrast"), sizes)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def batch(b: int, m: int) -> dict[str, Tensor | None]:
    draw = torch.Generator().manual_seed(b)
    query = torch.randn(b, D, generator=draw)
    return {
        "query": query,
        "positive": 0.5 * query + torch.randn(b, D, generator=draw),
        "grades": torch.randint(0, 4, (b,), generator=draw).float(),
        "negatives": torch.randn(m, D, generator=draw) if m else None,
    }


def step(
    inputs: dict[str, Tensor | None], backend: str, self_contrast: bool, *, wide: bool = False
) -> list[Tensor]:
    """Loss, then the gradients of query, positive and negatives."""
    leaves = {
        k: None if x is None else x.double() if wide else x.clone() for k, x in inputs.items()
    }
    wanted = [x.requires_grad_() for k, x in leaves.items() if x is not None and k != "grades"]
    loss = graded_infonce(
        **leaves,  # type: ignore[arg-type]
        dims=DIMS,
        self_contrast=self_contrast,
        false_negative_margin=0.1,
        backend=backend,  # type: ignore[arg-type]
    )
    return [loss.detach(), *torch.autograd.grad(loss, wanted)]


def added_mb(b: int, m: int, backend: str, self_contrast: bool) -> float:
    """Peak resident memory of one step beyond its inputs, in a process of its own."""
    code = (
        "import resource, torch; from bench_loss import batch, step; torch.set_num_threads(1);"
        f"step(batch(64, 64), {backend!r}, {self_contrast}); inputs = batch({b}, {m});"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024;"
        f"before = peak(); step(inputs, {backend!r}, {self_contrast}); print(peak() - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd="benchmarks"
    )
    return float(done.stdout)


def affordable(b: int, m: int, self_contrast: bool) -> bool:
    """Whether torch's matrices of pairs fit: some twelve of them for each dim."""
    pairs = b * (b + m + 2 * b * self_contrast)
    return pairs * 4 * 12 * len(DIMS) < 0.6 * psutil.virtual_memory().available


def largest_error(got: list[Tensor], expected: list[Tensor]) -> float:
    return max(
        float((ours.double() - theirs).abs().max() / theirs.abs().max())
        for ours, theirs in zip(got, expected, strict=True)
    )


def test_loss(
    benchmark: BenchmarkFixture,
    gate: Callable[[str, float, float], None],
    record: Callable[..., None],
    full: bool,
    *,
    b: int,
    m: int,
    self_contrast: bool,
) -> None:
    inputs = batch(b, m)
    ours = step(inputs, "kernel", self_contrast)
    compared = affordable(b, m, self_contrast)
    error = float("nan")
    if compared and b <= 4096 and affordable(2 * b, m, self_contrast):
        error = largest_error(ours, step(inputs, "torch", self_contrast, wide=True))
        assert error < 1e-4

    contestants = {"ours": lambda: step(inputs, "kernel", self_contrast)}
    if compared:
        contestants["torch"] = lambda: step(inputs, "torch", self_contrast)
    times = race(contestants, rounds=2 if full else 3)
    benchmark.pedantic(step, (inputs, "kernel", self_contrast), rounds=1)

    memory = dict.fromkeys(("kernel", "torch"), 0.0)
    if full:
        memory["kernel"] = added_mb(b, m, "kernel", self_contrast)
        memory["torch"] = added_mb(b, m, "torch", self_contrast) if compared else float("nan")
    ratio = times["torch"].processor / times["ours"].processor if compared else float("nan")
    record(
        threads=1,
        queries=b,
        negatives=m,
        d=D,
        dims="/".join(map(str, DIMS)),
        self_contrast=self_contrast,
        products="float32",
        ours_s=f"{times['ours'].wall:.3f}",
        ours_cpu_s=f"{times['ours'].processor:.3f}",
        torch_s=f"{times['torch'].wall:.3f}" if compared else "",
        torch_cpu_s=f"{times['torch'].processor:.3f}" if compared else "",
        times_torch=f"{ratio:.2f}" if compared else "",
        ours_added_mb=f"{memory['kernel']:.0f}",
        torch_added_mb=f"{memory['torch']:.0f}" if compared else "",
        largest_error=f"{error:.1e}",
    )
    if compared:
        promised = (4.5 if self_contrast else 3.0) if full else (3.0 if self_contrast else 2.0)
        gate(f"{b} queries, {m} negatives, self-contrast {self_contrast}", ratio, promised)
