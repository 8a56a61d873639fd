"""Reasons for judgments: which are asked for, and that each ends beside its own judgment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from documents import make_documents
from files import write

from ssra_engine.config import load_config
from ssra_engine.engines.engine import GENERATED, Sampling
from ssra_engine.engines.fake import FakeEngine
from ssra_engine.errors import DataError
from ssra_engine.judgments import read_judgments, read_split
from ssra_engine.prompts import grade_meanings
from ssra_engine.schema import RATIONALES, REJECTED_RATIONALES
from ssra_engine.teaching.assignment import Outcome
from ssra_engine.teaching.rationale import rationale
from ssra_engine.teaching.teacher import Teacher


class _Parrot(FakeEngine):
    """Repeats the title, the query and the meaning of the grade that it was told."""

    def __init__(self, poison: str = "never") -> None:
        super().__init__()
        self.poison = poison

    def generate_batches(
        self, batches: Iterable[pa.RecordBatch], sampling: Sampling
    ) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            rows = []
            for row, (prefix, suffix) in enumerate(
                zip(batch["prefix"].to_pylist(), batch["suffix"].to_pylist(), strict=True)
            ):
                if prefix.endswith(self.poison):
                    raise RuntimeError("seven")
                title, query = prefix.split("\n")[1], suffix.split("\n")[0]
                meaning = suffix.split("document ")[1].split(".\n")[0]
                text = "" if query.endswith("q3") else f"{title} | {query} | {meaning}"
                rows.append((row, 0, text, [1], 0.0, "stop"))
            columns = [pa.array(column) for column in zip(*rows, strict=True)]
            yield pa.RecordBatch.from_arrays(
                [c.cast(f.type) for c, f in zip(columns, GENERATED, strict=True)], schema=GENERATED
            )


def _judgments(count: int) -> list[dict[str, object]]:
    """Documents come and go; every fifth row is held out."""
    return [
        {
            "query": f"q{number}",
            "doc_id": f"doc-{number * 7 % 10}",
            "grade": number % 4,
            "split": "train" if number % 5 else "dev",
        }
        for number in range(count)
    ]


def _explain(folder: Path, out: str = "out", poison: str = "never", **settings: Any) -> Outcome:
    folder.mkdir(exist_ok=True)
    corpus = write(pa.table(make_documents(10).to_pydict()), folder / "corpus.jsonl")
    judgments = write(_judgments(40), folder / "judgments.jsonl")
    config = load_config(overrides={k.replace("__", "."): v for k, v in settings.items()})
    teacher = Teacher("parrot", lambda: _Parrot(poison))
    return rationale(config, [corpus], [judgments], teacher, folder / out)


def _table(folder: Path) -> pa.Table:
    return pa.concat_tables(map(pq.read_table, sorted(folder.glob("*.parquet"))))


@pytest.mark.parametrize("poison", ["never", " 7\n"])
def test_every_reason_stands_beside_its_judgment(tmp_path: Path, poison: str) -> None:
    outcome = _explain(tmp_path, poison=poison)
    lost = "doc-7" if poison != "never" else None
    table = _table(outcome.table)
    assert table.schema.equals(RATIONALES)
    assert table.drop_columns("rationale").to_pylist() == _judgments(40)
    titles = {row["doc_id"]: row["title"] for row in make_documents(10).to_pylist()}
    meanings = grade_meanings(4)
    for number, row in enumerate(table.to_pylist()):
        if row["split"] == "dev" or row["query"] == "q3" or row["doc_id"] == lost:
            assert row["rationale"] is None
            continue
        title = " ".join(titles[row["doc_id"]].split())
        meaning = meanings[row["grade"]]
        assert row["rationale"] == f"Title: {title} | Search query: q{number} | {meaning}"
    rejected = _table(tmp_path / "out/rejected")
    assert rejected.schema.equals(REJECTED_RATIONALES)
    fates = {(row["doc_id"], row["reason"], row["message"]) for row in rejected.to_pylist()}
    hurt = {("doc-7", "error", "RuntimeError: seven")} if lost else set()
    assert fates == {("doc-1", "empty", None)} | hurt
    assert outcome.failed == (4 if lost else 0)
    assert outcome.summary["left"] == 8
    assert outcome.summary["written"] == 40 - 8 - 1 - outcome.failed


def test_shards_change_nothing_and_held_out_rows_can_be_asked_too(tmp_path: Path) -> None:
    whole = _explain(tmp_path, rationale__split="all")
    parts = _explain(tmp_path, "parts", rationale__split="all", output__shard_documents=3)
    assert _table(whole.table).equals(_table(parts.table))
    assert _table(tmp_path / "out/rejected").equals(_table(tmp_path / "parts/rejected"))
    assert whole.summary["left"] == 0
    read = read_judgments([parts.table], (0, 1, 2, 3), rationales=True)
    assert read.equals(_table(whole.table))
    assert "rationale" not in read_split([parts.table], (0, 1, 2, 3), "all").column_names


def test_reasons_that_are_there_stay_and_only_the_others_are_asked_for(tmp_path: Path) -> None:
    rows = _judgments(40)
    for number in (0, 1, 6):
        rows[number]["rationale"] = f"by hand {number}"
    corpus = write(pa.table(make_documents(10).to_pydict()), tmp_path / "corpus.jsonl")
    judgments = write(rows, tmp_path / "judgments.jsonl")
    teacher = Teacher("parrot", _Parrot)
    first = rationale(load_config(), [corpus], [judgments], teacher, tmp_path / "out")
    found = _table(first.table).to_pylist()
    for number, row in enumerate(found):
        written = row["split"] == "train" and number != 3
        expected = f": q{number} |" if written else None
        if number in (0, 1, 6):
            assert row["rationale"] == f"by hand {number}"
        elif expected is None:
            assert row["rationale"] is None, row
        else:
            assert expected in row["rationale"]
    config = load_config(overrides={"rationale.split": "dev"})
    then = rationale(config, [corpus], [first.table], teacher, tmp_path / "then")
    again = _table(then.table).to_pylist()
    for before, after in zip(found, again, strict=True):
        if before["split"] == "train":
            assert after == before
    assert sum(row["rationale"] is not None for row in again) > 40 - 5


def test_a_split_that_no_row_is_in_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no row is in the split tarin; the splits are: dev, train"):
        _explain(tmp_path, rationale__split="tarin")


def test_a_judgment_of_an_unknown_document_is_refused(tmp_path: Path) -> None:
    corpus = write([{"doc_id": "a", "title": "x"}], tmp_path / "corpus.jsonl")
    rows = [{"query": "q", "doc_id": name, "grade": 1} for name in ("a", "b")]
    judgments = write(rows, tmp_path / "judgments.jsonl")
    teacher = Teacher("fake", FakeEngine)
    with pytest.raises(DataError, match=r"line 2: 'b' is not in the corpus"):
        rationale(load_config(), [corpus], [judgments], teacher, tmp_path / "out")


def test_of_several_rationales_of_a_pair_that_of_its_grade_stays(tmp_path: Path) -> None:
    given = [(2, "late"), (0, "low"), (1, "first"), (1, "second"), (2, "high")]
    rows = [
        {"query": "q", "doc_id": "a", "grade": grade, "rationale": text, "split": "train"}
        for grade, text in given
    ]
    rows.append({"query": "p", "doc_id": "a", "grade": 0, "rationale": "own", "split": "train"})
    path = write(rows, tmp_path / "j.jsonl")
    read = read_judgments([path], (0, 1, 2), rationales=True, dev_share=0)
    assert read.select(["grade", "rationale"]).to_pylist() == [
        {"grade": 1, "rationale": "first"},
        {"grade": 0, "rationale": "own"},
    ]
