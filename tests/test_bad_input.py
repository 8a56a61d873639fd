"""What bad input gets: one DataError that names the file, the column, the row and the mend."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from files import FORMATS, write

from ssra_engine.corpus import open_corpus
from ssra_engine.errors import DataError
from ssra_engine.judgments import read_judgments, read_pairs
from ssra_engine.readers import cells, lines

GOOD: list[dict[str, object]] = [{"doc_id": f"d{i}", "title": f"title {i}"} for i in range(6)]
JUDGED: list[dict[str, object]] = [
    {"query": f"q{i}", "doc_id": f"d{i}", "grade": i % 3} for i in range(6)
]


def stream(path: Path, on_error: str = "stop") -> None:
    corpus = open_corpus([path], on_error=on_error)
    corpus.check()
    list(corpus.batches())


def refusal(path: Path, on_error: str = "stop") -> DataError | None:
    try:
        stream(path, on_error)
    except DataError as error:
        return error
    return None


def refused(
    call: Callable[[], object],
    file: Path | str,
    *,
    says: str,
    mend: str,
    column: str | None = None,
    row: int | None = None,
    line: int | None = None,
) -> DataError:
    with pytest.raises(DataError) as caught:
        call()
    error = caught.value
    message = str(error)
    assert (error.file, error.column, error.row, error.line) == (str(file), column, row, line)
    assert message.startswith(str(file))
    for part in (
        says,
        mend,
        *([f"column '{column}'"] if column else []),
        *([f"row {row}"] if row is not None else []),
        *([f"line {line}"] if line is not None else []),
    ):
        assert part in message
    assert "\n" not in message
    return error


def place(suffix: str, row: int) -> dict[str, int]:
    """A row as this format reports it, where every row is a line."""
    if suffix == "jsonl":
        return {"line": row + 1}
    return {"line": row + 2} if suffix in ("csv", "tsv") else {"row": row}


def changed(rows: list[dict[str, object]], index: int, **values: object) -> list[dict[str, object]]:
    return [row | values if i == index else row for i, row in enumerate(rows)]


def raw_strings(values: list[bytes]) -> pa.Array:
    """An array of type string whose bytes nobody has looked at."""
    return pa.array(values, pa.binary()).view(pa.string())


# Whole files


def test_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "none.arrow"
    refused(lambda: stream(path), path, says="no such file", mend="Check the path")


def test_missing_mount_or_scheme() -> None:
    uri = "nosuch://user:secret@host/corpus.arrow"
    error = refused(
        lambda: open_corpus([uri]),
        "nosuch://host/corpus.arrow",
        says="Unrecognized filesystem",
        mend="Check the path",
    )
    assert str(error).startswith("nosuch://host/corpus.arrow")


@pytest.mark.parametrize("pattern", ["", "*.arrow"])
def test_nothing_in_a_folder_or_glob(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    given = f"{tmp_path}/{pattern}" if pattern else str(tmp_path)
    for shown in (given, f"file://{given}"):
        refused(lambda given=shown: open_corpus([given]), shown, says="no data files", mend="Arrow")


def test_no_inputs() -> None:
    with pytest.raises(DataError, match="no input files"):
        open_corpus([])


def test_a_file_given_twice(tmp_path: Path) -> None:
    path = write(GOOD, tmp_path / "c.csv")
    refused(lambda: open_corpus([path, path]), path, says="given twice", mend="once")


@pytest.mark.parametrize("suffix", [*FORMATS, "txt"])
def test_empty_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"c.{suffix}"
    path.touch()
    refused(lambda: stream(path), path, says="is empty", mend="Write it again")


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_without_documents(tmp_path: Path, suffix: str) -> None:
    schema = pa.schema([("doc_id", pa.string()), ("title", pa.string())])
    path = write(schema.empty_table(), tmp_path / f"c.{suffix}")
    if suffix == "jsonl":
        path.write_text("\n\n")
    corpus = open_corpus([path])
    refused(corpus.check, path, says="there are no documents", mend="Give a file")
    refused(lambda: list(corpus.batches()), path, says="there are no documents", mend="Give")


def test_a_folder_named_like_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "c.arrow"
    folder.mkdir()
    refused(lambda: stream(folder), folder, says="no data files", mend="Give an Arrow")


@pytest.mark.parametrize(
    ("name", "content", "says", "mend"),
    [
        ("c.arrow", b"doc_id,title\na,b\n", "the content does not", "foreign"),
        ("c.parquet", b"\x00\x01\x02\x03", "the content does not", "foreign"),
        ("c.feather", b"FEA1\x00", "Feather version 1", "version 2"),
        ("c.jsonl.gz", b"\x1f\x8b\x08\x00", "gzip", "gunzip"),
        ("c.csv", b"PK\x03\x04", "spreadsheet", "Export"),
        ("c.csv", "doc_id,title\n".encode("utf-16"), "UTF-16", "iconv"),
        ("c.json", b' [{"doc_id": "a"}]', "JSON array", "jq"),
        ("c.txt", b"hello", "format is not known", "Give an Arrow"),
    ],
)
def test_foreign_files(tmp_path: Path, name: str, content: bytes, says: str, mend: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    refused(lambda: stream(path), path, says=says, mend=mend)


@pytest.mark.parametrize("suffix", ["arrow", "arrows", "parquet"])
def test_truncated_anywhere(tmp_path: Path, suffix: str) -> None:
    path = write(GOOD * 1 + [{"doc_id": "long", "title": "x" * 500}], tmp_path / f"c.{suffix}")
    whole = path.read_bytes()
    refusals = 0
    for end in range(8, len(whole) - 1, max(1, len(whole) // 60)):
        path.write_bytes(whole[:end])
        error = refusal(path)
        if error is not None:
            refusals += 1
            assert error.file == str(path)
            assert error.mend
    # A stream that ends between two batches looks whole.
    assert refusals >= (40 if suffix == "arrows" else 60)


@pytest.mark.parametrize("suffix", FORMATS)
def test_damaged_bytes_never_escape_as_another_exception(tmp_path: Path, suffix: str) -> None:
    path = write(GOOD, tmp_path / f"c.{suffix}")
    whole = path.read_bytes()
    for seed in range(40):
        dice = random.Random(seed)
        damaged = bytearray(whole)
        for _ in range(dice.choice([1, 3])):
            damaged[dice.randrange(len(damaged))] = dice.choice([0, 255, dice.randrange(256)])
        path.write_bytes(damaged)
        for on_error in ("stop", "reject"):
            error = refusal(path, on_error)
            assert error is None or error.mend


# Columns


@pytest.mark.parametrize("suffix", FORMATS)
def test_missing_doc_id(tmp_path: Path, suffix: str) -> None:
    path = write([{"id": "a", "title": "t"}], tmp_path / f"c.{suffix}")
    refused(
        lambda: open_corpus([path]),
        path,
        column="doc_id",
        says="missing; the columns are: id, title",
        mend="rename",
    )


@pytest.mark.parametrize("suffix", FORMATS)
def test_no_text_column(tmp_path: Path, suffix: str) -> None:
    path = write([{"doc_id": "a", "body": "t"}], tmp_path / f"c.{suffix}")
    if suffix == "jsonl":  # other lines may have one
        refused(lambda: stream(path), path, says="all blank", mend="some words", line=1)
    else:
        refused(lambda: open_corpus([path]), path, says="none of the columns title", mend="rename")


def test_a_csv_without_header(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text("a1,some title\na2,another\n")
    refused(
        lambda: open_corpus([path]), path, column="doc_id", says="a1, some title", mend="rename"
    )


@pytest.mark.parametrize("suffix", FORMATS)
def test_two_columns_of_one_name(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"c.{suffix}"
    if suffix == "jsonl":
        path.write_text('{"doc_id": "a", "title": "t", "title": "u"}\n')
    elif suffix in ("csv", "tsv"):
        path.write_text(
            "doc_id,title,title\na,b,c\n".replace(",", {"csv": ",", "tsv": "\t"}[suffix])
        )
    else:
        arrays = [pa.array(["a"]), pa.array(["t"]), pa.array(["u"])]
        write(pa.Table.from_arrays(arrays, ["doc_id", "title", "title"]), path)
    refused(
        lambda: open_corpus([path]), path, column="title", says="two columns", mend="Rename or drop"
    )


def test_a_name_twice_on_a_later_line(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text('{"doc_id": "a", "title": "t"}\n{"doc_id": "b", "title": "t", "title": "u"}\n')
    refused(lambda: stream(path), path, column="title", line=2, says="twice", mend="Keep one")


@pytest.mark.parametrize("suffix", ["arrow", "arrows", "parquet"])
@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("doc_id", pa.array([1])),
        ("title", pa.array([b"t"])),
        ("text", pa.array([["t"]])),
        ("ocr", pa.array([{"t": 1}])),
    ],
)
def test_wrong_type(tmp_path: Path, suffix: str, column: str, values: pa.Array) -> None:
    columns = {"doc_id": pa.array(["a"]), "title": pa.array(["t"])} | {column: values}
    path = write(pa.table(columns), tmp_path / f"c.{suffix}")
    kind = str(pq.read_schema(path).field(column).type) if suffix == "parquet" else str(values.type)
    refused(
        lambda: open_corpus([path]),
        path,
        column=column,
        says=f"the type is {kind}, not string",
        mend="Cast the column to string",
    )


@pytest.mark.parametrize("value", ["5", "true", "[1]", '{"x": 1}'])
def test_wrong_type_in_json(tmp_path: Path, value: str) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text(f'{{"doc_id": "a", "title": "t"}}\n{{"doc_id": {value}, "title": "t"}}\n')
    refused(
        lambda: stream(path), path, column="doc_id", line=2, says="text is expected", mend="quotes"
    )


# Documents


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("value", [None, "", " \u3000"])
def test_null_or_blank_doc_id(tmp_path: Path, suffix: str, value: str | None) -> None:
    path = write(changed(GOOD, 3, doc_id=value), tmp_path / f"c.{suffix}")
    null = value is None and suffix not in ("csv", "tsv")
    refused(
        lambda: stream(path),
        path,
        column="doc_id",
        **place(suffix, 3),
        says="the doc_id is null" if null else "the doc_id is blank",
        mend="Give every document a doc_id",
    )


@pytest.mark.parametrize("suffix", FORMATS)
def test_duplicate_doc_id(tmp_path: Path, suffix: str) -> None:
    path = write(changed(GOOD, 5, doc_id="d1"), tmp_path / f"c.{suffix}")
    first = place(suffix, 1)
    where = f"line {first['line']}" if "line" in first else f"row {first['row']}"
    refused(
        lambda: stream(path),
        path,
        column="doc_id",
        **place(suffix, 5),
        says=f"doc_id 'd1' is that of {where}",
        mend="--on-error reject",
    )


def test_duplicate_doc_id_in_another_file(tmp_path: Path) -> None:
    one = write(GOOD, tmp_path / "one.csv")
    two = write([{"doc_id": "new", "title": "t"}, GOOD[2]], tmp_path / "two.parquet")
    corpus = open_corpus([one, two])
    refused(
        corpus.check, two, column="doc_id", row=1, says=f"line 4 of {one}", mend="its own doc_id"
    )


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("blank", ["", None, "  ", "\u200b\u3000"])
def test_blank_document(tmp_path: Path, suffix: str, blank: str | None) -> None:
    rows: list[dict[str, object]] = [
        {"doc_id": "a", "title": "t", "text": ""},
        {"doc_id": "b", "title": "", "text": "t"},
        {"doc_id": "c", "title": blank, "text": blank},
    ]
    path = write(rows, tmp_path / f"c.{suffix}")
    refused(
        lambda: stream(path),
        path,
        **place(suffix, 2),
        says="title, text, ocr and asr are all blank",
        mend="some words",
    )
    assert open_corpus([path], on_error="reject").check().blank == 1


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("column", ["doc_id", "title"])
@pytest.mark.parametrize(
    ("value", "says"),
    [
        (b"a\xff\xfe", "invalid UTF-8 at byte 1 (0xff)"),
        (b"\xed\xa0\x80", "invalid UTF-8 at byte 0"),
    ],
)
def test_invalid_utf8(tmp_path: Path, suffix: str, column: str, value: bytes, says: str) -> None:
    marked = changed(GOOD, 4, **{column: "MARK"})
    if suffix in ("arrow", "arrows", "parquet"):
        table = pa.Table.from_pylist(marked)
        values = [text.encode() for text in table[column].to_pylist()]
        values[4] = value
        table = table.set_column(table.column_names.index(column), column, raw_strings(values))
        path = write(table, tmp_path / f"c.{suffix}")
    else:
        path = write(marked, tmp_path / f"c.{suffix}")
        path.write_bytes(path.read_bytes().replace(b"MARK", value))
    refused(
        lambda: stream(path), path, column=column, **place(suffix, 4), says=says, mend="as UTF-8"
    )


@pytest.mark.parametrize("kind", ["dictionary", "large", "view"])
def test_invalid_utf8_in_other_layouts(tmp_path: Path, kind: str) -> None:
    titles = raw_strings([b"fine", b"b\xc3", b"fine"])
    array = {
        "dictionary": lambda: pa.DictionaryArray.from_arrays(pa.array([0, 1, 2]), titles),
        "large": lambda: pa.array([b"fine", b"b\xc3", b"fine"], pa.large_binary()).view(
            pa.large_string()
        ),
        "view": lambda: pa.array([b"fine", b"b\xc3", b"fine"], pa.binary_view()).view(
            pa.string_view()
        ),
    }[kind]()
    path = write(pa.table({"doc_id": ["a", "b", "c"], "title": array}), tmp_path / "c.arrow")
    refused(
        lambda: stream(path), path, column="title", row=1, says="invalid UTF-8", mend="as UTF-8"
    )


@pytest.mark.parametrize("suffix", FORMATS)
def test_nul_bytes(tmp_path: Path, suffix: str) -> None:
    path = write(changed(GOOD, 2, title="ab\0c"), tmp_path / f"c.{suffix}")
    refused(
        lambda: stream(path),
        path,
        column="title",
        **place(suffix, 2),
        says="a NUL byte at byte 2",
        mend="Remove it",
    )


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_huge_cell(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "MAX_CELL_BYTES", 1 << 20)
    path = write(changed(GOOD, 2, title="x" * ((1 << 20) + 1)), tmp_path / f"c.{suffix}")
    refused(
        lambda: stream(path),
        path,
        column="title",
        **place(suffix, 2),
        says="1 MiB of text",
        mend="Cut the text",
    )
    assert open_corpus([path], on_error="reject").check().documents == 5


# Lines


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"doc_id": "b"', "malformed JSON"),
        ('{"doc_id": "b"} {"doc_id": "c"}', "Extra data"),
        ("null", "null where a JSON object"),
        ('["b"]', "an array where a JSON object"),
        ("b,c", "malformed JSON"),
        ('{"doc_id": "b", "title": "\\ud800"}', "cannot be stored"),
        ("[" * 100_000, "malformed JSON"),
        ('{"doc_id": "b", "title": "un\tescaped"}', "Invalid control character"),
    ],
)
def test_a_malformed_json_line(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text(f'{{"doc_id": "a", "title": "t"}}\n\n{line}\n{{"doc_id": "z", "title": "t"}}\n')
    with pytest.raises(DataError) as caught:
        stream(path)
    column = "title" if "stored" in says else None
    mend = "Mend it" if column else "one JSON object a line"
    refused(lambda: stream(path), path, column=column, line=3, says=says, mend=mend)
    assert caught.value.line == 3
    corpus = open_corpus([path], on_error="reject")
    ((batch, rejected),) = corpus.batches_with_errors(10)
    assert batch["doc_id"].to_pylist() == ["a", "z"]
    assert f"line 3: {caught.value.problem}" in rejected["message"][0].as_py()


def test_a_json_file_that_is_malformed_from_the_start(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text("doc_id,title\na,t\n")
    refused(lambda: stream(path), path, line=1, says="malformed JSON", mend="one JSON object")


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_an_endless_line(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 1 << 20)
    monkeypatch.setattr(lines, "_BLOCK_BYTES", 1 << 16)
    long = changed(GOOD, 1, title="x" * (3 << 20))
    path = write(changed(long, 4, title=""), tmp_path / f"c.{suffix}")
    refused(lambda: stream(path), path, **place(suffix, 1), says="longer than", mend="")
    corpus = open_corpus([path], on_error="reject")
    ((batch, rejected),) = corpus.batches_with_errors(10)
    assert batch["doc_id"].to_pylist() == ["d0", "d2", "d3", "d5"]
    for row, message in zip((1, 4), rejected["message"].to_pylist(), strict=True):
        assert f"line {place(suffix, row)['line']}: " in message
    path.write_bytes(path.read_bytes() + b"x" * (3 << 20))
    assert open_corpus([path], on_error="reject").check().rejected == 3


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("b", "1 cells where the header has 2"),
        ("b,t,u", "3 cells where the header has 2"),
        ('b,"open', "a quote is opened and never closed"),
        ("b,carriage\rreturn", "malformed: new-line character"),
    ],
)
def test_a_malformed_csv_row(tmp_path: Path, row: str, says: str) -> None:
    path = tmp_path / "c.csv"
    path.write_bytes(f'doc_id,title\na,"two\nlines"\n{row}\nz,t\n'.encode())
    refused(lambda: stream(path), path, line=4, says=says, mend="double quotes")
    corpus = open_corpus([path], on_error="reject")
    assert corpus.table()["doc_id"].to_pylist() == ["a", "z"]


def test_a_header_over_two_lines(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text('doc_id,"title","my\nnotes"\na,t,n\nb,,n\n')
    refused(lambda: stream(path), path, line=4, says="all blank", mend="some words")


def test_a_quote_that_never_closes_costs_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ssra_engine.readers import delimited

    monkeypatch.setattr(delimited, "MAX_CELL_BYTES", 1 << 12)
    monkeypatch.setattr(lines, "_BLOCK_BYTES", 1 << 10)
    path = tmp_path / "c.csv"
    rest = "".join(f"d{i},title\n" for i in range(2000))
    path.write_text(f'doc_id,title\na,"open\n{rest}')
    refused(lambda: stream(path), path, line=2, says="never closed", mend="double quotes")
    corpus = open_corpus([path], on_error="reject")
    assert (corpus.check().documents, corpus.check().rejected) == (2000, 1)


# Judgments and pairs


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("column", ["query", "doc_id", "grade"])
def test_judgments_without_a_column(tmp_path: Path, suffix: str, column: str) -> None:
    rows = [{name: value for name, value in row.items() if name != column} for row in JUDGED]
    path = write(rows, tmp_path / f"j.{suffix}")
    refused(
        lambda: read_judgments([path], (0, 1, 2)),
        path,
        column=column,
        says="the column is missing",
        mend=f"rename the column that holds it to {column}",
    )


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(
    ("grade", "says"),
    [
        (None, "the grade is null"),
        (3, "is not one of the grades 0, 1, 2"),
        (-1, "is not one of the grades"),
        (0.5, "is not one of the grades"),
        (2**62, "is not one of the grades"),
    ],
)
def test_bad_grades(tmp_path: Path, suffix: str, grade: float | None, says: str) -> None:
    rows = changed(JUDGED, 3, grade=grade)
    if isinstance(grade, float):
        rows = [row | {"grade": float(row["grade"])} for row in rows]  # type: ignore[arg-type]
    path = write(rows, tmp_path / f"j.{suffix}")
    refused(
        lambda: read_judgments([path], (0, 1, 2)),
        path,
        column="grade",
        **place(suffix, 3),
        says=says,
        mend="Fill it in" if grade is None else "--grades",
    )


def test_grades_that_are_words(tmp_path: Path) -> None:
    words = [row | {"grade": "good"} for row in JUDGED]
    path = write(words, tmp_path / "j.csv")
    refused(
        lambda: read_judgments([path], (0, 1)), path, column="grade", line=2, says="'good'", mend=""
    )
    path = write(words, tmp_path / "j.parquet")
    refused(
        lambda: read_judgments([path], (0, 1)),
        path,
        column="grade",
        says="the type is string, not an integer",
        mend="Cast",
    )
    path = write(words, tmp_path / "j.jsonl")
    refused(
        lambda: read_judgments([path], (0, 1)),
        path,
        column="grade",
        line=1,
        says="text where a number is expected",
        mend="bare number",
    )


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("column", ["query", "doc_id"])
def test_blank_queries_and_ids(tmp_path: Path, suffix: str, column: str) -> None:
    path = write(changed(JUDGED, 2, **{column: " "}), tmp_path / f"j.{suffix}")
    for call in (lambda: read_judgments([path], (0, 1, 2)), lambda: read_pairs([path])):
        refused(
            call,
            path,
            column=column,
            **place(suffix, 2),
            says=f"the {column} is blank",
            mend="leave out the row",
        )


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_doc_id_that_is_not_in_the_corpus(tmp_path: Path, suffix: str) -> None:
    path = write(JUDGED, tmp_path / f"j.{suffix}")
    doc_ids = pa.array(["d0", "d1", "d2", "d3", "d5"], pa.large_string())
    for call in (
        lambda: read_judgments([path], (0, 1, 2), doc_ids=doc_ids),
        lambda: read_pairs([path], doc_ids=doc_ids),
    ):
        refused(
            call,
            path,
            column="doc_id",
            **place(suffix, 4),
            says="'d4' is not in the corpus (1 such rows)",
            mend="Add the document",
        )


def test_judgments_of_one_grade(tmp_path: Path) -> None:
    path = write([row | {"grade": 2} for row in JUDGED], tmp_path / "j.parquet")
    refused(
        lambda: read_judgments([path], (0, 1, 2)),
        path,
        column="grade",
        says="the judgments hold one grade only (2)",
        mend="two grades or more",
    )
    rows = [row | {"split": "train" if row["grade"] == 1 else "dev"} for row in JUDGED]
    path = write(rows, tmp_path / "j.csv")
    refused(
        lambda: read_judgments([path], (0, 1, 2)),
        path,
        column="grade",
        says="the train judgments hold one grade only (1)",
        mend="two grades or more",
    )


def test_judgments_without_train(tmp_path: Path) -> None:
    path = write([row | {"split": "Train"} for row in JUDGED], tmp_path / "j.parquet")
    refused(
        lambda: read_judgments([path], (0, 1, 2)),
        path,
        column="split",
        says="the splits are: Train",
        mend="as train",
    )


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_split_here_and_there(tmp_path: Path, suffix: str) -> None:
    rows = changed([row | {"split": "train"} for row in JUDGED], 4, split=None)
    path = write(rows, tmp_path / f"j.{suffix}")
    refused(
        lambda: read_judgments([path], (0, 1, 2)),
        path,
        column="split",
        **place(suffix, 4),
        says="the split is null or blank",
        mend="Write train, dev or test",
    )


def test_judgments_without_rows(tmp_path: Path) -> None:
    path = tmp_path / "j.csv"
    path.write_text("query,doc_id,grade\n")
    refused(lambda: read_judgments([path], (0, 1)), path, says="no rows", mend="Give a file")
    refused(lambda: read_pairs([path]), path, says="no rows", mend="Give a file")


def test_the_first_bad_row_is_named_whatever_is_wrong_with_it(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    path.write_text('{"query": "q", "doc_id": "a", "grade": 0}\n{"doc_id": "a", "grade": 9}\n{\n')
    refused(
        lambda: read_judgments([path], (0, 1)), path, column="query", line=2, says="null", mend=""
    )


def test_damaged_offsets(tmp_path: Path) -> None:
    offsets = pa.py_buffer(np.array([0, 9, 2], np.int32))
    titles = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"ab")])
    table = pa.table({"doc_id": ["a", "b"], "title": titles})
    buffer = io.BytesIO()
    with pa.ipc.new_file(buffer, table.schema) as writer:
        writer.write_table(table)
    path = tmp_path / "c.arrow"
    path.write_bytes(buffer.getvalue())
    for on_error in ("stop", "reject"):
        refused(
            lambda on_error=on_error: stream(path, on_error),
            path,
            says="cannot be read as an Arrow file",
            mend="write it again",
        )
