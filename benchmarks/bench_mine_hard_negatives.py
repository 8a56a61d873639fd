"""`mine_hard_negatives` beside sentence-transformers' function of that name, `use_faiss=True`.

    pytest benchmarks/bench_mine_hard_negatives.py -s [--gate] [--full]

A model that returns given vectors, so that what is timed is the mining. Promised where the
processor has VNNI: 4 times theirs, and at most 200 MB beyond the vectors and their eight-bit copy.
The small size of the gate leaves slack for fixed costs and a noisy machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import psutil
import pytest
import torch
from conftest import Timing, race
from datasets import Dataset, disable_progress_bars
from pytest_benchmark.fixture import BenchmarkFixture
from sentence_transformers.util import mine_hard_negatives as theirs
from sentence_transformers.util import pairwise_cos_sim

from ssra_engine import MiningIndex
from ssra_engine import mine_hard_negatives as ours

NEGATIVES = 3
D = 384
Matrix = npt.NDArray[np.float32]

SMALL = [(4_000, 60_000)]
FULL = [(50_000, 200_000)]


class GivenVectors:
    """What mining asks of a SentenceTransformer."""

    device = torch.device("cpu")
    similarity_fn_name = "cosine"
    similarity_pairwise = staticmethod(pairwise_cos_sim)

    def __init__(self, queries: Matrix, documents: Matrix) -> None:
        self._queries, self._documents = queries, documents

    def encode_query(self, texts: Sequence[str], **_: Any) -> Matrix:
        assert len(texts) == len(self._queries)
        return self._queries

    def encode_document(self, texts: Sequence[str], **_: Any) -> Matrix:
        assert len(texts) == len(self._documents)
        return self._documents

    def get_embedding_dimension(self) -> int:
        return self._queries.shape[1]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    sizes = FULL if metafunc.config.getoption("--full") else SMALL
    metafunc.parametrize(("q", "n"), sizes)


@pytest.fixture
def all_processors() -> Iterator[int]:
    """Both sides on as many threads as ours takes."""
    before = faiss.omp_get_max_threads(), torch.get_num_threads()
    threads = len(psutil.Process().cpu_affinity())
    faiss.omp_set_num_threads(threads)
    torch.set_num_threads(threads)
    yield threads
    faiss.omp_set_num_threads(before[0])
    torch.set_num_threads(before[1])


def world(q: int, n: int) -> tuple[Dataset, list[str], GivenVectors]:
    """Unit vectors around 1,000 centres; the positive of a query is the document it was made of."""
    rng = np.random.default_rng(n)
    centres = rng.standard_normal((1000, D), np.float32)
    documents = centres[rng.integers(0, 1000, n)] + 0.7 * rng.standard_normal((n, D), np.float32)
    queries = documents[:q] + np.float32(0.7) * rng.standard_normal((q, D), np.float32)
    documents /= np.linalg.norm(documents, axis=1, keepdims=True)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    corpus = [f"document {i} of a corpus that is large enough to be mined" for i in range(n)]
    data = Dataset.from_dict(
        {"query": [f"query {i} of many" for i in range(q)], "answer": corpus[:q]}
    )
    return data, corpus, GivenVectors(queries, documents)


def test_mine_hard_negatives(
    benchmark: BenchmarkFixture,
    all_processors: int,
    gate: Callable[[str, float, float], None],
    record: Callable[..., None],
    full: bool,
    *,
    q: int,
    n: int,
) -> None:
    disable_progress_bars()
    data, corpus, model = world(q, n)
    options: dict[str, Any] = {
        "corpus": corpus,
        "relative_margin": 0.05,
        "num_negatives": NEGATIVES,
        "output_scores": True,
        "use_faiss": True,
        "verbose": False,
    }
    # Alone and first: memory that theirs left free would hide what ours takes.
    memory = race({"ours": lambda: ours(data, model, **options)}, rounds=1)["ours"].added_mb
    got, expected = ours(data, model, **options), theirs(data, model, **options)
    assert_same_rows(got, expected, q)

    times = race(
        {
            "theirs": lambda: theirs(data, model, **options),
            "ours": lambda: ours(data, model, **options),
        },
        rounds=2 if full else 3,
    )
    benchmark.pedantic(ours, (data, model), options, rounds=1)

    isa = MiningIndex(D).isa
    ratio = times["theirs"].processor / times["ours"].processor
    copy = n * (D + 12) / 2**20
    promised = {"avx2": 1.0, "portable": 0.0}.get(isa, 4.0 if full else 2.0)
    record(
        isa=isa,
        threads=all_processors,
        queries=q,
        documents=n,
        d=D,
        negatives=NEGATIVES,
        **{f"{who}_s": f"{timing.wall:.3f}" for who, timing in times.items()},
        **{f"{who}_cpu_s": f"{timing.processor:.3f}" for who, timing in times.items()},
        times_theirs=f"{ratio:.2f}",
        **added(times, memory),
        eight_bit_copy_mb=f"{copy:.0f}",
    )
    print(f"\n{memory:.0f} MB added; the eight-bit copy is {copy:.0f} MB")
    assert memory <= copy + 200
    gate(f"{q} x {n} x {D}, {all_processors} thread(s), {isa}", ratio, promised)


def added(times: dict[str, Timing], memory: float) -> dict[str, str]:
    return {"added_mb": f"{memory:.0f}", "theirs_added_mb": f"{times['theirs'].added_mb:.0f}"}


def assert_same_rows(got: Dataset, expected: Dataset, q: int) -> None:
    """The same triplets; float32 sums in another order may swap a few that are equally good."""
    assert len(expected) > q
    assert got.column_names == expected.column_names
    assert abs(len(got) - len(expected)) <= len(expected) / 1000
    names = ("query", "answer", "negative")
    rows, wanted = (
        set(zip(*(data[name] for name in names), strict=True)) for data in (got, expected)
    )
    assert len(rows & wanted) > 0.999 * len(wanted)
    if len(got) == len(expected):
        np.testing.assert_allclose(
            np.asarray(got["scores"]), np.asarray(expected["scores"]), atol=1e-4
        )
