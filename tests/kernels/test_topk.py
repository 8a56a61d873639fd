"""`exact_topk` against its NumPy reference, on random, odd and adversarial shapes."""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ssra_engine
from ssra_engine import _core
from ssra_engine.kernels import reference
from ssra_engine.kernels.topk import exact_topk


def integers(rng: np.random.Generator, *shape: int) -> npt.NDArray[np.float32]:
    """Small whole numbers: products are exact in float32, and ties are everywhere."""
    return rng.integers(-3, 4, shape).astype(np.float32)


def test_core_has_the_version_of_the_package() -> None:
    assert _core.__version__ == ssra_engine.__version__


@given(
    seed=st.integers(0, 2**32 - 1),
    queries=st.integers(0, 70),
    documents=st.integers(0, 300),
    d=st.integers(0, 70),
    k=st.integers(1, 20),
    threads=st.integers(1, 5),
    bans=st.integers(0, 30),
)
@settings(deadline=None, max_examples=150)
def test_equals_reference_with_ties(
    *, seed: int, queries: int, documents: int, d: int, k: int, threads: int, bans: int
) -> None:
    rng = np.random.default_rng(seed)
    q, n = integers(rng, queries, d), integers(rng, documents, d)
    banned = [rng.integers(-2, documents + 2, rng.integers(0, bans + 1)) for _ in range(queries)]
    scores, ids = exact_topk(q, n, k, banned=banned, threads=threads)
    expected_scores, expected_ids = reference.exact_topk(q, n, k, banned)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_array_equal(scores, expected_scores)


@pytest.mark.parametrize("d", [1, 15, 16, 17, 384, 1000])
def test_gaussian_vectors(d: int) -> None:
    rng = np.random.default_rng(d)
    q = rng.standard_normal((37, d), np.float32)
    n = rng.standard_normal((2000, d), np.float32)
    scores, ids = exact_topk(q, n, 10)
    expected_scores, expected_ids = reference.exact_topk(q, n, 10)
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(ids, expected_ids)


def test_threads_change_no_bit() -> None:
    rng = np.random.default_rng(0)
    q = rng.standard_normal((101, 100), np.float32)
    n = rng.standard_normal((999, 100), np.float32)
    one = exact_topk(q, n, 50, threads=1)
    for threads in (2, 3, 16):
        many = exact_topk(q, n, 50, threads=threads)
        np.testing.assert_array_equal(one.scores, many.scores)
        np.testing.assert_array_equal(one.ids, many.ids)


def test_equal_rows_tie_wherever_they_lie() -> None:
    rng = np.random.default_rng(1)
    q = np.repeat(rng.standard_normal((1, 99), np.float32), 7, axis=0)
    n = np.repeat(rng.standard_normal((1, 99), np.float32), 500, axis=0)
    scores, ids = exact_topk(q, n, 5)
    assert len(np.unique(scores)) == 1
    np.testing.assert_array_equal(ids, np.tile(np.arange(5), (7, 1)))


def test_rows_are_padded_where_few_survive() -> None:
    q, n = np.ones((2, 3), np.float32), np.ones((3, 3), np.float32)
    scores, ids = exact_topk(q, n, 4, banned=[[1], [0, 1, 2]])
    np.testing.assert_array_equal(ids, [[0, 2, -1, -1], [-1, -1, -1, -1]])
    np.testing.assert_array_equal(np.isneginf(scores), ids == -1)


def test_strided_rows_and_other_dtypes() -> None:
    rng = np.random.default_rng(2)
    q, n = integers(rng, 20, 24), integers(rng, 80, 24)
    expected = exact_topk(q[::2, :12].copy(), n[::4, :12].copy(), 5).ids
    np.testing.assert_array_equal(exact_topk(q[::2, :12], n[::4, :12], 5).ids, expected)
    np.testing.assert_array_equal(
        exact_topk(q[::2, :12].astype(np.float64), np.asfortranarray(n[::4, :12]), 5).ids, expected
    )
    backwards = exact_topk(q[::-1], n, 5).ids
    np.testing.assert_array_equal(backwards[::-1], exact_topk(q, n, 5).ids)


def test_csr_bans_equal_lists() -> None:
    rng = np.random.default_rng(3)
    q, n = integers(rng, 3, 8), integers(rng, 30, 8)
    lists = [[4, 1], [], [7]]
    csr = (np.array([0, 2, 2, 3]), np.array([4, 1, 7]))
    np.testing.assert_array_equal(
        exact_topk(q, n, 9, banned=lists).ids, exact_topk(q, n, 9, banned=csr).ids
    )


GOOD = np.ones((2, 3), np.float32)
NAN_ROW = np.array([[1, 1, 1], [1, 1, np.nan]])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"queries": np.ones(3, np.float32)}, ValueError, r"queries: expected shape \[rows, d\]"),
        ({"queries": np.ones((2, 3), int)}, TypeError, "queries: expected floating point"),
        ({"documents": np.ones((2, 4), np.float32)}, ValueError, "queries have 3 .* have 4"),
        (
            {"documents": NAN_ROW},
            ValueError,
            "documents: row 1 .*nan",
        ),
        ({"queries": np.array([[np.inf, 1, 1]])}, ValueError, "queries: row 0 holds inf"),
        ({"queries": np.full((1, 3), 1e30)}, ValueError, "queries: row 0 is too long"),
        ({"k": 0}, ValueError, "k is 0"),
        ({"threads": 0}, ValueError, "threads is 0"),
        ({"banned": [[1]]}, ValueError, "banned: expected one list for each of 2 queries, got 1"),
        ({"banned": [[1], [0.5]]}, TypeError, "banned: row 1: expected integers"),
        ({"banned": (np.array([0, 1]), np.array([1]))}, ValueError, "banned: expected 3 offsets"),
        ({"banned": (np.array([0, 2, 1]), np.array([1]))}, ValueError, "offsets decrease at row 1"),
        ({"banned": (np.array([0, 1, 2]), np.array([1]))}, ValueError, "the last offset is 2"),
        ({"banned": (np.array([1, 1, 1]), np.array([1]))}, ValueError, "first offset is 1, not 0"),
    ],
)
def test_mistakes_are_named(
    change: dict[str, object], error: type[Exception], message: str
) -> None:
    arguments: dict[str, object] = {"queries": GOOD, "documents": GOOD, "k": 1, **change}
    with pytest.raises(error, match=message):
        exact_topk(**arguments)  # type: ignore[arg-type]


def test_other_python_threads_run_meanwhile() -> None:
    rng = np.random.default_rng(4)
    q = rng.standard_normal((512, 256), np.float32)
    n = rng.standard_normal((20000, 256), np.float32)
    steps, done = 0, threading.Event()

    def work() -> None:
        exact_topk(q, n, 10, threads=1)
        done.set()

    worker = threading.Thread(target=work)
    worker.start()
    while not done.wait(0.002):
        steps += 1
    worker.join()
    assert steps > 3
