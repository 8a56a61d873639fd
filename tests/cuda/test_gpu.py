"""Mining and the loss on a real GPU, against the kernels of the CPU and against float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ssra_engine.kernels import cuda, cuda_loss, cuda_mining
from ssra_engine.kernels.loss import graded_infonce
from ssra_engine.kernels.mining import MiningIndex

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no NVIDIA GPU"),
]


@pytest.fixture(autouse=True)
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extension that is installed, else one that is built now."""
    if not cuda.is_built():
        built = request.getfixturevalue("built")
        monkeypatch.setattr(cuda, "_found", lambda: built)


def integers(rng: np.random.Generator, *shape: int) -> Any:
    """Small whole numbers: products are exact in float32, and ties are everywhere."""
    return rng.integers(-3, 4, shape).astype(np.float32)


def assert_same(ours: Any, theirs: Any) -> None:
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("k", [1, 100, 2000])
@pytest.mark.parametrize("threads", [32, 256])
def test_mining_under_rules(monkeypatch: pytest.MonkeyPatch, k: int, threads: int) -> None:
    monkeypatch.setattr(cuda, "THREADS", threads)
    monkeypatch.setattr(cuda_mining, "QUERY_ROWS", 300)
    monkeypatch.setattr(cuda_mining, "TILE_BYTES", 4 * 300 * 7001)
    rng = np.random.default_rng(k)
    q, documents = integers(rng, 700, 96), integers(rng, 50_000, 96)
    names = rng.permutation(100_000)[:50_000]
    rules: dict[str, Any] = {
        "banned": [rng.choice(names, 200) for _ in q],
        "positive_scores": np.full(len(q), 150, np.float32),
        "absolute_margin": 10.0,
        "relative_margin": 0.125,
        "min_score": -20,
        "skip_top": 5,
    }
    there, here = MiningIndex(96), MiningIndex(96)
    for part in (slice(0, 20_000), slice(20_000, None)):
        there.add(torch.from_numpy(documents[part]).cuda(), names[part])
        here.add(documents[part], names[part])
    assert there.isa == "cuda"
    expected = here.mine(q, k, **rules)
    assert_same(there.mine(torch.from_numpy(q).cuda(), k, **rules), expected)
    assert_same(there.mine(q, k, **rules), expected)


def test_cosines() -> None:
    rng = np.random.default_rng(0)
    q = rng.standard_normal((300, 256), np.float32)
    documents = rng.standard_normal((20_000, 256), np.float32)
    there, here = MiningIndex(256, "cosine"), MiningIndex(256, "cosine")
    there.add(torch.from_numpy(documents).cuda())
    here.add(documents)
    ours, theirs = there.mine(q, 50), here.mine(q, 50)
    np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-6)
    assert (ours.ids == theirs.ids).mean() > 0.999  # float32 may swap neighbours


def value_and_gradients(inputs: list[Tensor], heat: float, **options: Any) -> list[Tensor]:
    query, positive, negatives = (x.clone().requires_grad_() for x in inputs[:3])
    temperature = torch.tensor(heat, device="cuda", dtype=torch.float64, requires_grad=True)
    loss = graded_infonce(
        query, positive, inputs[3], negatives=negatives, temperature=temperature, **options
    )
    return [
        loss.detach(),
        *torch.autograd.grad(loss, (query, positive, negatives, temperature)),
    ]


def batch(b: int, m: int, d: int) -> list[Tensor]:
    draw = torch.Generator().manual_seed(b)
    query = torch.randn(b, d, generator=draw)
    positive = 0.5 * query + torch.randn(b, d, generator=draw)
    grades = torch.randint(0, 4, (b,), generator=draw).float()
    return [x.cuda() for x in (query, positive, torch.randn(m, d, generator=draw), grades)]


@pytest.mark.parametrize("self_contrast", [False, True])
@pytest.mark.parametrize("rows", [128, 1000, 4096])
@pytest.mark.parametrize("threads", [32, 256])
def test_loss_and_gradients(
    monkeypatch: pytest.MonkeyPatch, self_contrast: bool, rows: int, threads: int
) -> None:
    monkeypatch.setattr(cuda, "THREADS", threads)
    monkeypatch.setattr(cuda_loss, "BLOCK_BYTES", 0)
    monkeypatch.setattr(cuda_loss, "FEWEST_ROWS", rows)
    inputs = batch(1500, 333, 512)
    options = {"dims": [64, 100, 256, 512], "self_contrast": self_contrast}
    got = value_and_gradients(inputs, 0.03, backend="kernel", **options)
    expected = value_and_gradients([x.double() for x in inputs], 0.03, backend="torch", **options)
    for ours, theirs in zip(got, expected, strict=True):
        assert float((ours.double() - theirs).abs().max()) <= 1e-4 * float(theirs.abs().max())


def test_on_a_stream_of_its_own_and_twice_the_same_bits() -> None:
    inputs = batch(700, 50, 128)
    options = {"dims": [32, 128], "self_contrast": True, "false_negative_margin": 0.1}
    first = value_and_gradients(inputs, 0.05, **options)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        second = value_and_gradients(inputs, 0.05, **options)
    torch.cuda.current_stream().wait_stream(side)
    assert all(map(torch.equal, first, second))
