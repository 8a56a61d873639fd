"""`graded_infonce` beside plain torch in float32: forward and backward, one thread.

    pytest benchmarks/bench_loss.py -s [--gate] [--full]

Promised in float32: 3 times torch, 4.5 times with self-contrast, gradients within 1e-4 of float64,
at a tenth of torch's memory; with products in bfloat16, on a processor that has them, 5 times torch
in float32, 7 times with self-contrast, within 5e-3. That is from 4,096 queries on: with 1,024,
torch's matrices stay in cache, and what is promised is less. Memory is the peak that a call adds in
a process of its own; 16,384 queries are too many for torch.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import psutil
import pytest
import torch
from conftest import Timing, race
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from ssra_engine import _core
from ssra_engine.kernels.loss import graded_infonce

D, DIMS = 1024, [128, 256, 512, 768, 1024]
ISA = os.environ.get("SSRA_ISA") or _core.available_isas()[0]


class Promise(NamedTuple):
    """Times torch, without and with self-contrast: from 4,096 queries on, and for 1,024."""

    many: tuple[float, float]
    few: tuple[float, float]
    largest_error: float


PROMISES = {
    "float32": Promise((3.0, 4.5), (2.0, 3.0), 1e-4),
    "bfloat16": Promise((5.0, 7.0), (2.8, 4.0), 5e-3),
}
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
    inputs: dict[str, Tensor | None],
    backend: str,
    self_contrast: bool,
    *,
    products: str = "float32",
    wide: bool = False,
) -> list[Tensor]:
    """Loss, then the gradients of query, positive and negatives."""
    leaves = {
        k: None if x is None else x.double() if wide else x.detach() for k, x in inputs.items()
    }
    wanted = [x.requires_grad_() for k, x in leaves.items() if x is not None and k != "grades"]
    loss = graded_infonce(
        **leaves,  # type: ignore[arg-type]
        dims=DIMS,
        self_contrast=self_contrast,
        false_negative_margin=0.1,
        products=products,  # type: ignore[arg-type]
        backend=backend,  # type: ignore[arg-type]
    )
    return [loss.detach(), *torch.autograd.grad(loss, wanted)]


def added_mb(b: int, m: int, backend: str, self_contrast: bool, products: str) -> float:
    """Peak resident memory of one step beyond its inputs, in a process of its own."""
    code = (
        "import re, torch; from pathlib import Path; from bench_loss import batch, step;"
        "torch.set_num_threads(1);"
        f"run = lambda x: step(x, {backend!r}, {self_contrast}, products={products!r});"
        f"run(batch(64, 64)); inputs = batch({b}, {m}); own = Path('/proc/self');"
        "kb = lambda what: int(re.search(what + r':\\s+(\\d+)', (own / 'status').read_text())[1]);"
        "(own / 'clear_refs').write_text('5'); before = kb('VmRSS');"  # 5: the peak is now
        "run(inputs); print((kb('VmHWM') - before) / 1024)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd="benchmarks"
    )
    return float(done.stdout)


def affordable(b: int, m: int, self_contrast: bool, bytes_each: int = 4) -> bool:
    """Whether torch's matrices of pairs fit: some five of them for each dim."""
    pairs = b * (b + m + 2 * b * self_contrast)
    return pairs * bytes_each * 5 * len(DIMS) < 0.7 * psutil.virtual_memory().available


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
    compared = affordable(b, m, self_contrast)
    contestants = {x: partial(step, inputs, "kernel", self_contrast, products=x) for x in PROMISES}
    errors = dict.fromkeys(PROMISES, float("nan"))
    if compared and b <= 4096 and affordable(b, m, self_contrast, bytes_each=8):
        expected = step(inputs, "torch", self_contrast, wide=True)
        for products, promise in PROMISES.items():
            errors[products] = largest_error(contestants[products](), expected)
            assert errors[products] < promise.largest_error
    if compared:
        contestants["torch"] = partial(step, inputs, "torch", self_contrast)
    times = race(contestants, rounds=2 if full else 3)
    benchmark.pedantic(contestants["float32"], rounds=1)

    theirs = times.get("torch", Timing(float("nan"), float("nan"), 0.0))
    torch_mb = added_mb(b, m, "torch", self_contrast, "float32") if full and compared else 0.0
    for products, promise in PROMISES.items():
        ours = times[products]
        ratio = theirs.processor / ours.processor
        ours_mb = added_mb(b, m, "kernel", self_contrast, products) if full else 0.0
        record(
            isa=ISA,
            threads=1,
            queries=b,
            negatives=m,
            d=D,
            dims="/".join(map(str, DIMS)),
            self_contrast=self_contrast,
            products=products,
            ours_s=f"{ours.wall:.3f}",
            ours_cpu_s=f"{ours.processor:.3f}",
            torch_s=f"{theirs.wall:.3f}" if compared else "",
            torch_cpu_s=f"{theirs.processor:.3f}" if compared else "",
            times_torch=f"{ratio:.2f}" if compared else "",
            ours_added_mb=f"{ours_mb:.0f}",
            torch_added_mb=f"{torch_mb:.0f}" if compared else "",
            largest_error=f"{errors[products]:.1e}",
        )
        if compared and (products == "float32" or ISA == "bf16"):
            least = (promise.many if b >= 4096 else promise.few)[self_contrast]
            what = f"{b} queries, {m} negatives, self-contrast {self_contrast}, {products}"
            gate(what, ratio, least)
