from __future__ import annotations

import numpy as np
import pyarrow as pa

from ssra_engine.engines.engine import REQUESTS
from ssra_engine.prompts import TEMPLATES
from ssra_engine.schema import ANNOTATED, D2Q, PAIRS
from ssra_engine.stages.annotate import annotated, d2q_rows, score_requests, training_data


def d2q(rows: list[tuple[str, str, int]], source: str) -> pa.Table:
    return pa.table(
        [
            [doc for doc, _, _ in rows],
            [f"T: {doc}\n" for doc, _, _ in rows],
            [query for _, query, _ in rows],
            pa.array([grade for _, _, grade in rows], pa.int8()),
            [source] * len(rows),
        ],
        schema=D2Q,
    )


def test_pairs_get_the_likeliest_grade() -> None:
    pairs = pa.table([["q", "r"], ["a", "b"]], schema=PAIRS)
    probs = np.array([[0.1, 0.7, 0.2], [0.5, 0.1, 0.4]], np.float32)
    table = annotated(pairs, probs)
    assert table.schema == ANNOTATED
    assert table["grade"].to_pylist() == [1, 0]
    np.testing.assert_array_equal(np.array(table["probs"].to_pylist(), np.float32), probs)


def test_rows_lie_beside_their_documents() -> None:
    graded = pa.table({"query": ["q", "r"], "doc_id": ["b", "a"], "grade": [2, 0]})
    documents = pa.table({"doc_id": ["a", "b"], "document": ["A", "B"]})
    rows = d2q_rows(graded, documents, "judgment")
    assert rows["document"].to_pylist() == ["B", "A"]
    assert rows["grade"].to_pylist() == [2, 0]


def test_score_requests_keep_the_order_and_share_documents() -> None:
    rows = d2q([("a", "q1", 0), ("b", "q2", 0), ("a", "q3", 0)], "score")
    (batch,) = score_requests(rows, TEMPLATES["plain"], 4)
    assert batch.schema == REQUESTS
    assert batch.column("prefix").to_pylist() == ["T: a\n", "T: b\n", "T: a\n"]
    assert len(batch.column("prefix").dictionary) == 2
    assert batch.column("suffix").to_pylist() == ["Q: q1\nG:", "Q: q2\nG:", "Q: q3\nG:"]


def test_a_popular_query_is_capped_and_judgments_come_first() -> None:
    judged = d2q([("a", "Q", 3), ("b", "q ", 0)], "judgment")
    scored = d2q([("a", "q", 1), ("c", "q", 2), ("d", "other", 1)], "score")
    confidence = np.array([0.9, 0.9, 0.9])
    kept = training_data(judged, scored, confidence, most=2, least=0.0)
    assert kept["doc_id"].to_pylist() == ["a", "b", "d"]
    assert kept["grade"].to_pylist() == [3, 0, 1]


def test_a_judged_pair_is_not_annotated_again() -> None:
    judged = d2q([("a", "q", 3)], "judgment")
    scored = d2q([("a", "q", 1), ("b", "q", 2)], "score")
    kept = training_data(judged, scored, np.array([0.9, 0.9]), most=9, least=0.0)
    assert list(zip(kept["doc_id"].to_pylist(), kept["grade"].to_pylist(), strict=True)) == [
        ("a", 3),
        ("b", 2),
    ]


def test_unsure_annotations_are_left_out() -> None:
    scored = d2q([("a", "q", 1), ("b", "r", 2)], "score")
    kept = training_data(D2Q.empty_table(), scored, np.array([0.4, 0.6]), most=9, least=0.5)
    assert kept["doc_id"].to_pylist() == ["b"]
