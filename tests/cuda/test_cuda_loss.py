"""The contrastive loss on emulated blocks of threads, against float64: values and gradients."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from ssra_engine.kernels import cuda, cuda_loss, loss, reference
from ssra_engine.kernels.loss import graded_infonce

HEAT = 0.05


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few threads, and blocks of few anchors."""
    monkeypatch.setattr(cuda, "THREADS", 32)
    monkeypatch.setattr(cuda_loss, "BLOCK_BYTES", 0)
    monkeypatch.setattr(cuda_loss, "FEWEST_ROWS", 20)


def batch(seed: int, b: int, d: int, m: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Queries near their positives, so that the margin has something to leave out."""
    draw = torch.Generator().manual_seed(seed)
    query = torch.randn(b, d, generator=draw)
    positive = 0.5 * query + torch.randn(b, d, generator=draw)
    grades = torch.randint(0, 4, (b,), generator=draw).float()
    return query, torch.cat([positive, torch.randn(m, d, generator=draw)]), grades


def in_float64(
    query: Tensor, candidates: Tensor, grades: Tensor, heat: float, **options: Any
) -> list[Tensor]:
    """The loss by plain torch, and its gradients."""
    q, c = query.double().requires_grad_(), candidates.double().requires_grad_()
    temperature = torch.tensor(heat, dtype=torch.float64, requires_grad=True)
    loss = graded_infonce(
        q,
        c[: len(q)],
        grades.double(),
        negatives=c[len(q) :],
        dims=options["dims"],
        temperature=temperature,
        self_contrast=options["self_contrast"],
        false_negative_margin=options["margin"],
        backend="torch",
    )
    return [loss.detach(), *torch.autograd.grad(loss, (q, c, temperature))]


def assert_as_in_float64(
    query: Tensor, candidates: Tensor, grades: Tensor, heat: float = HEAT, **options: Any
) -> None:
    """Every gradient within 1e-4 of float64, relative to its largest entry, rounding aside."""
    got = cuda_loss.infonce(query, candidates, grades, torch.tensor(heat), **options)
    assert all(len(x) == 0 for x in got[1:3]) != options["gradients"]
    expected = in_float64(query, candidates, grades, heat, **options)
    lengths = torch.cat([query, candidates])[:, : options["dims"][0]].norm(dim=1)
    shortest = float(lengths[lengths > 0].min()) if lengths.any() else 1.0
    rounding = 1e-5 / len(query) / heat
    compared = 4 if options["gradients"] else 1
    for ours, theirs in list(zip(got, expected, strict=True))[:compared]:
        assert ours.shape == theirs.shape
        floor = rounding / shortest if ours.ndim else 1e-6 / heat**2
        limit = 1e-4 * float(theirs.abs().max()) + floor
        assert float((ours.double() - theirs).abs().max()) <= limit


def near_the_ceiling(query: Tensor, candidates: Tensor, dims: list[int], margin: float) -> bool:
    """Whether float32 may decide otherwise than float64 about some candidate."""
    count = len(query)
    for dim in dims:
        q, c = (torch.nn.functional.normalize(x[:, :dim].double()) for x in (query, candidates))
        ceiling = (q * c[:count]).sum(1, keepdim=True) + margin
        for left, right in ((q, c), (q, q), (c[:count], c[:count])):
            gaps = (left @ right.T - ceiling).abs().fill_diagonal_(1)
            if float(gaps.min()) < 1e-5:
                return True
    return False


@given(
    seed=st.integers(0, 1000),
    b=st.integers(1, 70),
    m=st.integers(0, 40),
    dims=st.lists(st.integers(1, 40), min_size=1, max_size=4, unique=True).map(sorted),
    more=st.integers(0, 5),
    self_contrast=st.booleans(),
    margin=st.sampled_from([np.inf, 0.0, 0.1]),
    heat=st.sampled_from([0.02, 0.1, 2.0]),
    gradients=st.booleans(),
    rows=st.integers(1, 80),
    threads=st.sampled_from([32, 64, 256]),
    order=st.integers(0, 5),
)
@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@pytest.mark.usefixtures("small")
def test_value_and_gradients(
    emulated: Any,
    *,
    seed: int,
    b: int,
    m: int,
    dims: list[int],
    more: int,
    self_contrast: bool,
    margin: float,
    heat: float,
    gradients: bool,
    rows: int,
    threads: int,
    order: int,
) -> None:
    cuda.THREADS, cuda_loss.FEWEST_ROWS = threads, rows  # put back by the fixture
    emulated.set_order(order)
    query, candidates, grades = batch(seed, b, dims[-1] + more, m)
    if margin < np.inf and near_the_ceiling(query, candidates, dims, margin):
        return
    assert_as_in_float64(
        query,
        candidates,
        grades,
        heat,
        dims=dims,
        self_contrast=self_contrast,
        margin=margin,
        gradients=gradients,
    )


@pytest.mark.parametrize("self_contrast", [False, True])
@pytest.mark.parametrize("margin", [np.inf, 0.1])
@pytest.mark.usefixtures("small")
def test_equals_the_reference(emulated: Any, self_contrast: bool, margin: float) -> None:
    query, candidates, grades = batch(0, 50, 12, 7)
    dims = [3, 8, 12]
    got = cuda_loss.infonce(
        query, candidates, grades, torch.tensor(0.2), dims, self_contrast, margin, gradients=False
    )
    expected = reference.graded_infonce(
        query.numpy(),
        candidates.numpy(),
        grades.numpy(),
        dims,
        temperature=0.2,
        self_contrast=self_contrast,
        margin=margin,
    )
    assert float(got[0]) == pytest.approx(expected, rel=1e-6)


def identical(x: Tensor) -> Tensor:
    return x[:1].expand_as(x).clone()


def zeros_between(x: Tensor) -> Tensor:
    return x * (torch.arange(len(x)) % 3 > 0)[:, None]


def zero_prefix(x: Tensor) -> Tensor:
    return x * (torch.arange(x.shape[1]) >= 5)


def huge(x: Tensor) -> Tensor:
    return x * 1e25


def huge_but_for_a_zero_prefix(x: Tensor) -> Tensor:
    return zero_prefix(x) * 1e30


def tiny(x: Tensor) -> Tensor:
    return x * 1e-9


def below_the_shortest_length(x: Tensor) -> Tensor:
    """Divided by 1e-12 instead of by their lengths, which are then constants."""
    return torch.where((torch.arange(len(x)) % 2 > 0)[:, None], x, x * 1e-13)


@pytest.mark.parametrize(
    "change",
    [
        identical,
        zeros_between,
        zero_prefix,
        huge,
        huge_but_for_a_zero_prefix,
        tiny,
        below_the_shortest_length,
    ],
)
@pytest.mark.parametrize("self_contrast", [False, True])
@pytest.mark.usefixtures("small")
def test_hard_vectors(
    emulated: Any, change: Callable[[Tensor], Tensor], self_contrast: bool
) -> None:
    query, candidates, grades = batch(2, 30, 40)
    assert_as_in_float64(
        change(query),
        change(candidates),
        grades,
        dims=[5, 40],
        self_contrast=self_contrast,
        margin=np.inf,
        gradients=True,
    )


@pytest.mark.parametrize("self_contrast", [False, True])
@pytest.mark.usefixtures("small")
def test_bfloat16_products(
    emulated: Any, monkeypatch: pytest.MonkeyPatch, self_contrast: bool
) -> None:
    """The CPU has no such product, but every product of two bfloat16 numbers is a float32."""
    monkeypatch.setattr(cuda_loss, "_mixed_product", lambda x, y: x.float() @ y.float())
    options: dict[str, Any] = {"dims": [64, 256], "self_contrast": self_contrast, "margin": np.inf}
    inputs = batch(6, 90, 256, 20)
    got = cuda_loss.infonce(
        *inputs, torch.tensor(HEAT), **options, gradients=True, products="bfloat16"
    )
    expected = in_float64(*inputs, HEAT, **options)
    for ours, theirs in zip(got, expected, strict=True):
        assert float((ours.double() - theirs).norm()) <= 5e-3 * float(theirs.norm())
    exact = cuda_loss.infonce(*inputs, torch.tensor(HEAT), **options, gradients=True)
    assert not torch.equal(got[1], exact[1])


def settled(emulated: Any, order: int) -> list[Tensor]:
    """Loss and gradients of one batch with everything in it."""
    emulated.set_order(order)
    options: dict[str, Any] = {"self_contrast": True, "margin": 0.1, "gradients": True}
    return list(cuda_loss.infonce(*batch(4, 45, 24, 9), torch.tensor(HEAT), [8, 24], **options))


@pytest.mark.usefixtures("small")
def test_the_order_of_threads_and_blocks_changes_no_bit(emulated: Any) -> None:
    first = settled(emulated, 0)
    for order in (1, 2, 3):
        for ours, theirs in zip(settled(emulated, order), first, strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.usefixtures("small")
def test_every_barrier_is_needed(emulated: Any) -> None:
    expected = settled(emulated, 0)
    barriers = emulated.take_barriers()
    assert len(barriers) == 3

    def same(order: int) -> bool:
        return all(map(torch.equal, settled(emulated, order), expected))

    for barrier in barriers:
        emulated.skip_barrier(barrier)
        assert not all(map(same, (0, 1, 2))), f"nothing notices that {barrier} is gone"


@pytest.mark.usefixtures("small")
def test_nan_stays_nan(emulated: Any) -> None:
    for value in (torch.nan, torch.inf):
        query, candidates, grades = batch(5, 30, 16)
        candidates[7, 3] = value
        loss = cuda_loss.infonce(
            query, candidates, grades, torch.tensor(HEAT), [16], False, 0.1, gradients=False
        )[0]
        assert loss.isnan()


@pytest.mark.usefixtures("small")
def test_no_products_in_lower_precision(emulated: Any) -> None:
    settings = torch.backends.cuda.matmul
    before = settings.fp32_precision
    options: dict[str, Any] = {"self_contrast": True, "margin": 0.1, "gradients": True}
    arguments = (*batch(4, 45, 24, 9), torch.tensor(HEAT), [8, 24])
    expected = cuda_loss.infonce(*arguments, **options)
    try:
        settings.fp32_precision = "tf32"
        with cuda.computing_on(torch.device("cpu")):
            assert settings.fp32_precision == "ieee"
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = cuda_loss.infonce(*arguments, **options)
        assert settings.fp32_precision == "tf32"
    finally:
        settings.fp32_precision = before
    assert all(map(torch.equal, got, expected))


def test_the_operator_takes_on_a_gpu_what_it_takes_elsewhere() -> None:
    ours = inspect.signature(cuda_loss.infonce).parameters
    names = [argument.name for argument in loss._kernel._opoverload._schema.arguments]
    assert names[1:3] == ["positive", "negatives"]
    names[1:3] = ["candidates"]  # both, as one matrix
    assert list(ours)[: len(names)] == names
    assert all(ours[name].default is not inspect.Parameter.empty for name in set(ours) - {*names})


def test_a_gpu_gets_the_kernel_once_it_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = object()
    monkeypatch.setattr(loss, "_plain", lambda *_: plain)
    with FakeTensorMode():
        rows, wide = (torch.empty(4, 8, device="cuda", dtype=x) for x in (None, torch.float64))
        more = {"grades": torch.empty(4, device="cuda")}
        more["temperature"] = torch.empty((), device="cuda")
        for built in (False, True):
            monkeypatch.setattr(cuda, "is_built", lambda built=built: built)
            assert (graded_infonce(rows, rows, **more) is plain) != built
            assert graded_infonce(wide, wide, **more) is plain
            assert graded_infonce(rows, rows, backend="torch", **more) is plain
            assert graded_infonce(rows, rows, backend="kernel", **more) is not plain
