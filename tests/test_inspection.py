from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from files import FORMATS, write

from ssra_engine.errors import DataError
from ssra_engine.inspection import inspect_input, inspection_text
from ssra_engine.simulate import SIMULATED

JUDGED: list[dict[str, object]] = [
    {"query": "long " * 100, "doc_id": "a", "grade": 2},
    {"query": " ", "doc_id": "b", "grade": 0},
    {"query": "q", "doc_id": None, "grade": 2},
    {"query": "q", "doc_id": "c", "grade": None},
]


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format(tmp_path: Path, suffix: str) -> None:
    text = suffix in ("csv", "tsv")
    path = write(JUDGED, tmp_path / f"j.{suffix}")
    report = inspect_input(path, samples=2)
    assert json.loads(json.dumps(report)) == report
    assert report["kind"] == "judgments"
    assert (report["rows"], report["malformed"], report["files"]) == (4, 0, 1)
    assert report["bytes"] == path.stat().st_size
    assert not report["simulated"]
    columns = {column["name"]: column for column in report["columns"]}
    assert list(columns) == ["query", "doc_id", "grade"]
    assert columns["query"]["types"] == ["string"]
    assert columns["query"]["blanks"] == 1
    assert columns["doc_id"]["nulls" if not text else "blanks"] == 1
    assert columns["grade"]["types"] == ["string" if text else "int64"]
    assert columns["grade"]["most"] == (None if text else 2)
    assert report["counts"]["grade"] == {"" if text else "null": 1, "0": 1, "2": 2}
    assert len(report["samples"]) == 2
    assert len(report["samples"][0]["query"]) == 120
    printed = inspection_text(report)
    assert "judgments" in printed
    assert "4 rows" in printed
    assert "2: 2 (50.0%)" in printed
    assert "simulated" not in printed


def test_kinds(tmp_path: Path) -> None:
    kinds = {
        "corpus": ["doc_id", "asr"],
        "pairs": ["query", "doc_id", "clicks"],
        "annotated": ["query", "doc_id", "grade", "probs"],
        "synthetic": ["query", "doc_id", "grade", "target", "probs"],
        "rejected": ["query", "doc_id", "grade", "target", "probs", "reason"],
        "table": ["query"],
    }
    for kind, names in kinds.items():
        path = write(pa.table({name: ["x"] for name in names}), tmp_path / f"{kind}.parquet")
        assert inspect_input(path)["kind"] == kind


def test_a_simulation_says_so(tmp_path: Path) -> None:
    table = pa.table({"doc_id": ["a"], "title": ["t"]}).replace_schema_metadata({SIMULATED: b"{}"})
    for suffix in ("arrow", "arrows", "parquet"):
        report = inspect_input(write(table, tmp_path / f"c.{suffix}"))
        assert report["simulated"]
        assert "simulated data" in inspection_text(report)


def test_a_folder_is_one_table(tmp_path: Path) -> None:
    write([{"doc_id": "a", "title": "t"}], tmp_path / "a.csv")
    write([{"doc_id": "b", "text": "t"}, {"doc_id": "c", "text": None}], tmp_path / "b.parquet")
    report = inspect_input(tmp_path)
    assert (report["files"], report["formats"], report["rows"]) == (2, ["csv", "parquet"], 3)
    nulls = {column["name"]: column["nulls"] for column in report["columns"]}
    assert nulls == {"doc_id": 0, "title": 2, "text": 2}
    assert "2 files" in inspection_text(report)


def test_odd_columns(tmp_path: Path) -> None:
    invalid = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(np.array([0, 1, 2], np.int32)), pa.py_buffer(b"a\xff")]
    )
    table = pa.table(
        {
            "probs": pa.array([[0.5], None], pa.list_(pa.float32())),
            "bytes": [b"\xff", b""],
            "title": invalid,
            "reason": pa.array(["empty", "empty"]).dictionary_encode(),
        }
    )
    report = inspect_input(write(table, tmp_path / "x.arrow"))
    assert [column["invalid"] for column in report["columns"]] == [0, 0, 1, 0]
    assert [column["nulls"] for column in report["columns"]] == [1, 0, 0, 0]
    assert report["counts"]["reason"] == {"empty": 2}
    json.dumps(report)
    inspection_text(report)


def test_json_lines_of_any_shape(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(
        b'{"a": 1, "b": {"c": [1]}}\nnot json\n{"a": "x\xff"}\n[1]\n{"a": null, "d": true}\n'
    )
    report = inspect_input(path)
    assert (report["rows"], report["malformed"]) == (3, 2)
    assert "line 2: malformed JSON" in report["first_malformed"]
    columns = {column["name"]: column for column in report["columns"]}
    assert {name: column["nulls"] for name, column in columns.items()} == {"a": 1, "b": 2, "d": 2}
    assert columns["a"]["types"] == ["extension<arrow.json>"]
    assert "2 malformed rows" in inspection_text(report)


def test_too_many_values_are_not_counted(tmp_path: Path) -> None:
    table = pa.table({"grade": list(range(200)), "query": ["q"] * 200, "doc_id": ["d"] * 200})
    assert inspect_input(write(table, tmp_path / "x.parquet"))["counts"]["grade"] == {}


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        inspect_input(tmp_path / "none.arrow")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("uid,body\na,b\n", "a corpus has doc_id"),
        ("query;doc_id;grade\nq;d;1\n", "semicolons"),
        ("query,doc_id,grade\nq,d,1\nq,e,4\n", "subtract 1"),
        ("query,doc_id,grade\nq,d,0\nq,e,2.0\n", "--grades 0,1,2"),
        ("query,doc_id,grade\nq,d,good\n", "map the words"),
        ("query,doc_id,grade\nq,d,0.5\n", "whole numbers"),
        ("query,doc_id,grade\ncaf\xe9,d,0\nq,d,3\n", "query: 1 cells are not UTF-8"),
        ("query,doc_id,grade\nq,d,0\nq,e,3.0\n", None),
        ("doc_id,text\na,b\n", None),
    ],
)
def test_it_tells_what_stands_in_the_way(tmp_path: Path, text: str, hint: str | None) -> None:
    path = tmp_path / "own.csv"
    path.write_bytes(text.encode("latin-1"))
    report = inspect_input(path)
    assert len(report["hints"]) == (hint is not None)
    if hint is not None:
        assert hint in report["hints"][0]
        assert report["hints"][0] in inspection_text(report)
