"""Exact top-k in float32 beside faiss `IndexFlatIP`, one thread, same answers.

    pytest benchmarks/bench_topk.py

Both are timed by pytest-benchmark; the ratio of their best rounds is printed with the second one.
"""

from __future__ import annotations

from collections.abc import Iterator

import faiss
import numpy as np
import numpy.typing as npt
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from ssra_engine.kernels.topk import exact_topk

QUERIES, DOCUMENTS, D, K = 256, 20_000, 512, 100

Matrix = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def vectors() -> tuple[Matrix, Matrix]:
    rng = np.random.default_rng(0)
    return (
        rng.standard_normal((QUERIES, D), np.float32),
        rng.standard_normal((DOCUMENTS, D), np.float32),
    )


@pytest.fixture(scope="module")
def best_seconds() -> Iterator[dict[str, float]]:
    seconds: dict[str, float] = {}
    yield seconds
    if len(seconds) == 2:
        print(f"\nours / faiss: {seconds['ours'] / seconds['faiss']:.2f} of its time")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(before)


def test_faiss(
    benchmark: BenchmarkFixture, vectors: tuple[Matrix, Matrix], best_seconds: dict[str, float]
) -> None:
    queries, documents = vectors
    index = faiss.IndexFlatIP(D)
    index.add(documents)
    benchmark(index.search, queries, K)
    best_seconds["faiss"] = benchmark.stats.stats.min


def test_ours(
    benchmark: BenchmarkFixture, vectors: tuple[Matrix, Matrix], best_seconds: dict[str, float]
) -> None:
    queries, documents = vectors
    index = faiss.IndexFlatIP(D)
    index.add(documents)
    expected_scores, expected_ids = index.search(queries, K)
    scores, ids = exact_topk(queries, documents, K, threads=1)
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-5, atol=1e-4)
    # Two float32 sums of one product may differ in the last bits, and swap neighbours.
    assert (ids == expected_ids).mean() > 0.999

    benchmark(exact_topk, queries, documents, K, threads=1)
    best_seconds["ours"] = benchmark.stats.stats.min
