from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from files import FORMATS, write
from hypothesis import given, settings
from hypothesis import strategies as st

from ssra_engine.corpus import Corpus, CorpusSummary, open_corpus
from ssra_engine.errors import DataError, StoreError
from ssra_engine.readers import columnar, find_sources, lines
from ssra_engine.schema import CORPUS

_DATA = Path(__file__).parents[2] / "shared" / "data"
_TEXT = st.text(
    st.one_of(st.sampled_from('",\n\r\t |{}[]\\中é\u2028'), st.characters(codec="utf-8")),
    max_size=12,
).map(lambda text: text.replace("\0", ""))
_TYPES = (pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int16(), pa.string()))


def documents(count: int, start: int = 0) -> list[dict[str, object]]:
    return [
        {
            "doc_id": f"d{i}",
            "title": f"title, {i}",
            "text": "" if i % 3 else f"text {i}",
            "views": i,
        }
        for i in range(start, start + count)
    ]


def rows_of(corpus: Corpus, rows: int = 8192) -> list[dict[str, str]]:
    return [row for batch in corpus.batches(rows) for row in batch.to_pylist()]


def expected_rows(given_rows: list[dict[str, object]]) -> list[dict[str, object]]:
    return [{name: row.get(name) or "" for name in CORPUS.names} for row in given_rows]


@settings(max_examples=40, deadline=None)
@given(
    cells=st.lists(st.tuples(_TEXT, st.none() | _TEXT, st.none() | _TEXT), min_size=1, max_size=30),
    kind=st.sampled_from(_TYPES),
    rows=st.integers(1, 40),
    block=st.integers(20, 200),
)
def test_every_format_yields_the_same_batches(
    cells: list[tuple[str, str | None, str | None]], kind: pa.DataType, rows: int, block: int
) -> None:
    columns = {
        "doc_id": [f"{i}{title}" for i, (title, _, _) in enumerate(cells)],
        "title": [f"x{title}" for title, _, _ in cells],
        "ocr": [ocr for _, ocr, _ in cells],
        "asr": [asr for _, _, asr in cells],
    }
    expected = [
        {"doc_id": i, "title": t, "text": "", "ocr": o or "", "asr": a or ""}
        for i, t, o, a in zip(*columns.values(), strict=True)
    ]
    table = pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
    typed = pa.table({name: table[name].cast(kind) for name in table.column_names})
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "_BLOCK_BYTES", block)
        patch.setattr(columnar, "_PIECE_ROWS", 4)
        for suffix in FORMATS:
            columnar_type = suffix in ("arrow", "arrows", "parquet")
            path = Path(folder) / f"corpus.{suffix}"
            write(typed if columnar_type else table, path)
            corpus = open_corpus([path])
            batches = list(corpus.batches(rows))
            assert {len(batch) for batch in batches[:-1]} <= {rows}
            assert all(batch.schema.equals(CORPUS) for batch in batches)
            assert [row for batch in batches for row in batch.to_pylist()] == expected
            assert corpus.check() == CorpusSummary(len(cells), 0, 0, 0)


def test_columns_that_are_not_there_and_others(tmp_path: Path) -> None:
    path = write([{"views": 1, "asr": "words", "doc_id": "a"}], tmp_path / "c.parquet")
    corpus = open_corpus([path])
    assert corpus.table().schema.equals(CORPUS)
    assert rows_of(corpus) == [{"doc_id": "a", "title": "", "text": "", "ocr": "", "asr": "words"}]


def test_a_column_of_nulls(tmp_path: Path) -> None:
    table = pa.table({"doc_id": ["a"], "title": ["t"], "text": pa.nulls(1)})
    assert rows_of(open_corpus([write(table, tmp_path / "c.arrow")]))[0]["text"] == ""


def test_json_lines_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_bytes(
        b"\xef\xbb\xbf\n"
        b'{"doc_id": "a", "title": "\\u4e2d", "extra": {"x": [1, null]}}\r\n'
        b"\n  \n"
        b'{"text": "no title here", "extra": "text", "doc_id": "b"}'
    )
    assert [(r["doc_id"], r["title"]) for r in rows_of(open_corpus([path]))] == [
        ("a", "中"),
        ("b", ""),
    ]


def test_a_quoted_cell_may_cross_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "_BLOCK_BYTES", 64)
    long = "line\n" * 100 + 'the "end"'
    path = write(
        [{"doc_id": "a", "title": long}, {"doc_id": "b", "title": "t"}], tmp_path / "c.csv"
    )
    assert [row["title"] for row in rows_of(open_corpus([path]))] == [long, "t"]


def test_the_content_decides_before_the_name(tmp_path: Path) -> None:
    path = write(documents(3), tmp_path / "c.parquet").rename(tmp_path / "c.csv")
    assert len(rows_of(open_corpus([path]))) == 3


def test_batches_cross_files_in_the_order_given(tmp_path: Path) -> None:
    second = write(documents(10, 0), tmp_path / "b.csv")
    first = write(documents(10, 10), tmp_path / "a.arrow")
    corpus = open_corpus([second, first])
    assert corpus.files == (str(second), str(first))
    assert [len(batch) for batch in corpus.batches(7)] == [7, 7, 6]
    assert rows_of(corpus, 7) == expected_rows(documents(20))


def test_folders_globs_and_uris(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    (folder / "deep").mkdir(parents=True)
    write(documents(5, 5), folder / "b.parquet")
    write(documents(5), folder / "a.jsonl")
    write(documents(5, 10), folder / "deep" / "c.arrow")
    for ignored in (".hidden.csv", "_SUCCESS.csv", "README.md", "state.json"):
        (folder / ignored).write_text("not data")
    names = [str(folder / name) for name in ("a.jsonl", "b.parquet", "deep/c.arrow")]
    expected = expected_rows(documents(15))
    for given_input in (folder, f"{folder}/", f"file://{folder}"):
        corpus = open_corpus([given_input])
        assert [name.removeprefix("file://") for name in corpus.files] == names
        assert rows_of(corpus, 4) == expected
    assert open_corpus([f"{folder}/*.[jp]*l", f"{folder}/*.parquet"]).files == tuple(names[:2])
    uri = f"file://{folder}"
    assert len(open_corpus([f"{uri}/[!a]*.parquet"]).files) == 1
    assert len(open_corpus([f"{uri}/**/*.arrow", f"{uri}/b*"]).files) == 2


def test_a_folder_is_sorted_whatever_the_file_system_says(tmp_path: Path) -> None:
    for i in range(40):
        write(documents(1, i), tmp_path / f"part-{i * 7 % 40:02}.csv")
    names = [Path(name).name for name in open_corpus([tmp_path]).files]
    assert names == sorted(names)


def test_limit_counts_documents_read(tmp_path: Path) -> None:
    files = [
        write(documents(10), tmp_path / "a.csv"),
        write(documents(10, 10), tmp_path / "b.arrow"),
    ]
    for limit in (1, 9, 10, 11, 20, 30):
        corpus = open_corpus(files, limit=limit)
        assert corpus.check().documents == min(limit, 20)
        assert rows_of(corpus, 3) == expected_rows(documents(min(limit, 20)))
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"doc_id": "a", "title": "t"}\n{\n{"doc_id": "b", "title": "t"}\n')
    limited = open_corpus([bad], limit=2, on_error="reject")
    assert limited.check() == CorpusSummary(1, 1, 0, 0)
    assert [row["doc_id"] for row in rows_of(limited)] == ["a"]


@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize("rows", [1, 2, 3, 100])
def test_rejected_documents_go_with_their_neighbours(
    tmp_path: Path, rows: int, checked: bool
) -> None:
    one = write(
        [
            {"doc_id": None, "title": "no id"},  # before any usable one
            {"doc_id": "a", "title": "a"},
            {"doc_id": "b", "title": " "},
            {"doc_id": "b", "title": "b"},
        ],
        tmp_path / "one.arrow",
    )
    two = tmp_path / "two.jsonl"
    two.write_text(
        '{"doc_id": "a", "title": "again"}\n{"doc_id": "c", "title": "c"}\n\nnot json\n'
        '{"doc_id": "d", "title": 5}\n'
    )
    corpus = open_corpus([one, two], on_error="reject")
    if checked:
        assert corpus.check() == CorpusSummary(documents=3, rejected=5, duplicates=1, blank=1)
    pairs = list(corpus.batches_with_errors(rows))
    ids = [batch["doc_id"].to_pylist() for batch, _ in pairs]
    assert list(itertools.chain(*ids)) == ["a", "b", "c"]
    assert ids == [["a", "b", "c"][i : i + rows] for i in range(0, 3, rows)]
    places = [[m.split(":")[0] for m in table["message"].to_pylist()] for _, table in pairs]
    expected = [
        [f"{one}, column 'doc_id', row 0", f"{one}, row 2"],
        [f"{two}, column 'doc_id', line 1"],
        [f"{two}, line 4", f"{two}, column 'title', line 5"],
    ]
    assert places == [list(itertools.chain(*expected[i : i + rows])) for i in range(0, 3, rows)]
    rejected_ids = [i for _, table in pairs for i in table["doc_id"].to_pylist()]
    assert rejected_ids == [None, "b", "a", None, None]


def test_a_later_usable_document_may_have_the_id_of_a_rejected_one(tmp_path: Path) -> None:
    rows = [{"doc_id": "a", "title": ""}, {"doc_id": "a", "title": "t"}]
    corpus = open_corpus([write(rows, tmp_path / "c.csv")], on_error="reject")
    assert [row["title"] for row in rows_of(corpus)] == ["t"]


def test_rejected_documents_without_any_usable_one(tmp_path: Path) -> None:
    path = write([{"doc_id": "a", "title": ""}, {"doc_id": "b", "title": ""}], tmp_path / "c.csv")
    corpus = open_corpus([path], on_error="reject")
    ((batch, rejected),) = corpus.batches_with_errors(10)
    assert (len(batch), batch.schema.equals(CORPUS), len(rejected)) == (0, True, 2)
    assert list(corpus.batches()) == []
    with pytest.raises(DataError, match="none of the 2 documents can be used"):
        corpus.check()


def test_invalid_cells_are_rejected_alone(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_bytes(b"doc_id,title\na,fine\nb,\xff\nc,nul \x00\nd,fine\n")
    corpus = open_corpus([path], on_error="reject")
    assert [row["doc_id"] for row in rows_of(corpus)] == ["a", "d"]
    ((_, rejected),) = corpus.batches_with_errors(10)
    assert rejected["doc_id"].to_pylist() == ["b", "c"]


def test_huge_arrow_batches_are_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(documents(50), tmp_path / "c.arrow")
    monkeypatch.setattr(columnar, "_PIECE_BYTES", 100)
    mapped = []
    read_mapped = columnar._mapped_batches
    monkeypatch.setattr(
        columnar, "_mapped_batches", lambda *args: mapped.append(args) or read_mapped(*args)
    )
    kept = list(open_corpus([path]).batches(8))
    assert mapped
    assert pa.Table.from_batches(kept).to_pylist() == expected_rows(documents(50))


def test_duplicates_are_found_on_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "ssra_engine.repeats.RepeatFinder.__init__.__defaults__", (3,), raising=True
    )
    rows = documents(20) + documents(20)
    corpus = open_corpus([write(rows, tmp_path / "c.parquet")], on_error="reject")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    assert corpus.check(scratch) == CorpusSummary(20, 20, 20, 0)
    assert list(scratch.iterdir()) == []
    assert rows_of(corpus) == expected_rows(documents(20))


def test_scratch_must_be_a_folder(tmp_path: Path) -> None:
    corpus = open_corpus([write(documents(3), tmp_path / "c.csv")])
    with pytest.raises(StoreError, match="nowhere"):
        corpus.check(tmp_path / "nowhere")


def test_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    one, two = write(documents(5), tmp_path / "a.csv"), write(documents(5, 5), tmp_path / "b.csv")
    before = open_corpus([one, two]).fingerprint()
    assert len(before) == 32
    assert open_corpus([two, one]).fingerprint() != before
    one = one.rename(tmp_path / "renamed.csv")
    assert open_corpus([one, two]).fingerprint() == before
    two.write_bytes(two.read_bytes().replace(b"title, 9", b"title, 8"))
    assert open_corpus([one, two]).fingerprint() != before


def test_more_text_than_a_batch_can_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columnar, "_PIECE_ROWS", 2)
    corpus = open_corpus([write(documents(6), tmp_path / "c.parquet")])
    whole = next(corpus.batches(6)).nbytes
    monkeypatch.setattr("ssra_engine.corpus._MOST_BATCH_BYTES", whole - 1)
    with pytest.raises(DataError, match="more than 2 GiB"):
        list(corpus.batches(6))
    assert len(list(corpus.batches(3))) == 2


@pytest.mark.data
@pytest.mark.skipif(not _DATA.is_dir(), reason=f"the judged data is not at {_DATA}")
def test_real_corpora() -> None:
    paths = sorted(_DATA.glob("*/corpus.arrow"))
    assert paths
    for path in paths:
        corpus = open_corpus([path])
        count = pa.ipc.open_file(path).read_all().num_rows
        assert corpus.check() == CorpusSummary(count, 0, 0, 0)
        sizes = [len(batch) for batch in corpus.batches(1000)]
        assert sum(sizes) == count
        assert set(sizes[:-1]) == {1000}


def test_parquet_rows_read_at_once_follow_their_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columnar, "_PIECE_BYTES", 1 << 20)
    table = pa.table({"doc_id": [f"d{i}" for i in range(300)], "title": ["wide " * 10_000] * 300})
    path = tmp_path / "c.parquet"
    pq.write_table(table, path, use_dictionary=False)
    (source,) = find_sources([path])
    sizes = [len(rows) for rows in columnar.columnar_rows(source, None)]
    assert sum(sizes) == 300
    assert max(sizes) * 50_000 <= columnar._PIECE_BYTES


def test_small_batches_are_read_together(tmp_path: Path) -> None:
    ids = [f"d{i}" for i in range(3000)]
    sizes = [1] * 1000 + [1500] + [2] * 250
    ends = np.cumsum(sizes)
    path = tmp_path / "c.arrow"
    schema = pa.schema({"doc_id": pa.string(), "title": pa.dictionary(pa.int8(), pa.string())})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as stream:
        for start, end in zip(ends - sizes, ends, strict=True):
            # Each batch has a dictionary of its own; together they outgrow an int8.
            own = pa.DictionaryArray.from_arrays(
                pa.array([0] * (end - start), pa.int8()), [f"t{start}"]
            )
            stream.write_batch(pa.record_batch([ids[start:end], own], schema=schema))
    (source,) = find_sources([path])
    pieces = list(columnar.columnar_rows(source, ["doc_id"]))
    assert len(pieces) < 10
    assert np.concatenate([piece.places for piece in pieces]).tolist() == list(range(3000))
    read = open_corpus([path]).table()
    assert read["doc_id"].to_pylist() == ids
    titles = [
        f"t{start}" for start, size in zip(ends - sizes, sizes, strict=True) for _ in range(size)
    ]
    assert read["title"].to_pylist() == titles
