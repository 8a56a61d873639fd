"""Metrics and intervals against values worked out by hand, and against second libraries."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from ssra_engine.evaluation.intervals import bootstrap_mean, bootstrap_pooled, randomisation_p
from ssra_engine.evaluation.lists import (
    JudgedPairs,
    corpus_lists,
    judged_lists,
    judged_pairs,
    pair_scores,
)
from ssra_engine.evaluation.measuring import Settings, compare, measure, summarise
from ssra_engine.evaluation.pairs import average_precision, pair_figures, spearman
from ssra_engine.evaluation.ranking import ranking_metrics

_SURE = {"resamples": 400, "confidence": 0.95, "seed": 3}


def _ones(count: int) -> np.ndarray:
    return np.ones(count, np.int64)


def test_ranking_by_hand() -> None:
    # In order of score: grades 1, 3, 0, 2.
    grades = [{"a": 3, "b": 1, "c": 2, "d": 0}]
    scores = [{"a": 0.5, "b": 0.9, "c": -0.2, "d": 0.1}]
    found = ranking_metrics(grades, scores, cutoffs=(2, 4), relevant=2)
    log3, log5 = math.log2(3), math.log2(5)
    linear = (1 + 3 / log3) / (3 + 2 / log3)
    exponential = (1 + 7 / log3 + 3 / log5) / (7 + 3 / log3 + 1 / 2)
    assert found["ndcg_linear@2"][0] == pytest.approx(linear)
    assert found["ndcg_exp@4"][0] == pytest.approx(exponential)
    assert found["recall@2"][0] == 0.5
    assert found["recall@4"][0] == 1
    assert found["mrr"][0] == 0.5


def test_ranking_of_queries_without_such_a_figure() -> None:
    grades = [{"a": 0, "b": 0}, {"a": 1, "b": 0}, {"a": 2, "b": 1}]
    scores = [{"a": 0.5, "b": 0.9}, {"a": 0.5, "b": 0.9}, {"z": 1.0}]
    found = ranking_metrics(grades, scores, cutoffs=(5,), relevant=2)
    assert np.isnan(found["ndcg_exp@5"]).tolist() == [True, False, False]
    assert np.isnan(found["mrr"]).tolist() == [True, True, False]
    # The last found nothing that is judged.
    assert [found[name][2] for name in ("ndcg_exp@5", "recall@5", "mrr")] == [0, 0, 0]


def test_a_query_that_retrieved_nothing_counts_as_zero() -> None:
    found = ranking_metrics([{"a": 2}, {"a": 2}], [{}, {"a": 0.1}], cutoffs=(5,))
    assert found["ndcg_linear@5"].tolist() == [0, 1]


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(-999, 999)), min_size=2, max_size=30),
    st.integers(1, 12),
)
def test_ndcg_is_that_of_scikit_learn(rows: list[tuple[int, int]], k: int) -> None:
    # Distinct scores: scikit-learn averages over ties, trec_eval orders them.
    grades = [grade for grade, _ in rows]
    scores = [score + place / 64 for place, (_, score) in enumerate(rows)]
    assume(max(grades) > 0 and len(set(scores)) == len(scores))
    keys = [f"{place:03}" for place in range(len(rows))]
    found = ranking_metrics(
        [dict(zip(keys, grades, strict=True))],
        [dict(zip(keys, scores, strict=True))],
        cutoffs=(k,),
    )
    gains = [2**grade - 1 for grade in grades]
    assert found[f"ndcg_linear@{k}"][0] == pytest.approx(ndcg_score([grades], [scores], k=k))
    assert found[f"ndcg_exp@{k}"][0] == pytest.approx(ndcg_score([gains], [scores], k=k))


def test_average_precision_and_spearman_by_hand() -> None:
    grades, scores = np.array([2, 0, 1, 2]), np.array([0.9, 0.8, 0.7, 0.1])
    figures = pair_figures(grades, scores, _ones(4), (1, 2))
    assert figures["ap_ge1"] == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    assert figures["ap_ge2"] == pytest.approx((1 + 2 / 4) / 2)
    assert figures["ap_mean"] == pytest.approx((figures["ap_ge1"] + figures["ap_ge2"]) / 2)
    # Ranks of grades 3.5 1 2 3.5, of scores 4 3 2 1.
    centred = np.array([1, -1.5, -0.5, 1]), np.array([1.5, 0.5, -0.5, -1.5])
    rho = centred[0] @ centred[1] / np.sqrt((centred[0] @ centred[0]) * (centred[1] @ centred[1]))
    assert figures["spearman"] == pytest.approx(rho)


def test_figures_that_are_not_defined() -> None:
    scores = np.array([0.2, 0.1, 0.3])
    assert math.isnan(average_precision(np.array([1, 1, 2]), scores, _ones(3), 1))
    assert math.isnan(average_precision(np.array([1, 1, 2]), scores, np.array([1, 1, 0]), 2))
    assert math.isnan(spearman(np.array([1, 1, 1]), scores, _ones(3)))
    assert math.isnan(spearman(np.array([0, 1, 1]), np.zeros(3), _ones(3)))


def test_a_pair_that_counts_twice_is_a_pair_twice() -> None:
    generator = np.random.default_rng(1)
    grades, times = generator.integers(0, 4, 50), generator.integers(0, 3, 50)
    scores = generator.random(50)
    twice = pair_figures(
        np.repeat(grades, times), np.repeat(scores, times), _ones(int(times.sum())), (1, 2, 3)
    )
    assert pair_figures(grades, scores, times, (1, 2, 3)) == pytest.approx(twice)


def test_the_interval_of_a_mean() -> None:
    values = np.random.default_rng(0).normal(5, 2, 400)
    found = bootstrap_mean(np.append(values, np.nan), **_SURE)
    assert found.queries == 400
    assert found.value == pytest.approx(values.mean())
    assert found.low is not None
    assert found.high is not None
    half = 1.96 * values.std() / 20
    assert found.low == pytest.approx(values.mean() - half, abs=half / 4)
    assert found.high == pytest.approx(values.mean() + half, abs=half / 4)
    assert bootstrap_mean(values, **_SURE) == bootstrap_mean(values, **_SURE)
    assert bootstrap_mean(np.array([np.nan]), **_SURE).value is None
    assert bootstrap_mean(np.array([2.0]), **_SURE).low is None


def test_pooled_intervals_draw_queries_with_all_their_pairs() -> None:
    # Two queries of ten pairs each: a draw holds 0, 10 or 20 pairs of the first, and nothing else.
    query_of = np.repeat([0, 1], 10)
    seen = set()

    def share(times: np.ndarray) -> dict[str, float]:
        seen.add(int(times[:10].sum()))
        return {"first": float(times[:10].sum() / times.sum())}

    found = bootstrap_pooled(share, query_of, **_SURE)["first"]
    assert seen == {0, 10, 20}
    assert (found.value, found.low, found.high, found.queries) == (0.5, 0, 1, 2)


def test_the_randomisation_test() -> None:
    base = np.linspace(0, 1, 8)
    # All 8 differences point the same way: 2 of the 2^8 swaps are as extreme.
    assert randomisation_p(base + 0.1, base, resamples=9999, seed=0) == pytest.approx(2 / 256)
    assert randomisation_p(base, base, resamples=9999, seed=0) == 1
    with_gap = np.append(base, np.nan)
    assert randomisation_p(with_gap + 0.1, with_gap, resamples=9999, seed=0) == 2 / 256
    assert randomisation_p(base[:1], base[:1], resamples=9999, seed=0) is None


def _world(queries: int = 6, judged: int = 12, documents: int = 40) -> tuple[JudgedPairs, ...]:
    generator = np.random.default_rng(5)
    query = np.repeat(np.arange(queries), judged)
    chosen = np.concatenate([generator.permutation(documents)[:judged] for _ in range(queries)])
    ids = pa.array([f"d{row}" for row in range(documents)])
    pairs = judged_pairs(query, chosen, generator.integers(0, 4, len(query)), ids)
    vectors = [generator.normal(size=(count, 16)) for count in (queries, documents)]
    unit = [
        (one / np.linalg.norm(one, axis=1, keepdims=True)).astype(np.float32) for one in vectors
    ]
    return pairs, *unit


def test_corpus_lists_are_the_best_of_all_documents() -> None:
    pairs, queries, documents = _world()
    lists = corpus_lists(pairs, queries, documents, 7)
    exact = queries @ documents.T
    for row, one in enumerate(lists):
        best = np.argsort(-exact[row])[:7]
        assert list(one) == [pairs.key[document] for document in best]
        assert list(one.values()) == pytest.approx(exact[row, best].tolist(), abs=1e-6)


def test_judged_lists_hold_the_cosine_of_each_pair() -> None:
    pairs, queries, documents = _world()
    scores = pair_scores(pairs, queries, documents)
    assert scores == pytest.approx((queries @ documents.T)[pairs.query, pairs.document], abs=1e-6)
    lists = judged_lists(pairs, scores)
    assert sum(map(len, lists)) == len(scores)
    assert lists[2][pairs.key[pairs.document[24]]] == pytest.approx(scores[24])


def test_equal_scores_favour_no_grade() -> None:
    # Ids in order of grade, all scores equal: an order by id would be the best list or the worst.
    count = 400
    grade = (np.arange(count) >= count // 2).astype(np.int64)
    ids = pa.array([f"{row:04}" for row in range(count)])
    pairs = judged_pairs(np.zeros(count, np.int64), np.arange(count), grade, ids)
    lists = judged_lists(pairs, np.zeros(count, np.float32))
    found = ranking_metrics(pairs.grades(), lists, cutoffs=(100,))["recall@100"][0]
    assert 0.35 * 0.5 < found < 0.65 * 0.5


def test_short_lists_give_no_figures_per_query_but_their_pairs_count() -> None:
    pairs, queries, documents = _world()
    kept = np.ones(len(pairs.query), bool)
    kept[:3] = False  # the first query is left with 9 documents
    short = JudgedPairs(pairs.query[kept], pairs.document[kept], pairs.grade[kept], pairs.key)
    figures = measure(short, queries, documents, Settings())
    assert all(np.isnan(values[0]) for values in figures.per_query.values())
    assert not np.isnan(figures.per_query["ndcg_exp@10"][1:]).any()
    report = summarise(figures, short, Settings(resamples=50))
    assert report["per_query"]["ndcg_exp@10"]["queries"] == 5
    expected = average_precision(short.grade, figures.scores, _ones(69), 2)
    assert report["pooled"]["ap_ge2"]["value"] == pytest.approx(expected)


def test_in_corpus_mode_unjudged_documents_take_places() -> None:
    pairs, queries, documents = _world()
    judged = measure(pairs, queries, documents, Settings()).per_query
    corpus = measure(pairs, queries, documents, Settings(mode="corpus")).per_query
    assert (corpus["ndcg_exp@10"] <= judged["ndcg_exp@10"] + 1e-9).all()
    best = np.argsort(-(queries @ documents.T), axis=1)[:, :10]
    grades = pairs.grades()
    shares = [
        np.mean([pairs.key[document] in grades[query] for document in best[query]])
        for query in range(6)
    ]
    assert corpus["judged@10"].tolist() == pytest.approx(shares)


def test_a_model_beside_itself_and_beside_a_better_one() -> None:
    pairs, queries, documents = _world(queries=12)
    settings = Settings(resamples=200)
    plain = measure(pairs, queries, documents, settings)
    same = compare(plain, plain, pairs, settings)
    assert same["per_query"]["ndcg_exp@10"] == {
        "value": 0, "low": 0, "high": 0, "queries": 12, "p": 1,
    }  # fmt: skip
    assert same["pooled"]["ap_mean"]["low"] == same["pooled"]["ap_mean"]["high"] == 0
    # One that knows the grades: query q looks along axis q, the document's grade for q.
    wise = np.zeros((40, 12), np.float32)
    wise[pairs.document, pairs.query] = pairs.grade
    better = measure(pairs, np.eye(12, dtype=np.float32), wise, settings)
    found = compare(better, plain, pairs, settings)
    assert better.per_query["ndcg_linear@10"] == pytest.approx(np.ones(12))
    assert found["per_query"]["ndcg_exp@10"]["p"] < 0.01
    assert found["pooled"]["ap_mean"]["low"] > 0
