"""`graded_infonce` with products in bfloat16: the same on every instruction set, near float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from graded_batches import Batch, batch, in_double, value_and_gradients
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from ssra_engine import _core
from ssra_engine.kernels import reference
from ssra_engine.kernels.loss import graded_infonce


def expected_value(inputs: Batch, **settings: Any) -> float:
    candidates = torch.cat([x for x in (inputs["positive"], inputs["negatives"]) if x is not None])
    margin = settings.pop("false_negative_margin", None)
    return reference.graded_infonce(
        inputs["query"].numpy(),  # type: ignore[union-attr]
        candidates.numpy(),
        inputs["grades"].numpy(),  # type: ignore[union-attr]
        margin=np.inf if margin is None else margin,
        products="bfloat16",
        **settings,
    )


def assert_near(got: list[Tensor], expected: list[Tensor], relative: float, floor: float) -> None:
    """Entries of a gradient relative to its largest; `floor` where its parts may cancel."""
    assert len(got) == len(expected)
    for ours, theirs in zip(got, expected, strict=True):
        limit = relative * float(theirs.abs().max()) + floor
        assert float((ours.double() - theirs.double()).abs().max()) <= limit


@given(
    seed=st.integers(0, 1000),
    b=st.integers(1, 110),
    m=st.integers(0, 60),
    dims=st.lists(
        st.integers(1, 120) | st.integers(250, 420), min_size=1, max_size=4, unique=True
    ).map(sorted),
    more=st.integers(0, 9),
    self_contrast=st.booleans(),
    temperature=st.sampled_from([0.05, 0.1, 2.0]),
)
@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_value_and_gradients(
    isa: str,
    *,
    seed: int,
    b: int,
    m: int,
    dims: list[int],
    more: int,
    self_contrast: bool,
    temperature: float,
) -> None:
    """The value is that of rounded vectors to float32; gradients also round a pair's weight."""
    inputs = batch(seed, b, dims[-1] + more, m)
    settings = {"dims": dims, "self_contrast": self_contrast, "temperature": temperature}
    got = value_and_gradients(inputs, products="bfloat16", **settings)
    plain = value_and_gradients(in_double(inputs), products="bfloat16", **settings)
    value = expected_value(inputs, **settings)
    assert float(plain[0]) == pytest.approx(value, rel=1e-9, abs=1e-12)
    assert float(got[0]) == pytest.approx(value, rel=1e-4, abs=1e-5)

    vectors = torch.cat([x for x in inputs.values() if x is not None and x.ndim == 2])
    shortest = float(vectors[:, : dims[0]].norm(dim=1).min())
    assert_near(got[1:-1], plain[1:-1], 3e-3, 1e-2 / b / temperature / shortest)
    # Its parts cancel where the weights of a row meet much the same cosine.
    assert_near(got[-1:], plain[-1:], 1e-3, 1e-5 / temperature**2)


@pytest.mark.parametrize("self_contrast", [False, True])
@pytest.mark.parametrize("backend", ["kernel", "torch"])
def test_gradients_near_float64(isa: str, self_contrast: bool, backend: str) -> None:
    inputs = batch(1, 300, 768, 100)
    settings = {"dims": [128, 255, 256, 511, 768], "self_contrast": self_contrast}
    got = value_and_gradients(inputs, products="bfloat16", backend=backend, **settings)
    assert_near(got, value_and_gradients(in_double(inputs), **settings), 5e-3, 0)


def test_rules_see_rounded_cosines(isa: str) -> None:
    """A candidate just below the ceiling, which rounding lifts above it, where dims are many."""
    side = 0.75 + 2**-9 + 2**-20  # rounds up, to 0.75 + 2^-8
    inputs: Batch = {
        "query": torch.zeros(2, 300),
        "positive": torch.zeros(2, 300),
        "grades": torch.tensor([1.0, 0.0]),
        "negatives": torch.zeros(1, 300),
    }
    inputs["query"][:, :2] = torch.eye(2)  # type: ignore[index]
    inputs["positive"][:, :2] = torch.tensor([[0.6, 0.8], [0.0, 1.0]])  # type: ignore[index]
    inputs["negatives"][:, :2] = torch.tensor([side, (1 - side**2) ** 0.5])  # type: ignore[index]
    settings = {"dims": [300], "temperature": 1.0, "false_negative_margin": side + 2**-10 - 0.6}
    exact = graded_infonce(**inputs, **settings)  # type: ignore[arg-type]
    for backend in ("kernel", "torch"):
        got = graded_infonce(**inputs, **settings, products="bfloat16", backend=backend)  # type: ignore[arg-type]
        assert float(got) == pytest.approx(expected_value(inputs, **settings), rel=1e-6)
        assert float(got) < 0.7 * float(exact)


def huge(x: Tensor) -> Tensor:
    return x * 1e15


def tiny(x: Tensor) -> Tensor:
    return x * 1e-9


def zeros_between(x: Tensor) -> Tensor:
    return x * (torch.arange(len(x)) % 3 > 0)[:, None]


def one_huge_coordinate(x: Tensor) -> Tensor:
    return torch.where(torch.arange(x.shape[1]) == 290, 1e4 * x, x)


@pytest.mark.parametrize("change", [huge, tiny, zeros_between, one_huge_coordinate])
def test_hard_vectors(isa: str, change: Callable[[Tensor], Tensor]) -> None:
    inputs = batch(2, 61, 300)
    inputs["query"], inputs["positive"] = (change(inputs[x]) for x in ("query", "positive"))  # type: ignore[arg-type]
    settings = {"dims": [5, 300], "self_contrast": True, "temperature": 0.1}
    got = value_and_gradients(inputs, products="bfloat16", **settings)
    assert float(got[0]) == pytest.approx(expected_value(inputs, **settings), rel=1e-4)
    plain = value_and_gradients(in_double(inputs), products="bfloat16", **settings)
    assert_near(got, plain, 5e-3, 0)


def test_sets_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = batch(3, 200, 300, 40)
    results = []
    for isa in _core.available_isas():
        monkeypatch.setenv("SSRA_ISA", isa)
        settings = {"dims": [31, 300], "self_contrast": True, "products": "bfloat16"}
        results.append(value_and_gradients(inputs, **settings))
    for result in results[1:]:
        assert_near(result, results[0], 1e-4, 0)


def test_rounded_inputs_lose_nothing_in_the_value() -> None:
    """bfloat16 tensors are their own rounding."""
    inputs = batch(4, 90, 300, 20)
    inputs = {name: None if x is None else x.bfloat16().float() for name, x in inputs.items()}
    settings = {"dims": [16, 300], "self_contrast": True}
    got = value_and_gradients(inputs, products="bfloat16", **settings)
    expected = value_and_gradients(inputs, **settings)
    assert float(got[0]) == pytest.approx(float(expected[0]), rel=1e-6)
    half = {name: None if x is None else x.bfloat16() for name, x in inputs.items()}
    again = value_and_gradients(half, products="bfloat16", **settings)
    assert torch.equal(again[0], got[0])
    assert torch.equal(again[1], got[1].bfloat16())


@pytest.mark.parametrize("backend", ["kernel", "torch"])
@pytest.mark.parametrize("products", ["float32", "bfloat16"])
def test_autocast_changes_nothing(backend: str, products: str) -> None:
    inputs = batch(5, 40, 300, 9)
    settings = {"self_contrast": True, "backend": backend, "products": products}
    expected = value_and_gradients(inputs, **settings)
    query = inputs["query"].requires_grad_()  # type: ignore[union-attr]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = graded_infonce(**inputs, temperature=torch.tensor(0.05), **settings)  # type: ignore[arg-type]
    assert torch.equal(loss, expected[0])
    (gradient,) = torch.autograd.grad(loss, query)
    assert torch.equal(gradient, expected[1])


def test_threads_change_no_bit() -> None:
    inputs = batch(6, 301, 290, 30)
    settings = {"dims": [31, 290], "self_contrast": True, "products": "bfloat16"}
    before = torch.get_num_threads()
    try:
        runs = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            runs.append(value_and_gradients(inputs, **settings))
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, *runs))
