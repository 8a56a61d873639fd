from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssra_engine.calibration import Calibration
from ssra_engine.engines.engine import REQUESTS
from ssra_engine.engines.fake import FakeEngine
from ssra_engine.keys import hash_strings, normalise
from ssra_engine.reasons import KEPT, reason_code
from ssra_engine.schema import CORPUS, REASONS
from ssra_engine.stages.filter import (
    check_scores,
    check_text,
    document_forms,
    score,
)


def _check(query: str, title: str = "t", limit: int = 20, ended: bool = True, **texts: str) -> str:
    row = dict.fromkeys(CORPUS.names, "") | {"doc_id": "d", "title": title} | texts
    documents = pa.RecordBatch.from_pylist([row], schema=CORPUS)
    queries = pa.array([query])
    normalised = normalise(queries)
    (code,) = check_text(
        queries,
        normalised=normalised,
        keys=hash_strings(normalised),
        ended=np.array([ended]),
        document=np.zeros(1, np.int32),
        forms=document_forms(documents, limit),
        max_query_chars=limit,
    )
    return "kept" if code == KEPT else REASONS[code]


@pytest.mark.parametrize(
    ("query", "title", "fate"),
    [
        ("red panda", "all about pandas", "kept"),
        ("", "t", "empty"),
        ("half a \ufffd", "t", "empty"),
        ("x" * 20, "t", "kept"),
        ("x" * 21, "t", "too_long"),
        ("小" * 20, "t", "kept"),
        ("RED  Panda", "red panda", "copied"),
        ("the red panda", "the red panda!!", "copied"),
        ("the red panda!!", "the red panda", "copied"),
        ("red panda", "the red panda of the zoo", "kept"),
        ("red panda eats bamboo", "panda", "too_long"),
        ("red panda eats", "panda", "kept"),
        ("adnap", "panda", "kept"),
        ("query", "", "kept"),
    ],
)
def test_text_checks(query: str, title: str, fate: str) -> None:
    assert _check(query, title) == fate


@pytest.mark.parametrize("column", ["text", "ocr", "asr"])
def test_a_copy_of_any_text_is_copied_but_not_a_part_of_it(column: str) -> None:
    assert _check("Hello World", **{column: "hello  world"}) == "copied"
    assert _check("Hello Worl", **{column: "hello  world"}) == "kept"


def test_a_query_that_ran_into_its_limit_is_too_long() -> None:
    assert _check("half a que", ended=False) == "too_long"


@settings(deadline=None)
@given(
    st.lists(st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3), min_size=1),
    st.floats(0, 1),
    st.data(),
)
def test_no_mismatched_sample_gets_through(
    rows: list[list[float]], least: float, data: st.DataObject
) -> None:
    probs = np.array(rows, np.float32)
    grades = np.array(
        data.draw(st.lists(st.integers(0, 2), min_size=len(rows), max_size=len(rows)))
    )
    codes = check_scores(probs, grades, least)
    for row, grade, code in zip(probs, grades, codes, strict=True):
        best = int(np.flatnonzero(row == row.max())[0])
        if code == KEPT:
            assert best == grade
            assert row[grade] >= least
        else:
            assert REASONS[code] == ("score_mismatch" if best != grade else "low_confidence")


def test_a_score_that_is_not_a_number_is_an_error() -> None:
    probs = np.array([[np.nan, np.nan], [0.2, 0.8]], np.float32)
    assert check_scores(probs, np.array([0, 1]), 0.0).tolist() == [reason_code("error"), KEPT]


def test_score_is_the_softmax_over_the_temperature() -> None:
    batch = pa.RecordBatch.from_arrays(
        [
            pa.array(["T:a\n", "T:b\n"]).dictionary_encode(),
            pa.array(["Q:x #1\nG:", "Q:y\nG:"]),
            pa.array([0, 0], pa.uint64()),
        ],
        schema=REQUESTS,
    )
    engine = FakeEngine()
    (rows,) = engine.score_batches([batch], ["0", "1", "2"])
    logits = rows.column("logits").flatten().to_numpy().reshape(2, 3).astype(np.float64)
    expected = np.exp(logits / 2.5) / np.exp(logits / 2.5).sum(axis=1, keepdims=True)
    got = score(engine, iter([batch]), ["0", "1", "2"], Calibration(2.5), lambda _: None)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    assert score(engine, iter([]), ["0", "1"], Calibration(), lambda _: None).shape == (0, 2)
