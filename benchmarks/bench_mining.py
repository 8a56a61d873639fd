"""`MiningIndex` beside faiss `IndexFlatIP` and torch: exact top-k, index build and search apart.

    pytest benchmarks/bench_mining.py -s [--gate] [--full]

Promised where the processor has VNNI: 3.3 times faiss for search alone, 3 times with the index
build; the small sizes of the gate leave slack for the fixed costs and for a noisy machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import faiss
import numpy as np
import numpy.typing as npt
import pytest
import torch
from conftest import Timing, race
from pytest_benchmark.fixture import BenchmarkFixture

from ssra_engine.kernels.mining import MiningIndex

K = 100
Matrix = npt.NDArray[np.float32]

SMALL = [(60_000, 512, d, kind, 1) for d in (384, 1024) for kind in ("gaussian", "clustered")]
FULL = [
    (200_000, queries, d, kind, threads)
    for threads in (1, 2)
    for queries in (4096, 2048)
    for d in (384, 512, 768, 1024)
    for kind in ("gaussian", "clustered")
    if (queries, kind) != (2048, "clustered")
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    sizes = FULL if metafunc.config.getoption("--full") else SMALL
    metafunc.parametrize(("n", "q", "d", "kind", "threads"), sizes)


@pytest.fixture
def one_pool(threads: int) -> Iterator[None]:
    before = faiss.omp_get_max_threads(), torch.get_num_threads()
    faiss.omp_set_num_threads(threads)
    torch.set_num_threads(threads)
    yield
    faiss.omp_set_num_threads(before[0])
    torch.set_num_threads(before[1])


def vectors(n: int, q: int, d: int, kind: str) -> tuple[Matrix, Matrix]:
    """Documents and queries; clustered ones lie around 1,000 centres, at a third of the spread."""
    rng = np.random.default_rng(d)
    documents, queries = (rng.standard_normal((rows, d), np.float32) for rows in (n, q))
    if kind == "clustered":
        centres = rng.standard_normal((1000, d), np.float32)
        documents = centres[rng.integers(0, 1000, n)] + np.float32(0.3) * documents
        queries = centres[rng.integers(0, 1000, q)] + np.float32(0.3) * queries
    return documents, queries


def torch_topk(documents: Matrix, queries: Matrix) -> npt.NDArray[np.int64]:
    n, q = torch.from_numpy(documents), torch.from_numpy(queries)
    found = [(q[i : i + 256] @ n.T).topk(K).indices for i in range(0, len(q), 256)]
    return torch.cat(found).numpy()


def build_faiss(documents: Matrix) -> faiss.IndexFlatIP:
    index = faiss.IndexFlatIP(documents.shape[1])
    index.add(documents)
    return index


def build_ours(documents: Matrix, threads: int) -> MiningIndex:
    index = MiningIndex(documents.shape[1], threads=threads)
    index.add(documents)
    return index


def test_mining(
    benchmark: BenchmarkFixture,
    one_pool: None,
    gate: Callable[[str, float, float], None],
    record: Callable[..., None],
    full: bool,
    *,
    n: int,
    q: int,
    d: int,
    kind: str,
    threads: int,
) -> None:
    documents, queries = vectors(n, q, d, kind)
    flat, ours = build_faiss(documents), build_ours(documents, threads)
    expected_scores, expected_ids = flat.search(queries, K)
    mined = ours.mine(queries, K)
    np.testing.assert_allclose(mined.scores, expected_scores, rtol=1e-5, atol=1e-3)
    assert_same_ids(mined.ids, expected_ids, documents, queries)

    contestants: dict[str, Callable[[], object]] = {
        "faiss build": lambda: build_faiss(documents),
        "faiss": lambda: flat.search(queries, K),
        "build": lambda: build_ours(documents, threads),
        "search": lambda: ours.mine(queries, K),
    }
    if full and q == 4096 and threads == 1:
        contestants["torch"] = lambda: torch_topk(documents, queries)
    times = race(contestants, rounds=2 if full else 3)
    benchmark.pedantic(ours.mine, (queries, K), rounds=1)

    search, whole = ratios(times)
    promised = (3.3, 3.0) if full else (2.3, 1.8)
    if ours.isa not in ("bf16", "vnni"):
        promised = (1.2, 1.0) if ours.isa == "avx2" else (0.0, 0.0)
    name = f"{kind} {q} x {n} x {d}, {threads} thread(s), {ours.isa}"
    record(
        isa=ours.isa,
        threads=threads,
        data=kind,
        documents=n,
        queries=q,
        d=d,
        k=K,
        **{
            f"{who.replace(' ', '_')}_{what}": f"{getattr(times[who], of):.3f}"
            for who in ("faiss build", "faiss", "build", "search", "torch")
            for what, of in (("s", "wall"), ("cpu_s", "processor"))
            if who in times
        }
        | ({} if "torch" in times else {"torch_s": "", "torch_cpu_s": ""}),
        search_times_faiss=f"{search:.2f}",
        whole_times_faiss=f"{whole:.2f}",
        search_added_mb=f"{times['search'].added_mb:.0f}",
        index_mb=f"{ours.nbytes / 2**20:.0f}",
        faiss_index_mb=f"{documents.nbytes / 2**20:.0f}",
        gops=f"{2e-9 * n * q * d / times['search'].processor:.0f}",
    )
    gate(f"{name}: search", search, promised[0])
    gate(f"{name}: build and search", whole, promised[1])


def assert_same_ids(
    got: npt.NDArray[np.int64], expected: npt.NDArray[np.int64], documents: Matrix, queries: Matrix
) -> None:
    """The same, but for neighbours whose scores float32 cannot tell apart: two sums of one product
    differ in their last bits."""
    query, rank = np.nonzero(got != expected)
    assert len(query) < 0.005 * got.size
    ours, theirs = (
        np.einsum("ij,ij->i", queries[query], documents[ids[query, rank]], dtype=np.float64)
        for ids in (got, expected)
    )
    lengths = np.linalg.norm(queries[query], axis=1) * np.linalg.norm(
        documents[got[query, rank]], axis=1
    )
    assert (np.abs(ours - theirs) <= 1e-6 * lengths).all()


def ratios(times: dict[str, Timing]) -> tuple[float, float]:
    """Processor seconds of faiss over ours: search alone, and with the index build."""
    seconds = {name: timing.processor for name, timing in times.items()}
    return (
        seconds["faiss"] / seconds["search"],
        (seconds["faiss build"] + seconds["faiss"]) / (seconds["build"] + seconds["search"]),
    )
