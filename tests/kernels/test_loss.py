"""`graded_infonce` and `cosent_loss` against float64: values, gradients, hard inputs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from graded_batches import Batch, batch, in_double, value_and_gradients
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from ssra_engine.kernels import reference
from ssra_engine.kernels.cosent import cosent_loss
from ssra_engine.kernels.loss import graded_infonce


def assert_as_in_double(inputs: Batch, **settings: object) -> None:
    """Every gradient within 1e-4 of float64, relative to its largest entry.

    A gradient may vanish, and its parts then cancel to their rounding: a few units of float32 of
    weight over temperature and length.
    """
    got = value_and_gradients(inputs, **settings)
    expected = value_and_gradients(in_double(inputs), **settings)
    assert len(got) == len(expected)
    vectors = [x for name, x in inputs.items() if x is not None and name != "grades"]
    heat = float(settings.get("temperature", 0.05))  # type: ignore[arg-type]
    first = settings.get("dims", [vectors[0].shape[1]])[0]  # type: ignore[index]
    lengths = torch.cat(vectors)[:, :first].norm(dim=1)
    shortest = float(lengths[lengths > 0].min()) if lengths.any() else 1.0
    rounding = 1e-5 / len(vectors[0]) / heat
    for ours, theirs in zip(got, expected, strict=True):
        assert ours.shape == theirs.shape
        floor = rounding / shortest if ours.ndim else 1e-6 / heat**2
        limit = 1e-4 * float(theirs.abs().max()) + floor
        assert float((ours.double() - theirs).abs().max()) <= limit


@given(
    seed=st.integers(0, 1000),
    b=st.integers(1, 150),
    m=st.integers(0, 60),
    dims=st.lists(st.integers(1, 150), min_size=1, max_size=5, unique=True).map(sorted),
    more=st.integers(0, 9),
    self_contrast=st.booleans(),
    margin=st.sampled_from([None, 0.0, 0.1]),
    temperature=st.sampled_from([0.02, 0.1, 2.0]),
)
@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
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
    margin: float | None,
    temperature: float,
) -> None:
    inputs = batch(seed, b, dims[-1] + more, m)
    settings = {
        "dims": dims,
        "self_contrast": self_contrast,
        "false_negative_margin": margin,
        "temperature": temperature,
    }
    if margin is not None and near_the_ceiling(inputs, **settings):  # type: ignore[arg-type]
        return
    assert_as_in_double(inputs, **settings)


def near_the_ceiling(
    inputs: Batch,
    *,
    dims: list[int],
    self_contrast: bool,
    false_negative_margin: float,
    temperature: float,
) -> bool:
    """Whether float32 may decide otherwise than float64 about some candidate."""
    wide = {name: x for name, x in in_double(inputs).items() if x is not None}
    candidates = torch.cat([wide["positive"], wide.get("negatives", wide["positive"][:0])])
    for dim in dims:
        q, c = (torch.nn.functional.normalize(x[:, :dim]) for x in (wide["query"], candidates))
        ceiling = (q * c[: len(q)]).sum(1, keepdim=True) + false_negative_margin
        for left, right in ((q, c), (q, q), (c[: len(q)], c[: len(q)])):
            gaps = (left @ right.T - ceiling).abs()
            gaps.fill_diagonal_(1)
            if float(gaps.min()) < 1e-5:
                return True
    return False


def test_plain_torch_equals_the_reference() -> None:
    inputs = in_double(batch(0, 20, 12, 7))
    for self_contrast in (False, True):
        for margin in (None, 0.1):
            got = graded_infonce(
                **inputs,  # type: ignore[arg-type]
                dims=[3, 8, 12],
                temperature=0.2,
                self_contrast=self_contrast,
                false_negative_margin=margin,
            )
            expected = reference.graded_infonce(
                inputs["query"].numpy(),  # type: ignore[union-attr]
                torch.cat([inputs["positive"], inputs["negatives"]]).numpy(),  # type: ignore[list-item]
                inputs["grades"].numpy(),  # type: ignore[union-attr]
                [3, 8, 12],
                temperature=0.2,
                self_contrast=self_contrast,
                margin=np.inf if margin is None else margin,
            )
            assert float(got) == pytest.approx(expected, rel=1e-12)


def test_real_size_with_everything(isa: str) -> None:
    assert_as_in_double(
        batch(1, 500, 256, 100),
        dims=[32, 64, 128, 200, 256],
        self_contrast=True,
        temperature=0.03,
    )


def identical(x: Tensor) -> Tensor:
    return x[:1].expand_as(x).clone()


def zeros_between(x: Tensor) -> Tensor:
    return x * (torch.arange(len(x)) % 3 > 0)[:, None]


def zero_prefix(x: Tensor) -> Tensor:
    return x * (torch.arange(x.shape[1]) >= 5)


def huge(x: Tensor) -> Tensor:
    return x * 1e15


def tiny(x: Tensor) -> Tensor:
    return x * 1e-9


def below_the_shortest_length(x: Tensor) -> Tensor:
    """Divided by 1e-12 instead of by their lengths, which are then constants."""
    return torch.where((torch.arange(len(x)) % 2 > 0)[:, None], x, x * 1e-14)


HARD = [identical, zeros_between, zero_prefix, huge, tiny, below_the_shortest_length]


@pytest.mark.parametrize("change", HARD)
@pytest.mark.parametrize("self_contrast", [False, True])
def test_hard_vectors(isa: str, change: Callable[[Tensor], Tensor], self_contrast: bool) -> None:
    inputs = batch(2, 60, 40)
    for name in ("query", "positive"):
        inputs[name] = change(inputs[name])  # type: ignore[arg-type]
    assert_as_in_double(inputs, dims=[5, 40], self_contrast=self_contrast)


@pytest.mark.parametrize("temperature", [1e-3, 1e-2, 50.0])
def test_cold_and_hot(isa: str, temperature: float) -> None:
    """Float32 rounds cosines to 6e-8: at a temperature of 0.001 that is 6e-5 in a logit."""
    inputs = batch(3, 60, 40)
    got = value_and_gradients(inputs, temperature=temperature)
    expected = value_and_gradients(in_double(inputs), temperature=temperature)
    for ours, theirs in zip(got, expected, strict=True):
        limit = 1e-3 * float(theirs.abs().max())
        assert float((ours.double() - theirs).abs().max()) <= limit


def test_threads_change_no_bit() -> None:
    inputs = batch(4, 300, 100, 30)
    settings = {"dims": [30, 100], "self_contrast": True, "false_negative_margin": 0.1}
    before = torch.get_num_threads()
    try:
        runs = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            runs.append(value_and_gradients(inputs, **settings))  # type: ignore[arg-type]
    finally:
        torch.set_num_threads(before)
    for run in runs[1:]:
        for ours, theirs in zip(run, runs[0], strict=True):
            assert torch.equal(ours, theirs)


def test_grade_zero_teaches_nothing() -> None:
    inputs = batch(5, 30, 16)
    inputs["grades"] = torch.zeros(30)
    for tensor in value_and_gradients(inputs, self_contrast=True):
        assert not tensor.any()


def test_a_false_negative_is_left_out_but_never_the_positive() -> None:
    query = torch.eye(4)
    positive = torch.eye(4)
    positive[0] = torch.tensor([0.5, 0.0, 0.0, 0.8])  # nearer to query 3 than to its own
    loss = graded_infonce(
        query, positive, torch.tensor([1.0, 0, 0, 0]), temperature=1, false_negative_margin=-2
    )
    assert float(loss) == pytest.approx(0, abs=1e-6)  # alone in its denominator


def test_no_gradient_wanted() -> None:
    inputs = batch(6, 40, 24)
    with torch.no_grad():
        loss = graded_infonce(**inputs)  # type: ignore[arg-type]
    expected = value_and_gradients(inputs, temperature=0.03)[0]
    assert not loss.requires_grad
    assert torch.equal(loss, expected)


def test_upstream_gradient_scales_ours() -> None:
    inputs = batch(7, 20, 8)
    query = inputs["query"].requires_grad_()  # type: ignore[union-attr]
    (once,) = torch.autograd.grad(graded_infonce(**inputs), query)  # type: ignore[arg-type]
    (scaled,) = torch.autograd.grad(3 * graded_infonce(**inputs) + 1, query)  # type: ignore[arg-type]
    torch.testing.assert_close(scaled, 3 * once)


def test_half_precision_inputs_are_computed_in_float32() -> None:
    inputs = batch(8, 20, 16)
    half = {name: None if x is None else x.bfloat16() for name, x in inputs.items()}
    whole = {name: None if x is None else x.float() for name, x in half.items()}
    got, expected = value_and_gradients(half), value_and_gradients(whole)
    assert torch.equal(got[0], expected[0])
    assert got[1].dtype == torch.bfloat16
    torch.testing.assert_close(got[1], expected[1].bfloat16())


@pytest.mark.parametrize("negatives", [0, 5])
def test_operator_is_sound_for_compilers(negatives: int) -> None:
    inputs = batch(9, 12, 8)
    more = torch.randn(negatives, 8).requires_grad_() if negatives else None
    torch.library.opcheck(
        torch.ops.ssra_engine.graded_infonce.default,
        (
            inputs["query"].requires_grad_(),  # type: ignore[union-attr]
            inputs["positive"].requires_grad_(),  # type: ignore[union-attr]
            more,
            inputs["grades"],
            torch.tensor(0.1, requires_grad=True),
            [4, 8],
            True,
            0.1,
            True,
            "bfloat16",
        ),
        test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
    )


def test_export_sees_the_operator() -> None:
    class Model(torch.nn.Module):
        def forward(self, query: Tensor, positive: Tensor, grades: Tensor) -> Tensor:
            return graded_infonce(query, positive, grades, temperature=0.1)

    inputs = batch(10, 12, 8)
    arguments = (inputs["query"], inputs["positive"], inputs["grades"])
    program = torch.export.export(Model(), arguments)  # type: ignore[arg-type]
    assert any("graded_infonce" in str(node.target) for node in program.graph.nodes)
    torch.testing.assert_close(program.module()(*arguments), Model()(*arguments))


EYE, ONES = torch.eye(3), torch.ones(3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positive": torch.ones(2, 3)}, r"query and positive must both be \[B, D\]"),
        ({"negatives": torch.ones(2, 4)}, r"negatives must be \[M, 3\], got \[2, 4\]"),
        ({"grades": torch.ones(4)}, r"grades must be \[3\], got \[4\]"),
        ({"dims": [2, 2]}, "dims must rise and lie within 1 and 3"),
        ({"dims": [4]}, "dims must rise and lie within 1 and 3"),
        ({"dims": []}, "dims must rise"),
        ({"temperature": 0.0}, "temperature is 0, it must be above 0"),
        ({"query": torch.tensor([[1.0, 0, 0], [0, torch.nan, 0], [0, 0, 1]])}, "row 1 holds nan"),
        ({"backend": "fast"}, "backend is 'fast'"),
        ({"products": "int8"}, "products is 'int8', it must be 'float32' or 'bfloat16'"),
    ],
)
def test_mistakes_are_named(change: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"query": EYE, "positive": EYE, "grades": ONES, **change}
    with pytest.raises(ValueError, match=message):
        graded_infonce(**arguments)  # type: ignore[arg-type]


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(0, 60), grades=st.integers(1, 5))
@settings(deadline=None)
def test_cosent_equals_the_sum_over_pairs(seed: int, n: int, grades: int) -> None:
    rng = np.random.default_rng(seed)
    scores, grade = rng.uniform(-1, 1, n), rng.integers(0, grades, n)
    got = cosent_loss(torch.from_numpy(scores), torch.from_numpy(grade), 0.1)
    assert float(got) == pytest.approx(reference.cosent(scores, grade, 0.1), rel=1e-9, abs=1e-12)


def test_cosent_gradients() -> None:
    scores = torch.linspace(-1, 1, 12, dtype=torch.float64).flip(0).requires_grad_()
    heat = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    grades = torch.tensor([0, 1, 2, 3] * 3)
    assert torch.autograd.gradcheck(lambda s, t: cosent_loss(s, grades, t), (scores, heat))
    alike = cosent_loss(scores, torch.ones(12))
    alike.backward()  # type: ignore[no-untyped-call]
    assert not scores.grad.any()  # type: ignore[union-attr]
    with pytest.raises(ValueError, match=r"must both be \[n\]"):
        cosent_loss(scores, torch.ones(11))
