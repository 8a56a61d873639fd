"""The same rows as sentence-transformers' function of the same name."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st
from sentence_transformers.util import mine_hard_negatives as theirs
from stubs import StubCrossEncoder, StubModel

from ssra_engine import mine_hard_negatives as ours

FORMS = ["triplet", "n-tuple", "labeled-pair", "labeled-list"]


def world(
    seed: int, queries: int = 12, documents: int = 40, pairs: int = 25, similarity: str = "cosine"
) -> tuple[Dataset, list[str], StubModel]:
    """Queries with one to several positives, some pairs twice, a corpus with some texts twice."""
    rng = np.random.default_rng(seed)
    q = [f"query {i}" for i in range(queries)]
    d = [f"document {i}" for i in range(documents)]
    normal = rng.standard_normal((queries + documents, 24), np.float32)
    vectors = dict(zip(q + d, normal, strict=True))
    for i in range(queries):  # as a trained model has it: positives are rather near
        vectors[f"query {i}"] += vectors[f"document {i % documents}"]
    rows = [(i, i % documents) for i in range(queries)]
    rows += zip(rng.integers(0, queries, pairs), rng.integers(0, documents, pairs), strict=True)
    order = rng.permutation(len(rows))
    data = Dataset.from_dict(
        {
            "query": [q[rows[i][0]] for i in order],
            "answer": [d[rows[i][1]] for i in order],
        }
    )
    corpus = [d[i] for i in rng.integers(0, documents, documents)]
    return data, corpus, StubModel(vectors, similarity)


def assert_same(data: Dataset, model: StubModel, *columns: str, **arguments: Any) -> Dataset:
    random.seed(5)
    try:
        expected = theirs(data, model, *columns, **arguments)
    except ZeroDivisionError:  # theirs, where its margins leave no candidate at all
        reject()
    random.seed(5)
    got = ours(data, model, *columns, **arguments)
    assert got.column_names == expected.column_names
    assert len(got) == len(expected)
    if not len(expected):
        return got
    assert got.features == expected.features
    for name in expected.column_names:
        if name in {"scores", "score"}:
            assert_close(got[name], expected[name])
        else:
            assert got[name] == expected[name]
    return got


def assert_close(got: Any, expected: Any) -> None:
    flat_got, flat_expected = np.hstack(list(got)), np.hstack(list(expected))
    np.testing.assert_allclose(flat_got, flat_expected, rtol=0, atol=1e-6)


LIMITS = st.fixed_dictionaries(
    {},
    optional={
        "absolute_margin": st.sampled_from([0, 0.05, 0.3]),
        "relative_margin": st.sampled_from([0, 0.05, 0.5]),
        "max_score": st.sampled_from([0.9, 0.3, 0.05]),
        "min_score": st.sampled_from([-0.5, 0.0, 0.2]),
    },
)


@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.tuples(st.integers(1, 12), st.integers(2, 40), st.integers(0, 25)),
    output_format=st.sampled_from(FORMS),
    output_scores=st.booleans(),
    num_negatives=st.integers(1, 5),
    range_min=st.integers(0, 6),
    range_width=st.none() | st.integers(5, 60),
    limits=LIMITS,
    sampling_strategy=st.sampled_from(["top", "random"]),
    reranked=st.booleans(),
    with_corpus=st.booleans(),
    include_positives=st.booleans(),
    use_faiss=st.booleans(),
    similarity=st.sampled_from(["cosine", "euclidean"]),
)
@settings(deadline=None, max_examples=150)
def test_any_arguments(
    *,
    seed: int,
    sizes: tuple[int, int, int],
    range_min: int,
    range_width: int | None,
    limits: dict[str, float],
    reranked: bool,
    with_corpus: bool,
    similarity: str,
    **arguments: Any,
) -> None:
    if arguments["include_positives"]:  # a positive against itself: rounding would decide
        assume(0 not in (limits.get("absolute_margin"), limits.get("relative_margin")))
    data, corpus, model = world(seed, *sizes, similarity=similarity)
    assert_same(
        data,
        model,
        corpus=corpus if with_corpus else None,
        cross_encoder=StubCrossEncoder() if reranked else None,
        range_min=range_min,
        range_max=None if range_width is None else range_min + range_width,
        verbose=False,
        **limits,
        **arguments,
    )


@pytest.mark.parametrize("use_faiss", [False, True])
@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean", "manhattan"])
def test_every_similarity(similarity: str, use_faiss: bool) -> None:
    data, corpus, model = world(3, documents=200, similarity=similarity)
    options = {"corpus": corpus, "output_scores": True, "verbose": False, "use_faiss": use_faiss}
    assert len(assert_same(data, model, **options)) > 50
    assert_same(data, model, relative_margin=0.05, faiss_batch_size=5, **options)


@pytest.mark.parametrize("output_format", FORMS)
def test_rows_are_there_to_be_compared(output_format: str) -> None:
    data, corpus, model = world(4, documents=200)
    form = {"output_format": output_format, "verbose": False}
    got = assert_same(data, model, corpus=corpus, relative_margin=0.05, range_min=2, **form)
    assert len(got) >= 5


def test_column_names_choose_columns_or_fall_back_to_places(
    caplog: pytest.LogCaptureFixture,
) -> None:
    data, _, model = world(5)
    data = data.add_column("other", ["x"] * len(data)).select_columns(["other", "answer", "query"])
    assert_same(data, model, "query", "answer", verbose=False)
    assert_same(data.select_columns(["query", "answer"]), model, "misspelt", verbose=False)
    assert "there is no column 'misspelt'" in caplog.text


def test_deprecated_arguments(caplog: pytest.LogCaptureFixture) -> None:
    data, _, model = world(6, documents=100)
    for old in (
        {"as_triplets": True},
        {"as_triplets": False},
        {"margin": 0.1},
        {"output_format": "n-tuple-scores"},
        {"include_positives": True, "max_score": 0.9},
    ):
        caplog.clear()
        assert_same(data, model, verbose=False, **old)
        assert sum(record.name.startswith("ssra_engine") for record in caplog.records) >= 1


def test_prompts_and_batches_reach_the_model() -> None:
    data, corpus, model = world(7)
    ours(
        data,
        model,
        corpus=corpus,
        query_prompt="q: ",
        query_prompt_name="named",
        corpus_prompt="d: ",
        corpus_prompt_name="called",
        batch_size=7,
        verbose=False,
    )
    mine = dict(model.calls)
    model.calls.clear()
    theirs(
        data,
        model,
        corpus=corpus,
        query_prompt="q: ",
        query_prompt_name="named",
        corpus_prompt="d: ",
        corpus_prompt_name="called",
        batch_size=7,
        verbose=False,
    )
    for side, options in model.calls:
        assert mine[side] | {"show_progress_bar": True} == options


@pytest.mark.parametrize("devices", [True, ["cpu", "cpu"]])
def test_worker_processes_are_started_and_stopped(devices: bool | list[str]) -> None:
    data, _, model = world(8)
    reranker = StubCrossEncoder()
    assert_same(
        data, model, cross_encoder=reranker, max_score=0.9, use_multi_process=devices, verbose=False
    )
    given = None if devices is True else devices
    assert model.pools == [given, "stopped pool 1", given, "stopped pool 3"]
    assert {options["pool"] for _, options in model.calls} == {"pool 1", "pool 3"}
    assert set(reranker.pools) == {"workers"}


def test_cache_is_theirs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Either reads what the other wrote, and embeds nothing then."""
    data, corpus, model = world(9)
    corpus[0] = 'it\'s "quoted"\n\t\u200b – 标题'
    model.vectors[corpus[0]] = model.vectors["document 0"] + 1
    options = {"corpus": corpus, "cache_folder": str(tmp_path), "query_prompt": "q: "}
    ours(data, model, **options)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 2
    assert_same(data, model, **options)
    assert len(model.calls) == 2
    assert sorted(tmp_path.iterdir()) == files
    assert f"{files[0]}" in capsys.readouterr().out

    for file in files:
        file.unlink()
    theirs(data, model, **options)
    ours(data, model, **options)
    assert len(model.calls) == 4


def test_random_draws_follow_the_seed() -> None:
    data, corpus, model = world(10, documents=100)
    options = {"corpus": corpus, "sampling_strategy": "random", "range_max": 30, "verbose": False}
    random.seed(11)
    expected = theirs(data, model, **options)
    state = random.getstate()
    got = ours(data, model, seed=11, **options)
    assert got["negative"] == expected["negative"]
    assert random.getstate() == state
    assert ours(data, model, seed=12, **options)["negative"] != got["negative"]


def test_no_batch_size_shows() -> None:
    data, corpus, model = world(11, documents=100)
    options = {"corpus": corpus, "range_max": 30, "seed": 1, "verbose": False}
    for strategy in ("top", "random", "simans"):
        rows = [
            ours(
                data, model, sampling_strategy=strategy, faiss_batch_size=size, **options
            ).to_dict()
            for size in (1, 5, 16384)
        ]
        assert rows[0] == rows[1] == rows[2]
