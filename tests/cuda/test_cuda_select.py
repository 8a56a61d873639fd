"""Selection on emulated blocks of threads, against `reference.mine`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssra_engine.kernels import cuda, cuda_mining, mining, reference
from ssra_engine.kernels.cuda_mining import CudaMiningIndex
from ssra_engine.kernels.mining import MiningIndex

Matrix = npt.NDArray[np.float32]
CPU = torch.device("cpu")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few threads, and tiles that end in the middle of everything."""
    monkeypatch.setattr(cuda, "THREADS", 32)
    monkeypatch.setattr(cuda_mining, "QUERY_ROWS", 7)
    monkeypatch.setattr(cuda_mining, "TILE_BYTES", 4 * 7 * 150)


def integers(rng: np.random.Generator, *shape: int) -> Matrix:
    """Small whole numbers: products are exact in float32, and ties are everywhere."""
    return rng.integers(-3, 4, shape).astype(np.float32)


def index_of(*batches: Matrix, ids: list[Any] | None = None, metric: Any = "ip") -> CudaMiningIndex:
    index = CudaMiningIndex(batches[0].shape[1], metric, CPU)
    for i, batch in enumerate(batches):
        index.add(torch.from_numpy(batch), None if ids is None else ids[i])
    return index


def assert_same(
    mined: tuple[Matrix, npt.NDArray[np.int64], npt.NDArray[np.int64]],
    expected: tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]],
) -> None:
    np.testing.assert_array_equal(mined[1], expected[1])
    np.testing.assert_allclose(mined[0], expected[0], rtol=1e-6)
    np.testing.assert_array_equal(mined[2], (expected[1] >= 0).sum(axis=1))


@given(
    seed=st.integers(0, 2**32 - 1),
    queries=st.integers(0, 12),
    batches=st.lists(st.integers(0, 400), min_size=1, max_size=3),
    d=st.integers(1, 5),
    k=st.integers(1, 60),
    threads=st.sampled_from([32, 64, 256]),
    order=st.integers(0, 5),
    named=st.booleans(),
    rules=st.fixed_dictionaries(
        {},
        optional={
            "banned": st.integers(0, 40),
            "min_score": st.integers(-5, 20),
            "max_score": st.integers(-5, 20),
            "absolute_margin": st.integers(-5, 10),
            "relative_margin": st.sampled_from([0.0, 0.25, 0.5]),
            "skip_top": st.integers(0, 30),
        },
    ),
)
@settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@pytest.mark.usefixtures("small")
def test_equals_reference_under_rules(
    emulated: Any,
    *,
    seed: int,
    queries: int,
    batches: list[int],
    d: int,
    k: int,
    threads: int,
    order: int,
    named: bool,
    rules: dict[str, int | float],
) -> None:
    cuda.THREADS = threads  # put back by the fixture
    emulated.set_order(order)
    rng = np.random.default_rng(seed)
    parts = [integers(rng, rows, d) for rows in batches]
    q, documents = integers(rng, queries, d), np.concatenate(parts)
    ids = rng.permutation(3 * len(documents))[: len(documents)] if named else None
    names = np.split(ids, np.cumsum(batches)[:-1]) if ids is not None else None
    positives = rng.integers(-20, 40, queries).astype(np.float32)
    banned = [
        rng.integers(-2, 3 * len(documents) + 2, rng.integers(0, int(rules.get("banned", 0)) + 1))
        for _ in q
    ]
    absolute, relative = rules.get("absolute_margin"), rules.get("relative_margin")
    with_margin = absolute is not None or relative is not None
    mined = index_of(*parts, ids=names).mine(
        q,
        k,
        banned=banned,
        positive_scores=positives if with_margin else None,
        absolute_margin=absolute,
        relative_margin=relative,
        min_score=rules.get("min_score"),
        max_score=rules.get("max_score"),
        skip_top=int(rules.get("skip_top", 0)),
    )

    limits = np.full(queries, rules.get("max_score", np.inf))
    limits = np.minimum(limits, positives - (absolute if absolute is not None else -np.inf))
    if relative is not None:
        limits = np.minimum(limits, positives - np.abs(positives) * relative)
    expected = reference.mine(
        q,
        documents,
        k,
        ids=ids,
        banned=banned,
        upper_limits=limits,
        min_score=rules.get("min_score", -np.inf),
        skip_top=int(rules.get("skip_top", 0)),
    )
    assert_same(mined, expected)


def signs(rng: np.random.Generator, rows: int) -> Matrix:
    """Four columns of one size, a power of two: cosines are exact, and ties are everywhere."""
    sizes = 2.0 ** rng.integers(-30, 30, (rows, 1))
    return (rng.choice([-1.0, 1.0], (rows, 4)) * sizes).astype(np.float32)


@pytest.mark.usefixtures("small")
def test_cosines(emulated: Any) -> None:
    rng = np.random.default_rng(0)
    q, documents = signs(rng, 9), signs(rng, 700)
    q[3] = documents[5] = documents[600] = 0
    mined = index_of(documents[:333], documents[333:], metric="cosine").mine(
        q, 40, max_score=0.5, min_score=-0.5
    )
    expected = reference.mine(q, documents, 40, metric="cosine", upper_limits=0.5, min_score=-0.5)
    assert_same(mined, expected)


RISING = np.arange(2000, dtype=np.float32)[:, None]
SHAPES = {
    "rising": RISING,  # every score beats all before it
    "falling": -RISING,
    "equal": np.ones((2000, 1), np.float32),
    "sawtooth": RISING % 97,
}


@pytest.mark.parametrize("threads", [32, 128, 256])
@pytest.mark.parametrize("k", [1, 31, 128, 1999, 2000, 2600])
@pytest.mark.parametrize("shape", SHAPES)
def test_orders_of_scores(
    emulated: Any, monkeypatch: pytest.MonkeyPatch, shape: str, k: int, threads: int
) -> None:
    monkeypatch.setattr(cuda, "THREADS", threads)
    monkeypatch.setattr(cuda_mining, "TILE_BYTES", 4 * 700)
    query = np.ones((1, 1), np.float32)
    mined = index_of(SHAPES[shape]).mine(query, k)
    assert_same(mined, reference.mine(query, SHAPES[shape], k))


def test_tiles_change_nothing(emulated: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    q, documents = integers(rng, 3, 4), integers(rng, 600, 4)
    answers = []
    for width in (2, 31, 127, 128, 129, 600, 10_000):
        monkeypatch.setattr(cuda_mining, "TILE_BYTES", 4 * 3 * width)
        answers.append(index_of(documents).mine(q, 20, skip_top=3))
    for answer in answers[1:]:
        for ours, first in zip(answer, answers[0], strict=True):
            np.testing.assert_array_equal(ours, first)


def test_thousands_of_best(emulated: Any) -> None:
    rng = np.random.default_rng(2)
    q, documents = integers(rng, 1, 3), integers(rng, 5000, 3)
    assert_same(index_of(documents).mine(q, 4000), reference.mine(q, documents, 4000))


def passes(check: Callable[[], None]) -> bool:
    try:
        check()
    except (AssertionError, RuntimeError):
        return False
    return True


@pytest.mark.usefixtures("small")
def test_every_barrier_is_needed(emulated: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # So many that what is sorted first ends in the middle of a pair that another thread pads.
    monkeypatch.setattr(cuda_mining, "TILE_BYTES", 4 * 151)

    query = np.ones((1, 1), np.float32)

    def check() -> None:
        for order in (0, 1, 2):
            emulated.set_order(order)
            for documents in (RISING, RISING % 97, -RISING):
                mined = index_of(documents).mine(query, 10)
                assert_same(mined, reference.mine(query, documents, 10))

    check()
    barriers = emulated.take_barriers()
    assert len(barriers) == 5
    for barrier in barriers:
        emulated.skip_barrier(barrier)
        assert not passes(check), f"nothing notices that the barrier at {barrier} is gone"


def test_what_cannot_be_mined(emulated: Any) -> None:
    index = CudaMiningIndex(2, "ip", CPU)
    rows = torch.ones(3, 2)
    with pytest.raises(ValueError, match=r"expected shape \[rows, 2\]"):
        index.add(torch.ones(3, 5))
    with pytest.raises(TypeError, match="floating point"):
        index.add(torch.ones(3, 2, dtype=torch.int64))
    for value in (torch.nan, torch.inf, 1e30):
        rows[1, 0] = value
        with pytest.raises(ValueError, match="row 1 holds"):
            index.add(rows)
    rows[1, 0] = 1
    with pytest.raises(ValueError, match="appears twice"):
        index.add(rows, [4, 5, 4])
    with pytest.raises(ValueError, match="must not be negative"):
        index.add(rows, [4, -5, 1])
    index.add(rows, [4, 5, 6])
    with pytest.raises(ValueError, match="with every batch"):
        index.add(rows)
    with pytest.raises(ValueError, match="k is 0"):
        index.mine(rows, 0)
    with pytest.raises(ValueError, match="a margin needs"):
        index.mine(rows, 1, absolute_margin=0.1)
    with pytest.raises(ValueError, match="one for each of 3 queries"):
        index.mine(rows, 1, absolute_margin=0.1, positive_scores=[1.0])
    with pytest.raises(ValueError, match="min_score is NaN"):
        index.mine(rows, 1, min_score=float("nan"))
    with pytest.raises(ValueError, match="offsets"):
        index.mine(rows, 1, banned=(np.array([0, 1]), np.array([4])))


def test_as_the_kernel_of_the_cpu(emulated: Any) -> None:
    rng = np.random.default_rng(3)
    q, documents = integers(rng, 20, 8), integers(rng, 900, 8)
    rules: dict[str, Any] = {
        "banned": [rng.integers(0, 900, 30) for _ in q],
        "positive_scores": np.einsum("ij,ij->i", q, documents[:20]),
        "relative_margin": 0.25,
        "min_score": -10,
        "skip_top": 4,
    }
    index = MiningIndex(8)
    index.add(documents)
    for ours, theirs in zip(
        index_of(documents).mine(q, 30, **rules), index.mine(q, 30, **rules), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_a_mining_index_of_tensors_on_a_gpu(emulated: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mining, "on_gpu", lambda x: isinstance(x, torch.Tensor))
    rng = np.random.default_rng(4)
    q, documents = integers(rng, 5, 3), integers(rng, 300, 3)
    names = rng.permutation(300)
    index = MiningIndex(3)
    index.add(torch.from_numpy(documents), names)
    assert (len(index), index.isa, index.nbytes) == (300, "cuda", 8 * 300)
    rules: dict[str, Any] = {"banned": [[1, 2], [], [4], [5], []], "max_score": 9, "skip_top": 1}
    mined = index.mine(q, 10, **rules)
    there = MiningIndex(3)
    there.add(documents, names)
    for ours, theirs in zip(mined, there.mine(q, 10, **rules), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for other, vectors in ((index, documents), (there, torch.from_numpy(documents))):
        with pytest.raises(ValueError, match="must be on one GPU, or none"):
            other.add(vectors, names)
