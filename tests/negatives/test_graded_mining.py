"""Negatives by grade: what is known, what a grader says, and tables by doc_id."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from stubs import StubModel

from ssra_engine import mine_hard_negatives
from ssra_engine.errors import DataError, EngineError
from ssra_engine.negatives.settings import MiningError, Settings
from ssra_engine.negatives.tables import mine_negatives
from ssra_engine.schema import DOCUMENT_TEXT_COLUMNS, NEGATIVES


def model_of(seed: int, queries: Sequence[str], documents: Sequence[str]) -> StubModel:
    names = [*queries, *documents]
    rows = np.random.default_rng(seed).standard_normal((len(names), 12), np.float32)
    return StubModel(dict(zip(names, rows, strict=True)))


class TrueGrades:
    """A grader that knows every grade, and what it was asked."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.asked: list[tuple[str, str]] = []

    def of(self, query: str, document: str) -> int:
        seed = [self.seed, *query.encode(), 256, *document.encode()]
        return int(np.random.default_rng(seed).choice(4, p=[0.4, 0.2, 0.2, 0.2]))

    def __call__(self, queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
        pairs = list(zip(queries, documents, strict=True))
        self.asked += pairs
        return np.asarray([self.of(*pair) for pair in pairs])


def brute_force(
    model: StubModel,
    rows: list[tuple[str, str, int]],
    corpus: list[str],
    known: dict[tuple[str, str], int],
    truth: TrueGrades | None,
    n: int,
    window: int,
) -> list[tuple[str, str, list[str], list[int | None]]]:
    """One pair at a time; `window` ranks of what knowledge leaves."""
    unit = {name: row / np.linalg.norm(row) for name, row in model.vectors.items()}
    positives = list(dict.fromkeys((q, d) for q, d, grade in rows if grade > 0))
    queries = list(dict.fromkeys(q for q, _ in positives))
    found = []
    for query, positive in sorted(positives, key=lambda pair: queries.index(pair[0])):
        ranking = sorted(corpus, key=lambda name: -float(unit[query] @ unit[name]))
        floor = known[query, positive]
        ranking = [d for d in ranking if known.get((query, d), -1) < floor][:window]
        grade = {d: known.get((query, d)) for d in ranking}
        if truth:
            grade = {d: truth.of(query, d) if g is None else g for d, g in grade.items()}
        fit = [d for d in ranking if (grade[d] if grade[d] is not None else -1) < floor][:n]
        if fit:
            found.append((query, positive, fit, [grade[d] for d in fit]))
    return found


@given(
    seed=st.integers(0, 2**32 - 1),
    pairs=st.integers(1, 40),
    judged=st.integers(0, 30),
    with_grader=st.booleans(),
    n=st.integers(1, 4),
    batch=st.sampled_from([1, 3, 100]),
)
@settings(deadline=None, max_examples=60)
def test_equals_brute_force(
    *, seed: int, pairs: int, judged: int, with_grader: bool, n: int, batch: int
) -> None:
    rng = np.random.default_rng(seed)
    queries, documents = [f"q{i}" for i in range(6)], [f"d{i}" for i in range(25)]
    model, truth = model_of(seed, queries, documents), TrueGrades(seed)

    def draw(rows: int) -> list[tuple[str, str, int]]:
        drawn = [(queries[rng.integers(6)], documents[rng.integers(25)]) for _ in range(rows)]
        return [(q, d, truth.of(q, d)) for q, d in drawn]

    rows = [("q0", "d0", 3), *draw(pairs)]
    more = draw(judged)
    known: dict[tuple[str, str], int] = {}
    for q, d, grade in rows + more:
        known[q, d] = max(grade, known.get((q, d), 0))
    data = [{"query": q, "answer": d, "grade": grade} for q, d, grade in rows]
    got = mine_hard_negatives(
        Dataset.from_list(data),
        model,
        corpus=documents,
        grade_column_name="grade",
        judgments=pa.table(
            {
                "query": [row[0] for row in more] + ["nobody asked"],
                "answer": [row[1] for row in more] + ["d1"],
                "grade": [row[2] for row in more] + [3],
            }
        ),
        grader=truth if with_grader else None,
        num_negatives=n,
        range_max=12,
        output_format="labeled-list",
        faiss_batch_size=batch,
        verbose=False,
    )
    expected = brute_force(model, rows, documents, known, truth if with_grader else None, n, 12)
    assert [
        (row["query"], row["answer"][0], row["answer"][1:], row["grades"][1:]) for row in got
    ] == expected
    for row in got:
        assert row["grades"][0] == known[row["query"], row["answer"][0]]
    assert len(set(truth.asked)) == len(truth.asked)
    assert not set(truth.asked) & set(known)


ROWS = Dataset.from_dict(
    {"query": ["q"] * 3, "answer": ["high", "low", "none"], "grade": [3, 1, 0]}
)


def small_model() -> StubModel:
    places = {"q": 1.0, "high": 0.9, "low": 0.8, "none": 0.7, "new": 0.6, "far": 0.1}
    return StubModel(
        {name: np.asarray([x, np.sqrt(1 - x * x)], np.float32) for name, x in places.items()}
    )


@pytest.mark.parametrize(
    ("output_format", "expected"),
    [
        (
            "triplet",
            [
                {"answer": "high", "negative": "low", "grades": [3, 1]},
                {"answer": "high", "negative": "none", "grades": [3, 0]},
                {"answer": "low", "negative": "none", "grades": [1, 0]},
                {"answer": "low", "negative": "new", "grades": [1, None]},
            ],
        ),
        (
            "n-tuple",
            [
                {"answer": "high", "negative_1": "low", "negative_2": "none", "grades": [3, 1, 0]},
                {
                    "answer": "low",
                    "negative_1": "none",
                    "negative_2": "new",
                    "grades": [1, 0, None],
                },
            ],
        ),
        (
            "labeled-pair",
            [
                {"answer": "high", "label": 1, "grade": 3},
                {"answer": "low", "label": 0, "grade": 1},
                {"answer": "none", "label": 0, "grade": 0},
                {"answer": "low", "label": 1, "grade": 1},
                {"answer": "none", "label": 0, "grade": 0},
                {"answer": "new", "label": 0, "grade": None},
            ],
        ),
    ],
)
def test_a_positive_may_be_a_negative_of_a_better_one(
    output_format: Any, expected: list[dict[str, Any]]
) -> None:
    got = mine_hard_negatives(
        ROWS,
        small_model(),
        corpus=["new", "far"],
        grade_column_name="grade",
        num_negatives=2,
        output_format=output_format,
        verbose=False,
    )
    assert [{key: row[key] for key in row if key != "query"} for row in got] == expected


@pytest.mark.parametrize("strategy", ["top", "random", "simans"])
def test_a_grader_is_asked_about_what_would_be_chosen(strategy: Any) -> None:
    queries, documents = ["q"], [f"d{i}" for i in range(40)]
    truth = TrueGrades(1)
    got = mine_hard_negatives(
        Dataset.from_dict({"query": ["q"], "answer": ["d0"], "grade": [2]}),
        model_of(0, queries, documents),
        corpus=documents,
        grade_column_name="grade",
        grader=truth,
        num_negatives=3,
        sampling_strategy=strategy,
        range_max=39,
        seed=4,
        output_scores=True,
        verbose=False,
    )
    assert len(got) == 3
    for row in got:
        assert row["grades"] == [2, truth.of("q", row["negative"])]
        assert row["grades"][1] < 2
    scores = [pair[1] for pair in got["scores"]]
    assert scores == sorted(scores, reverse=True)
    refused = [pair for pair in truth.asked if truth.of(*pair) >= 2]
    assert len(truth.asked) == 3 + len(refused) < 15


@pytest.mark.parametrize(
    ("answer", "message"),
    [([0.5], "must give a whole number"), ([[1]], "must give"), ([-1], "below 0"), ([200], "127")],
)
def test_a_grader_that_gives_no_grades_is_an_error(answer: list[Any], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        mine_hard_negatives(
            ROWS.select([0]),
            small_model(),
            corpus=["new"],
            grade_column_name="grade",
            grader=lambda queries, documents: answer,
            num_negatives=1,
            verbose=False,
        )


def test_bad_grades_are_named() -> None:
    for grade, message in ((None, "None is no grade"), (-1, "-1 is no"), (2.5, "2.5 is no")):
        rows = pa.table({"query": ["q"] * 2, "answer": ["high"] * 2, "grade": [3, grade]})
        with pytest.raises(DataError, match=f"column 'grade', row [01]: (3.0|{message})"):
            mine_hard_negatives(rows, small_model(), grade_column_name="grade", verbose=False)
    with pytest.raises(MiningError, match="no grade above 0"):
        mine_hard_negatives(
            ROWS.select([2]), small_model(), grade_column_name="grade", verbose=False
        )
    with pytest.raises(MiningError, match="needs query, document, grade"):
        mine_hard_negatives(
            ROWS,
            small_model(),
            grade_column_name="grade",
            judgments=pa.table({"query": ["q"]}),
            verbose=False,
        )


def corpus_of(doc_ids: list[str], titles: list[str]) -> pa.Table:
    blank = [""] * len(doc_ids)
    texts = {name: titles if name == "title" else blank for name in DOCUMENT_TEXT_COLUMNS}
    return pa.table({"doc_id": doc_ids, **texts})


def test_tables_by_doc_id_and_copies_of_a_positive() -> None:
    corpus = corpus_of(
        ["1", "2", "3", "4", "5", "6"], ["high", "low", "high", "new", "far", "none"]
    )
    judgments = pa.table({"query": ["q"] * 3, "doc_id": ["3", "2", "6"], "grade": [3, 1, 0]})
    got = mine_negatives(judgments, corpus, small_model(), Settings(num_negatives=2, min_score=0.5))
    assert got.schema == NEGATIVES
    assert got["doc_id"].to_pylist() == ["1", "2"]
    assert got["negative_doc_ids"].to_pylist() == [["2", "6"], ["6", "4"]]
    assert got["negative_grades"].to_pylist() == [[1, 0], [0, None]]
    np.testing.assert_allclose(got["score"], [0.9, 0.8], atol=1e-6)
    np.testing.assert_allclose(got["negative_scores"].to_pylist()[1], [0.7, 0.6], atol=1e-6)

    with pytest.raises(
        DataError, match="column 'doc_id', row 1: document '9' is not in the corpus"
    ):
        mine_negatives(
            pa.table({"query": ["q"] * 2, "doc_id": ["1", "9"], "grade": [1, 1]}),
            corpus,
            small_model(),
        )
    with pytest.raises(MiningError, match="judgments has no column 'doc_id', 'grade'"):
        mine_negatives(pa.table({"query": ["q"]}), corpus, small_model())
