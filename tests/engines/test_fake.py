from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ssra_engine.engines.engine import GENERATED, REQUESTS, Request, Sampling, scored_schema
from ssra_engine.engines.fake import MARK, FakeEngine
from ssra_engine.errors import EngineError


def _requests(documents: int = 600, grades: int = 4) -> pa.RecordBatch:
    prefixes = pa.array([f"T:title {n} 小猫\nX:text\n" for n in range(documents)])
    row = np.repeat(np.arange(documents, dtype=np.int32), grades)
    suffixes = [f"G:{grade}\nQ:" for _ in range(documents) for grade in range(grades)]
    return pa.RecordBatch.from_arrays(
        [
            pa.DictionaryArray.from_arrays(pa.array(row), prefixes),
            pa.array(suffixes),
            pa.array(np.arange(len(row), dtype=np.uint64)),
        ],
        schema=REQUESTS,
    )


def _generate(batch: pa.RecordBatch, salt: int = 0, **sampling: float) -> pa.RecordBatch:
    (rows,) = FakeEngine(salt).generate_batches([batch], Sampling(**sampling))
    return rows


def test_a_completion_depends_on_its_request_only() -> None:
    batch = _requests()
    whole = _generate(batch, n=2)
    assert whole.schema == GENERATED
    part = _generate(batch.slice(100, 7), n=2)
    assert part.column("text").equals(whole.column("text").slice(200, 14))
    assert part.column("request").to_pylist() == [row for row in range(7) for _ in range(2)]
    assert part.column("sample").to_pylist() == [0, 1] * 7


def test_texts_take_every_road() -> None:
    texts = pc.utf8_trim_whitespace(_generate(_requests()).column("text"))
    counts = texts.value_counts().to_pylist()
    assert any(row["values"] == "" for row in counts)
    assert pc.max(pc.utf8_length(texts)).as_py() > 64
    assert any(row["values"].startswith("popular") and row["counts"] > 1 for row in counts)
    assert any(text == f"title {n // 4} 小猫" for n, text in enumerate(texts.to_pylist()))
    marked = pc.mean(pc.match_substring(texts, MARK).cast(pa.int8())).as_py()
    assert 0.8 < marked < 0.95


def test_seed_salt_and_sample_change_the_text_unless_greedy() -> None:
    batch = _requests(40)
    plain = _generate(batch, n=2)
    assert not plain.column("text").equals(_generate(batch, salt=1, n=2).column("text"))
    assert plain.column("text").to_pylist()[0::2] != plain.column("text").to_pylist()[1::2]
    greedy = _generate(batch, n=2, temperature=0.0).column("text").to_pylist()
    assert greedy[0::2] == greedy[1::2]


def test_scores_read_the_digit_and_mostly_agree() -> None:
    batch = _requests()
    queries = _generate(batch).column("text")
    suffixes = pc.binary_join_element_wise("Q:", queries, "\nG:", "")
    scored = pa.RecordBatch.from_arrays(
        [batch.column("prefix"), suffixes, batch.column("seed")], schema=REQUESTS
    )
    (rows,) = FakeEngine().score_batches([scored], ["0", "1", "2", "3"])
    assert rows.schema == scored_schema(4)
    logits = rows.column("logits").flatten().to_numpy().reshape(-1, 4)
    agreement = (logits.argmax(axis=1) == np.tile(np.arange(4), 600)).mean()
    assert 0.6 < agreement < 0.8
    (part,) = FakeEngine().score_batches([scored.slice(11, 50)], ["0", "1", "2", "3"])
    assert part.column("logits").equals(rows.column("logits").slice(11, 50))


def test_convenience_forms() -> None:
    engine = FakeEngine()
    requests = [Request("T:a title\n", "G:1\nQ:"), Request("T:other\n", "G:2\nQ:")]
    completions = engine.generate(requests, n=3)
    assert [len(row) for row in completions] == [3, 3]
    assert all(len(one.token_ids) == 1 and one.logprob <= 0 for row in completions for one in row)
    assert engine.label_logits(requests, ["0", "1"]).shape == (2, 2)
    assert engine.stats.requests == 4


def test_a_label_of_several_characters_is_refused() -> None:
    with pytest.raises(EngineError, match="one character"):
        FakeEngine().label_logits([Request("T:a\n", "Q:b\nG:")], ["10"])
