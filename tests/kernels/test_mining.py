"""`MiningIndex` against brute force: random, odd and adversarial vectors, every rule, every ISA."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssra_engine import _core
from ssra_engine.kernels import reference
from ssra_engine.kernels.mining import Mined, MiningIndex
from ssra_engine.kernels.topk import exact_topk

Matrix = npt.NDArray[np.float32]


def index_of(*batches: Matrix, metric: str = "ip", threads: int | None = None) -> MiningIndex:
    index = MiningIndex(batches[0].shape[1], metric, threads)  # type: ignore[arg-type]
    for batch in batches:
        index.add(batch)
    return index


def integers(rng: np.random.Generator, *shape: int) -> Matrix:
    """Small whole numbers: products are exact in float32, and ties are everywhere."""
    return rng.integers(-3, 4, shape).astype(np.float32)


def gaussians(rng: np.random.Generator, *shape: int) -> Matrix:
    return rng.standard_normal(shape, np.float32)


def assert_brute_force(queries: Matrix, documents: Matrix, k: int) -> None:
    """The same ids and the same bits as float32 brute force."""
    mined = index_of(documents).mine(queries, k)
    expected = exact_topk(queries, documents, k)
    np.testing.assert_array_equal(mined.ids, expected.ids)
    np.testing.assert_array_equal(mined.scores, expected.scores)
    assert (mined.counts == min(k, len(documents))).all()


@given(
    seed=st.integers(0, 2**32 - 1),
    queries=st.integers(0, 40),
    batches=st.lists(st.integers(0, 150), min_size=1, max_size=4),
    d=st.integers(1, 70),
    k=st.integers(1, 20),
    threads=st.integers(1, 4),
    rules=st.fixed_dictionaries(
        {},
        optional={
            "banned": st.integers(0, 40),
            "min_score": st.integers(-5, 20),
            "max_score": st.integers(-5, 20),
            "absolute_margin": st.integers(0, 10),
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
def test_equals_reference_under_rules(
    isa: str,
    *,
    seed: int,
    queries: int,
    batches: list[int],
    d: int,
    k: int,
    threads: int,
    rules: dict[str, int | float],
) -> None:
    rng = np.random.default_rng(seed)
    parts = [integers(rng, rows, d) for rows in batches]
    q, documents = integers(rng, queries, d), np.concatenate(parts)
    positives = rng.integers(-20, 40, queries).astype(np.float32)
    bans = int(rules.get("banned", 0))
    banned = [rng.integers(-2, len(documents) + 2, rng.integers(0, bans + 1)) for _ in q]
    absolute, relative = rules.get("absolute_margin"), rules.get("relative_margin")
    with_margin = absolute is not None or relative is not None

    mined = index_of(*parts, threads=threads).mine(
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
    scores, ids = reference.mine(
        q,
        documents,
        k,
        banned=banned,
        upper_limits=limits,
        min_score=rules.get("min_score", -np.inf),
        skip_top=int(rules.get("skip_top", 0)),
    )
    np.testing.assert_array_equal(mined.ids, ids)
    np.testing.assert_array_equal(mined.scores, scores)
    np.testing.assert_array_equal(mined.counts, (ids >= 0).sum(axis=1))


@pytest.mark.parametrize("d", [1, 3, 16, 97, 384, 1024])
def test_gaussian_vectors(isa: str, d: int) -> None:
    rng = np.random.default_rng(d)
    assert_brute_force(gaussians(rng, 33, d), gaussians(rng, 5000, d), 20)


def duplicates(rng: np.random.Generator) -> Matrix:
    return np.repeat(gaussians(rng, 30, 64), 60, axis=0)


def one_huge_coordinate(rng: np.random.Generator) -> Matrix:
    rows = gaussians(rng, 2000, 64)
    rows[:, 5] *= 1e6
    return rows


def constant(rng: np.random.Generator) -> Matrix:
    return np.full((2000, 64), rng.standard_normal(), np.float32)


def tight_clusters(rng: np.random.Generator) -> Matrix:
    """Members differ by a thousandth of what eight bits can tell apart."""
    centres = np.repeat(gaussians(rng, 20, 64), 100, axis=0)
    return centres + np.float32(1e-5) * gaussians(rng, 2000, 64)


def zeros_between(rng: np.random.Generator) -> Matrix:
    rows = gaussians(rng, 2000, 64)
    rows[::3] = 0
    return rows


def denormals(rng: np.random.Generator) -> Matrix:
    return (rng.standard_normal((2000, 64)) * 1e-40).astype(np.float32)


def many_scales(rng: np.random.Generator) -> Matrix:
    lengths = 10.0 ** rng.integers(-30, 15, (2000, 1))
    return (rng.standard_normal((2000, 64)) * lengths).astype(np.float32)


def sparse(rng: np.random.Generator) -> Matrix:
    return gaussians(rng, 2000, 64) * (rng.random((2000, 64)) < 0.02)


def halves_of_a_step(rng: np.random.Generator) -> Matrix:
    """Every column lies where rounding to nearest would have to choose."""
    rows = rng.integers(-126, 126, (2000, 64)) + 0.5
    rows[:, 0] = 127
    return rows.astype(np.float32)


def ever_better(rng: np.random.Generator) -> Matrix:
    """Each document is better than all before it: no threshold holds for long."""
    return (np.linspace(0.1, 1, 2000)[:, None] * np.ones(64)).astype(np.float32)


HARD = [
    duplicates,
    one_huge_coordinate,
    constant,
    tight_clusters,
    zeros_between,
    denormals,
    many_scales,
    sparse,
    halves_of_a_step,
    ever_better,
]


@pytest.mark.parametrize("make", HARD, ids=lambda make: make.__name__)
def test_hard_vectors(isa: str, make) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(7)
    documents = make(rng)
    queries = np.concatenate([documents[::180], gaussians(rng, 8, 64), np.zeros((1, 64))])
    assert_brute_force(queries.astype(np.float32), documents, 25)


@pytest.mark.parametrize("make", HARD, ids=lambda make: make.__name__)
def test_cosine(isa: str, make) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(8)
    documents = make(rng)
    queries = np.concatenate([documents[::180], gaussians(rng, 8, 64), np.zeros((1, 64))])
    queries = queries.astype(np.float32)
    mined = index_of(documents, metric="cosine").mine(queries, 25)
    every = reference.mine(queries, documents, len(documents), metric="cosine")
    np.testing.assert_allclose(mined.scores, every[0][:, :25], rtol=0, atol=2e-6)
    by_id = np.take_along_axis(every[0], np.argsort(every[1], axis=1), 1)
    of_mined = np.take_along_axis(by_id, mined.ids, 1)
    np.testing.assert_allclose(mined.scores, of_mined, rtol=0, atol=2e-6)


def draws(first: int, d: int) -> npt.NDArray[np.float64]:
    """The dither of csrc/kernels/dither.cpp."""
    x = (np.arange(d, dtype=np.uint64) + np.uint64(first)) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x ^ (x >> np.uint64(31))) >> np.uint64(40)) * 2.0**-24 - 0.5


@pytest.mark.parametrize("sign", [-1, 1])
def test_vectors_along_the_dither(isa: str, sign: int) -> None:
    """Here what subtracting the dither takes away is larger than the margin around a score."""
    rng = np.random.default_rng(9)
    d = 2048
    of_documents, of_queries = np.sign(draws(1, d)), np.sign(draws(2**32, d))
    documents = gaussians(rng, 3000, d)
    documents[::2] += (sign * 3 * of_queries).astype(np.float32)
    queries = gaussians(rng, 20, d)
    queries[::2] += (sign * 3 * of_documents).astype(np.float32)
    assert_brute_force(queries, documents, 25)


def test_threads_and_batches_change_no_bit(isa: str) -> None:
    rng = np.random.default_rng(0)
    q, n = gaussians(rng, 301, 100), gaussians(rng, 3001, 100)
    one = index_of(n, threads=1).mine(q, 50)
    for index in (index_of(n, threads=3), index_of(*np.array_split(n, 7), threads=2)):
        for expected, got in zip(one, index.mine(q, 50), strict=True):
            np.testing.assert_array_equal(got, expected)


def test_isas_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    q, n = gaussians(rng, 50, 384), gaussians(rng, 3000, 384)
    ids = []
    for isa in _core.available_isas():
        monkeypatch.setenv("SSRA_ISA", isa)
        index = index_of(n)
        assert index.isa == isa
        ids.append(index.mine(q, 30).ids)
    for other in ids[1:]:
        np.testing.assert_array_equal(other, ids[0])


def test_unknown_isa_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSRA_ISA", "sse9")
    with pytest.raises(ValueError, match=r"SSRA_ISA is 'sse9'; this processor has: .*portable"):
        MiningIndex(8)


def test_limits_are_inclusive_and_margins_keep_their_sign() -> None:
    n = np.arange(-5, 6, dtype=np.float32)[:, None]
    q = np.ones((2, 1), np.float32)
    index = index_of(n)
    mined = index.mine(q, 11, min_score=-2, max_score=3)
    np.testing.assert_array_equal(mined.scores[0, :6], [3, 2, 1, 0, -1, -2])
    np.testing.assert_array_equal(mined.counts, [6, 6])
    # p = 4 allows up to 4 - 4/2, p = -2 up to -2 - 2/2: a margin never raises the limit.
    mined = index.mine(q, 1, positive_scores=[4, -2], relative_margin=0.5)
    np.testing.assert_array_equal(mined.scores[:, 0], [2, -3])
    mined = index.mine(q, 1, positive_scores=[4, -2], absolute_margin=1)
    np.testing.assert_array_equal(mined.scores[:, 0], [3, -3])


def test_low_limit_leaves_most_documents_above_it() -> None:
    rng = np.random.default_rng(2)
    q, n = gaussians(rng, 40, 96), gaussians(rng, 6000, 96)
    limits = rng.normal(-5, 5, 40).astype(np.float32)
    mined = index_of(n).mine(q, 10, positive_scores=limits, absolute_margin=0)
    scores, _ = reference.mine(q, n, 10, upper_limits=limits)
    np.testing.assert_allclose(mined.scores, scores, rtol=1e-5, atol=1e-5)


def test_crowd_just_above_the_limit(isa: str) -> None:
    """Too near for eight bits to tell that they are not allowed, and more than a pool holds."""
    rng = np.random.default_rng(10)
    q = gaussians(rng, 1, 64)
    crowd = np.repeat(q * np.float32(1.0001), 2000, axis=0)
    rest = q * rng.uniform(0, 0.9, (2000, 1)).astype(np.float32)
    n = np.concatenate([crowd, rest])
    limit = float((q @ q.T)[0, 0])
    mined = index_of(n).mine(q, 30, max_score=limit)
    _, ids = reference.mine(q, n, 30, upper_limits=limit)
    np.testing.assert_array_equal(mined.ids, ids)


def test_own_ids_break_ties_and_are_banned_by_name() -> None:
    q, n = np.ones((1, 4), np.float32), np.ones((5, 4), np.float32)
    index = MiningIndex(4)
    index.add(n[:3], ids=[50, 7, 20])
    index.add(n[3:], ids=[10, 1000])
    np.testing.assert_array_equal(index.mine(q, 5).ids, [[7, 10, 20, 50, 1000]])
    np.testing.assert_array_equal(index.mine(q, 3, banned=[[10, 1]]).ids, [[7, 20, 50]])


def test_sources_of_vectors(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    n, q = gaussians(rng, 200, 12), gaussians(rng, 5, 12)
    expected = index_of(n).mine(q, 9)
    n.tofile(tmp_path / "vectors.f32")
    column = pa.FixedSizeListArray.from_arrays(pa.array(n.ravel()), 12)
    sources = [
        np.memmap(tmp_path / "vectors.f32", np.float32, "r", shape=n.shape),
        torch.from_numpy(n),
        column,
        pa.chunked_array([column[:77], column[77:]]),
        n.astype(np.float64),
        np.asfortranarray(n),
        np.repeat(n, 2, axis=0)[::2],
    ]
    for source in sources:
        index = MiningIndex(12)
        index.add(source)
        np.testing.assert_array_equal(index.mine(q, 9).ids, expected.ids)
    np.testing.assert_array_equal(
        index_of(n).mine(pa.FixedSizeListArray.from_arrays(pa.array(q.ravel()), 12), 9).ids,
        expected.ids,
    )


def test_vectors_live_as_long_as_the_index() -> None:
    rng = np.random.default_rng(4)
    index = MiningIndex(300)
    for _ in range(20):
        index.add(gaussians(rng, 500, 300).astype(np.float64))
    gc.collect()
    rng = np.random.default_rng(4)
    n = np.concatenate([gaussians(rng, 500, 300) for _ in range(20)])
    np.testing.assert_array_equal(index.mine(n[:50], 3).scores, exact_topk(n[:50], n, 3).scores)


def test_empty_index_and_no_queries() -> None:
    mined = MiningIndex(4).mine(np.ones((2, 4), np.float32), 3)
    assert isinstance(mined, Mined)
    np.testing.assert_array_equal(mined.ids, np.full((2, 3), -1))
    np.testing.assert_array_equal(mined.counts, [0, 0])
    assert index_of(np.ones((3, 4), np.float32)).mine(np.empty((0, 4)), 2).ids.shape == (0, 2)


GOOD = np.ones((3, 4), np.float32)


def bad_row(value: float) -> Matrix:
    rows = np.ones((100, 4), np.float32)
    rows[[61, 97], 2] = value
    return rows


@pytest.mark.parametrize(
    ("vectors", "ids", "error", "message"),
    [
        (bad_row(np.nan), None, ValueError, "vectors: row 61 holds nan at column 2"),
        (bad_row(-np.inf), None, ValueError, "vectors: row 61 holds -inf at column 2"),
        (bad_row(1e30), None, ValueError, "vectors: row 61 is too long"),
        (np.ones((3, 5), np.float32), None, ValueError, "vectors have 5 columns, the index has 4"),
        (np.ones(4, np.float32), None, ValueError, r"expected shape \[rows, d\]"),
        (np.ones((3, 4), int), None, TypeError, "expected floating point"),
        (GOOD, [1, 2], ValueError, "ids: expected one for each of 3 vectors, got 2"),
        (GOOD, [1, -2, 3], ValueError, "ids: row 1 is -2"),
        (GOOD, [1, 2, 1], ValueError, "ids: 1 appears twice"),
        (GOOD, [1.5, 2, 1], TypeError, "ids: expected integers"),
        (pa.array([[1.0]]), None, TypeError, "expected an Arrow column of fixed-size lists"),
        (pa.array([[1.0] * 4, None], pa.list_(pa.float32(), 4)), None, ValueError, "nulls"),
    ],
)
def test_mistakes_in_vectors_are_named_and_add_nothing(
    vectors: object, ids: list[int] | None, error: type[Exception], message: str
) -> None:
    index = MiningIndex(4, threads=2)
    with pytest.raises(error, match=message):
        index.add(vectors, ids)  # type: ignore[arg-type]
    assert len(index) == 0
    index.add(GOOD)
    assert index.mine(GOOD[:1], 5).counts[0] == 3


def test_ids_with_every_batch_or_with_none() -> None:
    index = index_of(GOOD)
    with pytest.raises(ValueError, match="with every batch of vectors or with none"):
        index.add(GOOD, ids=[7, 8, 9])
    index = MiningIndex(4)
    index.add(GOOD, ids=[7, 8, 9])
    with pytest.raises(ValueError, match="ids: 8 appears twice"):
        index.add(GOOD, ids=[1, 2, 8])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"queries": np.ones((2, 3), np.float32)}, ValueError, "queries have 3 .* has 4"),
        ({"queries": bad_row(np.nan)}, ValueError, "queries: row 61 holds nan"),
        ({"k": 0}, ValueError, "k is 0"),
        ({"skip_top": -1}, ValueError, "skip_top is -1"),
        ({"absolute_margin": 0.1}, ValueError, "a margin needs positive_scores"),
        ({"positive_scores": [1.0]}, ValueError, "one for each of 3 queries, got 1"),
        ({"positive_scores": [1, np.nan, 1]}, ValueError, "positive_scores: row 1 is NaN"),
        ({"min_score": np.nan}, ValueError, "min_score is NaN"),
        ({"max_score": np.nan}, ValueError, "max_score is NaN"),
        ({"banned": [[1]]}, ValueError, "banned: expected one list for each of 3 queries"),
    ],
)
def test_mistakes_in_queries_are_named(
    arguments: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        index_of(GOOD).mine(**{"queries": GOOD, "k": 1, **arguments})  # type: ignore[arg-type]


@pytest.mark.parametrize(("dim", "metric"), [(0, "ip"), (65537, "ip"), (4, "l2")])
def test_impossible_indexes(dim: int, metric: str) -> None:
    with pytest.raises(ValueError, match=r"dim is|metric is"):
        MiningIndex(dim, metric)  # type: ignore[arg-type]
