"""Mistakes, the report, and a cache that cannot be used."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset
from sentence_transformers.util import mine_hard_negatives as theirs
from stubs import StubCrossEncoder, StubModel

from ssra_engine import mine_hard_negatives
from ssra_engine.errors import DataError, EngineError, StoreError
from ssra_engine.negatives import search
from ssra_engine.negatives.settings import MiningError


def on_a_line(*places: float) -> StubModel:
    """Documents d0, d1, ... whose cosine with the query q is as given."""
    vectors = {"q": np.asarray([1, 0], np.float32), "p": np.asarray([1, 0], np.float32)}
    for i, place in enumerate(places):
        vectors[f"d{i}"] = np.asarray([place, np.sqrt(1 - place**2)], np.float32)
    return StubModel(vectors)


PAIR = Dataset.from_dict({"query": ["q"], "answer": ["d0"]})


def negatives(model: StubModel, **arguments: Any) -> list[str]:
    corpus = [name for name in model.vectors if name.startswith("d")]
    options: dict[str, Any] = {"corpus": corpus, "verbose": False} | arguments
    return list(mine_hard_negatives(PAIR, model, **options)["negative"])


def test_ranks_count_what_the_limits_leave() -> None:
    model = on_a_line(0.9, 0.95, 0.8, 0.7, 0.6, 0.5)
    assert negatives(model) == ["d1", "d2", "d3"]
    assert negatives(model, range_min=1, max_score=0.9) == ["d3", "d4", "d5"]
    # Four candidates: the range and one positive. One of them is above max_score, one is skipped.
    options = {"range_min": 1, "range_max": 3, "num_negatives": 2, "max_score": 0.9}
    assert negatives(model, **options) == ["d3"]
    assert negatives(model, relative_margin=0.2) == ["d3", "d4", "d5"]
    assert negatives(model, min_score=0.75) == ["d1", "d2"]


def test_equal_scores_go_by_the_order_of_the_corpus() -> None:
    model = on_a_line(0.9, 0.5, 0.5, 0.5, 0.5, 0.5)
    assert negatives(model) == ["d1", "d2", "d3"]
    assert negatives(model, corpus=["d5", "d4", "d3", "d2", "d1"]) == ["d5", "d4", "d3"]


def test_limits_are_inclusive() -> None:
    model = on_a_line(0.9, 0.5, 0.0, -0.5)
    assert negatives(model, max_score=0.0) == ["d2", "d3"]
    assert negatives(model, min_score=0.0) == ["d1", "d2"]


@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean", "manhattan"])
@pytest.mark.parametrize("k", [1, 19, 20, 25])
def test_search_is_brute_force_and_ties_go_by_position(
    similarity: str, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "_DOCUMENTS", 7)
    monkeypatch.setattr(search, "_QUERIES", 2)
    rng = np.random.default_rng(0)
    documents, queries = (rng.integers(-1, 2, (rows, 4)).astype(np.float32) for rows in (20, 5))
    documents[0] = 0
    model = StubModel({"x": documents[0]}, similarity)
    scores, ids = search.search_by(model, documents, inner_product=False)(queries, k)
    every = model.similarity(queries, documents).numpy()
    best = np.argsort(-every.round(5), axis=1, kind="stable")[:, :k]
    if similarity != "cosine":  # equal cosines may differ in the last bit
        np.testing.assert_array_equal(ids[:, :20], best)
    np.testing.assert_allclose(
        scores[:, :20], np.take_along_axis(every, best, axis=1), rtol=0, atol=1e-5
    )
    assert scores.shape == ids.shape == (5, k)
    assert (ids[:, 20:] == -1).all()
    assert np.isneginf(scores[:, 20:]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_negatives": 0}, "num_negatives is 0"),
        ({"range_min": -1}, "range_min is -1"),
        ({"range_min": 5, "range_max": 5}, "range_min must be the smaller"),
        ({"range_min": 3, "range_max": 5}, "only 2 candidates"),
        ({"output_format": "pairs"}, "output_format is 'pairs'"),
        ({"faiss_batch_size": 0}, "faiss_batch_size is 0"),
    ],
)
def test_mistakes_that_they_refuse_too(arguments: dict[str, Any], message: str) -> None:
    model = on_a_line(0.9, 0.5)
    with pytest.raises(ValueError, match=r"."):
        theirs(PAIR, model, verbose=False, **arguments)
    model.calls.clear()
    with pytest.raises(MiningError, match=message):
        mine_hard_negatives(PAIR, model, verbose=False, **arguments)
    assert not model.calls


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sampling_strategy": "best"}, "sampling_strategy is 'best'"),
        ({"max_score": float("nan")}, "max_score is not a number"),
        ({"simans_a": -1}, "simans_a is -1"),
        ({"corpus": "a text"}, "corpus is one text"),
        ({"grader": lambda queries, documents: []}, "Give grade_column_name"),
        ({"grade_column_name": "grade"}, "no column 'grade' with grades, but query, answer"),
        ({"anchor_column_name": "answer"}, "'answer' would be both"),
    ],
)
def test_mistakes_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(MiningError, match=message):
        mine_hard_negatives(PAIR, on_a_line(0.9), verbose=False, **arguments)


def test_bad_rows_are_named() -> None:
    model = on_a_line(0.9)
    for rows, message in (
        ({"query": [], "answer": []}, "no rows"),
        ({"query": ["q"]}, "one column"),
        ({"query": ["q"], "negative": ["d0"]}, "'negative' has the name"),
    ):
        with pytest.raises(MiningError, match=message):
            mine_hard_negatives(Dataset.from_dict(rows), model, verbose=False)
    missing = Dataset.from_dict({"query": ["q", "q"], "answer": ["d0", None]})
    with pytest.raises(DataError, match="column 'answer', row 1: expected a text, found None"):
        mine_hard_negatives(missing, model, verbose=False)
    with pytest.raises(DataError, match="column 'corpus', row 0: half a surrogate pair"):
        mine_hard_negatives(PAIR, model, corpus=["\ud800"], verbose=False)


def test_vectors_that_are_no_numbers_are_named() -> None:
    model = on_a_line(0.9, 0.5)
    model.vectors["d1"] = np.asarray([np.nan, 1], np.float32)
    with pytest.raises(EngineError, match="vector of 'd1' holds NaN"):
        negatives(model)


def test_a_cross_encoder_must_give_one_number_a_pair() -> None:
    class Broken(StubCrossEncoder):
        def predict(self, pairs: Any, **options: Any) -> Any:
            return super().predict(pairs, **options)[:, None]

    with pytest.raises(EngineError, match="must have one output"):
        negatives(on_a_line(0.9, 0.5), cross_encoder=Broken(), max_score=1.0)


def test_a_cross_encoder_is_asked_only_where_a_limit_is_set() -> None:
    reranker = StubCrossEncoder()
    assert negatives(on_a_line(0.9, 0.5, 0.4), cross_encoder=reranker) == ["d1", "d2"]
    assert not reranker.pairs
    negatives(on_a_line(0.9, 0.5, 0.4), cross_encoder=reranker, max_score=1.0)
    assert sorted(reranker.pairs) == [("q", f"d{i}") for i in (0, 0, 1, 2)]


def test_the_cache_is_checked(tmp_path: Path) -> None:
    model = on_a_line(0.9, 0.5)
    for damage in (b"nothing", b""):
        negatives(model, cache_folder=str(tmp_path))
        file = next(tmp_path.glob("corpus*"))
        file.write_bytes(damage)
        with pytest.raises(StoreError, match="Delete it to embed again"):
            negatives(model, cache_folder=str(tmp_path))
        file.unlink()
    negatives(model, cache_folder=str(tmp_path))
    np.save(next(tmp_path.glob("corpus*")), np.ones((5, 2), np.float32))
    with pytest.raises(StoreError, match=r"expected floats \[2, d\], found float32 \[5, 2\]"):
        negatives(model, cache_folder=str(tmp_path))
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be written"):
        negatives(model, cache_folder=str(tmp_path / "file"))


def test_the_report_says_what_theirs_says(capsys: pytest.CaptureFixture[str]) -> None:
    model = on_a_line(0.9, 0.95, 0.8, 0.7, 0.6, 0.5)
    model.vectors["r"] = model.vectors["q"]
    pairs = Dataset.from_dict({"query": ["q", "r"], "answer": ["d0", "d0"]})
    corpus = [f"d{i}" for i in range(6)]
    options = {"corpus": corpus, "relative_margin": 0.2, "max_score": 0.65, "min_score": 0.55}
    theirs(pairs, model, **options)
    printed = capsys.readouterr().out
    mine_hard_negatives(pairs, model, **options)
    ours = capsys.readouterr().out
    # 32 candidates a query, of which six are in the corpus.
    assert "Skipped 4 potential negatives (6.25%) due to the relative_margin of 0.2" in printed
    assert "relative_margin 0.2 refused 4 candidates (6.25%)" in ours
    assert "Skipped 2 potential negatives (3.33%) due to the max_score" in printed
    assert "max_score 0.65 refused 2 candidates (3.33%)" in ours
    assert "min_score 0.55 refused 2 candidates" in ours
    assert "for 4 samples (66.67%)" in printed
    assert "4 of 6 possible rows (66.67%) are missing" in ours
    assert "range_max, relative_margin, max_score and min_score" in ours
    for lines in (printed, ours):
        (mean,) = re.findall(r"(?i)^mean +0.9000 +0.6000 +0.3000$", lines, re.MULTILINE)
        assert mean


def test_an_arrow_table_gives_an_arrow_table() -> None:
    model = on_a_line(0.9, 0.5, 0.4)
    table = pa.table({"query": ["q"], "answer": ["d0"]})
    corpus = pa.array(["d1", "d2"])
    got = mine_hard_negatives(table, model, corpus=corpus, output_scores=True, verbose=False)
    assert got.column_names == ["query", "answer", "negative", "scores"]
    assert got["negative"].to_pylist() == ["d1", "d2"]
    np.testing.assert_allclose(got["scores"].to_pylist(), [[0.9, 0.5], [0.9, 0.4]], atol=1e-6)


@pytest.mark.parametrize("backend", ["faiss-ivf", "faiss-hnsw"])
def test_approximate_backend_says_what_it_finds(
    backend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = on_a_line(*np.linspace(0.9, -0.9, 50))
    assert negatives(model, backend=backend, max_score=0.0) == negatives(model, max_score=0.0)
    negatives(model, backend=backend, verbose=True)
    assert f"{backend} finds 100.0% of the 3 nearest documents." in capsys.readouterr().out


def test_backend_cannot_replace_a_similarity_of_the_model() -> None:
    model = on_a_line(0.9, 0.5)
    model.similarity_fn_name = "manhattan"
    with pytest.raises(MiningError, match="knows cosine and dot product"):
        negatives(model, backend="faiss-hnsw")
