from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from files import FORMATS, write
from hypothesis import given, settings
from hypothesis import strategies as st

from ssra_engine.corpus import open_corpus
from ssra_engine.judgments import read_judgments, read_pairs, split_queries
from ssra_engine.schema import JUDGMENTS, PAIRS

_DATA = Path(__file__).parents[2] / "shared" / "data"


def judged(*rows: tuple[object, ...], split: bool = True) -> list[dict[str, object]]:
    names = ("query", "doc_id", "grade", "split")[: 4 if split else 3]
    return [dict(zip(names, row, strict=True)) for row in rows]


PLAIN = judged(("q1", "a", 0, "train"), ("q1", "b", 2, "train"), ("q2", "a", 1, "dev"))


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format(tmp_path: Path, suffix: str) -> None:
    table = read_judgments([write(PLAIN, tmp_path / f"j.{suffix}")], (0, 1, 2))
    assert table.schema.equals(JUDGMENTS)
    assert table.to_pylist() == PLAIN


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint64(), pa.int64(), pa.float32(), pa.float64()])
def test_grades_of_any_number_type(tmp_path: Path, kind: pa.DataType) -> None:
    table = pa.Table.from_pylist(PLAIN)
    table = table.set_column(2, "grade", table["grade"].cast(kind))
    assert read_judgments([write(table, tmp_path / "j.arrow")], (0, 1, 2)).to_pylist() == PLAIN


def test_grades_written_as_decimals_in_text(tmp_path: Path) -> None:
    path = tmp_path / "j.csv"
    path.write_text("query,doc_id,grade,split\nq1,a, 0 ,train\nq1,b,2.0, train\nq2,a,+1.,dev\n")
    assert read_judgments([path], (0, 1, 2)).to_pylist() == PLAIN
    path = tmp_path / "j.jsonl"
    path.write_text(
        '{"query": "q", "doc_id": "a", "grade": 1.0}\n{"query": "q", "doc_id": "b", "grade": 0}\n'
    )
    assert read_judgments([path], (0, 1)).column("grade").to_pylist() == [1, 0]


def test_several_annotators_become_their_lower_median(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = judged(
        ("q", "a", 3, "train"),
        ("q", "b", 1, "train"),
        ("q", "a", 0, "train"),
        ("r", "a", 2, "dev"),
        ("q", "a", 3, "train"),
        ("q", "b", 2, "train"),
        ("r", "a", 2, "dev"),
        ("q", "c", 0, "train"),
    )
    with caplog.at_level(logging.WARNING):
        table = read_judgments([write(rows, tmp_path / "j.parquet")], (0, 1, 2, 3))
    assert table.schema.equals(JUDGMENTS)
    assert table.to_pylist() == judged(
        ("q", "a", 3, "train"),
        ("q", "b", 1, "train"),
        ("r", "a", 2, "dev"),
        ("q", "c", 0, "train"),
    )
    assert "4 of 8 judgments" in caplog.text
    assert "2 pairs had several grades" in caplog.text


def test_a_pair_that_is_once_held_out_is_held_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = judged(
        ("q", "a", 1, "train"),
        ("q", "b", 0, "train"),
        ("q", "a", 1, "test"),
        ("q", "c", 1, "train"),
        ("r", "a", 1, "dev"),
        ("q", "a", 1, "dev"),
    )
    table = read_judgments([write(rows, tmp_path / "j.arrow")], (0, 1))
    assert table["split"].to_pylist() == ["test", "train", "train", "dev"]
    assert "1 queries are in several splits" in caplog.text


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("column", ["absent", "null"])
def test_without_a_split_the_queries_are_split(tmp_path: Path, suffix: str, column: str) -> None:
    rows = judged(*((f"q{i % 40}", f"d{i}", i % 3) for i in range(400)), split=False)
    if column == "null":
        rows = [row | {"split": None} for row in rows]
    table = read_judgments([write(rows, tmp_path / f"j.{suffix}")], (0, 1, 2), seed=3)
    splits: dict[str, set[str]] = {}
    for row in table.to_pylist():
        splits.setdefault(row["query"], set()).add(row["split"])
    assert all(len(found) == 1 for found in splits.values())
    dev = sorted(query for query, found in splits.items() if found == {"dev"})
    assert 1 <= len(dev) <= 12
    backwards = write(rows[::-1], tmp_path / f"backwards.{suffix}")
    again = read_judgments([backwards], (0, 1, 2), seed=3)
    assert sorted(set(again.filter(pa.compute.field("split") == "dev")["query"].to_pylist())) == dev
    other = read_judgments([backwards], (0, 1, 2), seed=4)
    assert sorted(set(other.filter(pa.compute.field("split") == "dev")["query"].to_pylist())) != dev


def test_a_split_without_dev_gets_one_from_train_alone(tmp_path: Path) -> None:
    rows = judged(
        *((f"q{i % 20}", f"d{i}", i % 2 + i % 3 // 2, "train") for i in range(200)),
        *((f"t{i}", "d0", 1, "test") for i in range(50)),
    )
    table = read_judgments([write(rows, tmp_path / "j.parquet")], (0, 1, 2), dev_share=0.2)
    by_split = {
        split: {row["query"] for row in table.to_pylist() if row["split"] == split}
        for split in ("train", "dev", "test")
    }
    assert by_split["test"] == {f"t{i}" for i in range(50)}
    assert 1 <= len(by_split["dev"]) < 15
    assert by_split["dev"] | by_split["train"] == {f"q{i}" for i in range(20)}
    assert not by_split["dev"] & by_split["train"]


@settings(deadline=None)
@given(
    queries=st.lists(st.text(max_size=4), max_size=30),
    seed=st.integers(0, 2**63 - 1),
    share=st.floats(0, 1),
)
def test_split_queries(queries: list[str], seed: int, share: float) -> None:
    dev = split_queries(pa.array(queries, pa.string()), seed, share)
    assert dev.shape == (len(queries),)
    by_query: dict[str, bool] = {}
    for query, side in zip(queries, dev.tolist(), strict=True):
        assert by_query.setdefault(query.lower().strip(), side) == side
    if share == 0:
        assert not dev.any()


def test_split_queries_gives_the_share_and_both_sides() -> None:
    queries = pa.array([f"query {i}" for i in range(20_000)])
    assert abs(split_queries(queries, 1, 0.1).mean() - 0.1) < 0.01
    few = split_queries(pa.array(["one", "two", "One ", "ＴＷＯ"]), 0, 1e-9)
    assert few.sum() == 2
    assert few[0] == few[2]
    assert few[1] == few[3]
    assert np.array_equal(split_queries(pa.array(["one", "two"]), 0, 1.0), few[:2])


def test_pairs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows: list[dict[str, object]] = [
        {"query": query, "doc_id": doc_id, "clicks": i}
        for i, (query, doc_id) in enumerate([("b", "1"), ("a", "1"), ("b", "1"), ("a", "2")])
    ]
    with caplog.at_level(logging.INFO):
        table = read_pairs([write(rows, tmp_path / "p.csv")], doc_ids=pa.array(["1", "2", "3"]))
    assert table.schema.equals(PAIRS)
    assert table.to_pylist() == [
        {"query": "b", "doc_id": "1"},
        {"query": "a", "doc_id": "1"},
        {"query": "a", "doc_id": "2"},
    ]
    assert "1 repeated pairs" in caplog.text


@pytest.mark.data
@pytest.mark.skipif(not _DATA.is_dir(), reason=f"the judged data is not at {_DATA}")
def test_real_judgments() -> None:
    for path in sorted(_DATA.glob("*/judgments.parquet")):
        doc_ids = open_corpus([path.with_name("corpus.arrow")]).table()["doc_id"]
        table = read_judgments([path], (0, 1, 2, 3), doc_ids=doc_ids)
        splits = table.group_by("split").aggregate([("query", "count_distinct")])
        assert set(splits["split"].to_pylist()) == {"train", "dev"}
    for path in sorted(_DATA.glob("*/pairs.parquet")):
        doc_ids = open_corpus([path.with_name("corpus.arrow")]).table()["doc_id"]
        assert len(read_pairs([path], doc_ids=doc_ids)) > 9000
