"""`MiningIndex` over faiss: the rules of the exact index, recall told, GPUs never replaced."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssra_engine import MiningIndex
from ssra_engine.kernels import reference
from ssra_engine.kernels.faiss_mining import FaissBackend, FaissMiningIndex

Matrix = npt.NDArray[np.float32]
GPU = hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0
APPROXIMATE = ["faiss-ivf", "faiss-hnsw"]


def clustered(rng: np.random.Generator, centres: Matrix, rows: int) -> Matrix:
    around = centres[rng.integers(0, len(centres), rows)]
    return around + np.float32(0.6) * rng.standard_normal(around.shape, np.float32)


@pytest.fixture(scope="module")
def crowd() -> tuple[Matrix, Matrix]:
    """6,000 documents, too many for either backend to look at all, and 50 queries."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((60, 32), np.float32)
    return clustered(rng, centres, 6000), clustered(rng, centres, 50)


def index_of(documents: Matrix, backend: str, **options: Any) -> MiningIndex:
    index = MiningIndex(documents.shape[1], backend=backend, **options)  # type: ignore[arg-type]
    index.add(documents)
    return index


@pytest.mark.parametrize("backend", APPROXIMATE)
@given(
    seed=st.integers(0, 2**32 - 1),
    queries=st.integers(1, 12),
    batches=st.lists(st.integers(0, 120), min_size=1, max_size=3),
    d=st.integers(1, 20),
    k=st.integers(1, 20),
    rules=st.fixed_dictionaries(
        {},
        optional={
            "min_score": st.integers(-5, 20),
            "max_score": st.integers(-5, 20),
            "absolute_margin": st.integers(0, 10),
            "relative_margin": st.sampled_from([0.0, 0.25, 0.5]),
            "skip_top": st.integers(0, 30),
        },
    ),
)
@settings(deadline=None, max_examples=40)
def test_looking_at_everything_is_the_exact_index(
    backend: FaissBackend,
    *,
    seed: int,
    queries: int,
    batches: list[int],
    d: int,
    k: int,
    rules: dict[str, Any],
) -> None:
    rng = np.random.default_rng(seed)
    parts = [rng.integers(-3, 4, (rows, d)).astype(np.float32) for rows in batches]
    q = rng.integers(-3, 4, (queries, d)).astype(np.float32)
    names = rng.permutation(3 * sum(batches))[: sum(batches)]
    exact, other = MiningIndex(d), FaissMiningIndex(d, "ip", 1, backend)
    for index in (exact, other):
        for part, ids in zip(parts, np.split(names, np.cumsum(batches)[:-1]), strict=True):
            index.add(part, ids)
    if {"absolute_margin", "relative_margin"} & set(rules):
        rules["positive_scores"] = rng.integers(-20, 40, queries)
    rules["banned"] = [rng.choice(3 * sum(batches) + 1, 5) for _ in q]

    got = other.mine(q, k, exhaustive=True, **rules)
    for ours, theirs in zip(got, exact.mine(q, k, **rules), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("backend", APPROXIMATE)
@pytest.mark.parametrize("metric", ["ip", "cosine"])
def test_finds_most_and_says_how_many(
    backend: str, metric: str, crowd: tuple[Matrix, Matrix]
) -> None:
    documents, queries = crowd
    index = index_of(documents, backend, metric=metric)
    mined = index.mine(queries, 20)
    _, expected = reference.mine(queries, documents, 20, metric=metric)
    hits = [np.isin(a, b).mean() for a, b in zip(mined.ids, expected, strict=True)]
    assert np.mean(hits) > 0.9
    assert index.recall(queries, 20) == pytest.approx(np.mean(hits), abs=1e-3)
    assert (np.diff(mined.scores) <= 0).all()
    assert (mined.counts == 20).all()


def test_less_effort_finds_less(crowd: tuple[Matrix, Matrix]) -> None:
    documents, queries = crowd
    little, much = (index_of(documents, "faiss-ivf", effort=lists) for lists in (1, 400))
    assert little.recall(queries, 20) < 0.9
    assert much.recall(queries, 20) == 1.0


@pytest.mark.parametrize("backend", APPROXIMATE)
def test_rules_that_refuse_the_nearest_leave_nobody_short(
    backend: str, crowd: tuple[Matrix, Matrix]
) -> None:
    """The 30 best under a limit that refuses nine of ten documents, and a ban of the nearest."""
    documents, queries = crowd
    index = index_of(documents, backend)
    limits = np.quantile(queries @ documents.T, 0.1, axis=1).astype(np.float32)
    nearest = index.mine(queries, 5).ids
    mined = index.mine(
        queries, 30, positive_scores=limits, absolute_margin=0.0, banned=list(nearest), skip_top=3
    )
    assert (mined.counts == 30).all()
    assert (mined.scores <= limits[:, None]).all()
    again = index.mine(queries, 30, banned=list(nearest))
    assert not any(np.isin(a, b).any() for a, b in zip(again.ids, nearest, strict=True))
    # There are only so many, and all of them are found.
    few = index.mine(queries, 700, max_score=float(limits.min()))
    allowed = (queries @ documents.T <= limits.min()).sum(axis=1)
    np.testing.assert_allclose(few.counts, np.minimum(allowed, 700), atol=1)


@pytest.mark.parametrize("backend", APPROXIMATE)
def test_threads_and_repeats_change_nothing(backend: str, crowd: tuple[Matrix, Matrix]) -> None:
    documents, queries = crowd
    before = faiss.omp_get_max_threads()
    one, four = (index_of(documents, backend, threads=t).mine(queries, 20) for t in (1, 4))
    np.testing.assert_array_equal(one.ids, four.ids)
    np.testing.assert_array_equal(one.scores, four.scores)
    assert faiss.omp_get_max_threads() == before


def test_vectors_that_come_later_are_found(crowd: tuple[Matrix, Matrix]) -> None:
    documents, queries = crowd
    index = index_of(documents[:4000], "faiss-ivf", effort=400)
    index.mine(queries, 5)
    index.add(documents[4000:])
    _, expected = reference.mine(queries, documents, 5)
    np.testing.assert_array_equal(index.mine(queries, 5).ids, expected)
    assert len(index) == 6000


def test_empty_index() -> None:
    mined = MiningIndex(4, backend="faiss-hnsw").mine(np.ones((2, 4), np.float32), 3)
    np.testing.assert_array_equal(mined.ids, -1)
    np.testing.assert_array_equal(mined.counts, 0)


@pytest.mark.skipif(GPU, reason="faiss has a GPU")
def test_gpu_that_is_not_there_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="backend 'exact'"):
        MiningIndex(4, backend="faiss-gpu")


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason="faiss has no GPU")
def test_gpu_is_exact(crowd: tuple[Matrix, Matrix]) -> None:
    documents, queries = crowd
    mined = index_of(documents, "faiss-gpu").mine(queries, 20)
    _, expected = reference.mine(queries, documents, 20)
    assert (mined.ids == expected).mean() > 0.999
    with pytest.raises(RuntimeError, match="at most"):
        index_of(documents, "faiss-gpu").mine(queries, 20, max_score=-1e9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "annoy"}, "backend is 'annoy'; there are exact, faiss-ivf"),
        ({"backend": "faiss-ivf", "effort": 0}, "effort is 0"),
        ({"effort": 5}, "effort is for approximate search"),
    ],
)
def test_impossible_backends(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MiningIndex(4, **options)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.ones((2, 3), np.float32), r"expected shape \[rows, 4\], got \[2, 3\]"),
        (np.asarray([[1, 1, 1, 1], [1, np.nan, 1, 1]], np.float32), "row 1 holds NaN"),
    ],
)
def test_bad_vectors_are_named_and_add_nothing(vectors: Matrix, message: str) -> None:
    index = MiningIndex(4, backend="faiss-hnsw")
    with pytest.raises(ValueError, match=message):
        index.add(vectors)
    assert len(index) == 0
    with pytest.raises(ValueError, match=message):
        index.mine(vectors, 1)
