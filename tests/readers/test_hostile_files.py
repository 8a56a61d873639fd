"""Small files that ask for much: memory stays bounded, and what is refused is refused by name."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from files import write

from ssra_engine.config import load_config
from ssra_engine.corpus import open_corpus
from ssra_engine.errors import ConfigError, DataError
from ssra_engine.inspection import inspect_input
from ssra_engine.judgments import read_judgments
from ssra_engine.readers import columnar, declared
from ssra_engine.roles import fake_roles
from ssra_engine.run import run
from ssra_engine.verify import verify_output

_MIB = 1 << 20


def _most_memory() -> int:
    """The most memory that the process held since `_forget_memory`."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


def _forget_memory() -> int:
    Path("/proc/self/clear_refs").write_text("5")
    return _most_memory()


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "arrows"])
def test_a_long_text_that_many_rows_name(tmp_path: Path, suffix: str) -> None:
    """A dictionary holds 4 MiB once; 5,000 rows that name it would hold 20 GiB."""
    rows = 5000
    long = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), ["x" * (4 * _MIB)])
    table = pa.table({"doc_id": [str(number) for number in range(rows)], "title": long})
    path = tmp_path / f"c.{suffix}"
    if suffix == "parquet":
        pq.write_table(table, path, compression="zstd", dictionary_pagesize_limit=1 << 30)
        assert path.stat().st_size < _MIB
    else:
        write(table, path)
    del table, long
    before = _forget_memory()
    documents = open_corpus([path], limit=60).batches(4)
    assert sum(len(batch) for batch in documents) == 60
    assert _most_memory() - before < 400 * _MIB


@pytest.mark.parametrize("suffix", ["arrow", "arrows"])
@pytest.mark.parametrize("dictionary", [False, True])
def test_a_batch_that_decompresses_to_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, dictionary: bool
) -> None:
    monkeypatch.setattr(declared, "MOST_BATCH_BYTES", 10 * _MIB)
    path = tmp_path / f"c.{suffix}"
    new = pa.ipc.new_file if suffix == "arrow" else pa.ipc.new_stream

    def stored(size: int) -> Path:
        texts = pa.array(["x" * size], pa.large_string())
        column = texts.dictionary_encode() if dictionary else texts
        table = pa.table({"doc_id": ["a"], "title": column})
        with new(path, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
            writer.write_table(table)
        return path

    assert open_corpus([stored(9 * _MIB)]).check().documents == 1
    assert stored(11 * _MIB).stat().st_size < _MIB
    with pytest.raises(DataError, match=r"decompresses to 11,\d+,\d+ bytes, .* fewer rows a batch"):
        open_corpus([path]).check()


@pytest.mark.parametrize("number", [-1, 0, 1, 1 << 40, (1 << 63) - 1, -(1 << 63)])
def test_lengths_that_lie(tmp_path: Path, number: int) -> None:
    """Every eight bytes of a compressed file that are a buffer's length, replaced by another."""
    table = pa.table({"doc_id": ["a", "b"], "title": ["x" * 999, "y" * 999]})
    path = tmp_path / "c.arrow"
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_file(path, table.schema, options=options) as writer:
        writer.write_table(table)
    data = path.read_bytes()
    lie = struct.pack("<q", number)
    before = _forget_memory()
    for length in (0, 8, 12, 1998):  # of the offsets and the texts
        true = struct.pack("<q", length)
        place = data.find(true, 8)
        while place >= 0:
            path.write_bytes(data[:place] + lie + data[place + 8 :])
            try:
                open_corpus([path]).check()
            except DataError as error:
                refusal = error
                assert refusal.file == str(path)
            place = data.find(true, place + 1)
    assert _most_memory() - before < 400 * _MIB


def test_absurd_numbers_of_rows_and_columns(tmp_path: Path) -> None:
    wide = pa.table({"doc_id": ["a"], "title": ["t"], **{f"c{n}": [n] for n in range(3000)}})
    for suffix in ("arrow", "parquet", "csv", "jsonl"):
        path = write(wide, tmp_path / f"wide.{suffix}")
        assert open_corpus([path]).check().documents == 1
    nothing = pa.table({"doc_id": pa.nulls(1_000_000, pa.string()), "title": pa.nulls(1_000_000)})
    pq.write_table(nothing, tmp_path / "nulls.parquet")
    with pytest.raises(DataError, match="row 0: the doc_id is null"):
        open_corpus([tmp_path / "nulls.parquet"]).check()


def test_deep_nesting(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    deep = "[" * 50_000 + "]" * 50_000
    path.write_text(f'{{"doc_id": "a", "title": "t", "x": {deep}}}\n')
    assert open_corpus([path]).check().documents == 1
    inspect_input(str(path))
    kind = pa.string()
    for _ in range(40):
        kind = pa.list_(kind)
    table = pa.table({"doc_id": ["a"], "title": ["t"], "x": pa.nulls(1, kind)})
    for suffix in ("arrow", "parquet"):
        path = write(table, tmp_path / f"deep.{suffix}")
        assert open_corpus([path]).check().documents == 1
        inspect_input(str(path))


def test_names_of_documents_are_never_paths(tmp_path: Path) -> None:
    names = [
        *("../../outside", "/etc/passwd", "..", ".", "a/b/c", "~root", "$HOME", "con", "-rf", "*"),
        *("a\nb", "x" * 100_000, "synthetic/part-00000.parquet", "%2e%2e%2f", "C:\\x", "\u202ex"),
    ]
    rows = [{"doc_id": name, "title": f"title {n}"} for n, name in enumerate(names)]
    path = write(rows, tmp_path / "c.jsonl")
    folder = tmp_path / "here"
    config = load_config(overrides={"output.shard_documents": 5, "refine.documents": 8})
    run(config, [path], fake_roles(config.grades), folder / "out")
    assert verify_output(folder / "out").findings == []
    kept = pq.read_table(folder / "out/synthetic").column("doc_id").to_pylist()
    rejected = pq.read_table(folder / "out/rejected").column("doc_id").to_pylist()
    assert {*kept, *rejected} == set(names)
    assert {path.name for path in tmp_path.iterdir()} == {"c.jsonl", "here"}
    assert {path.name for path in folder.iterdir()} == {"out"}


@pytest.mark.parametrize(
    "text",
    [
        "seed: " + "9" * 5000,
        "seed: 2001-99-99",
        "seed: !!int ''",
        "seed: !!bool 7",
        "seed: !!timestamp x",
        "seed: !!float x",
        "seed: !!python/object/apply:os.system ['true']",
        "? [a]\n: 1",
        "[" * 5000,
        "&a [*a]",
        "model: &a {preset: tiny, model: *a}",
        "seed: \ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
        "a: \0",
    ],
)
def test_hostile_settings(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match=r"c\.yaml: "):
        load_config(path)


def test_settings_that_unfold(tmp_path: Path) -> None:
    """Nine aliases of nine aliases, and so on: 10^9 leaves to print."""
    path = tmp_path / "c.yaml"
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    for n in range(1, 10):
        lines.append(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]")
    path.write_text("\n".join([*lines, "seed: *a9", ""]))
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert len(str(caught.value)) < 2000
    path.write_text("x: " + "y" * (2 * _MIB))
    with pytest.raises(ConfigError, match="larger than 1 MiB"):
        load_config(path)


def test_a_json_line_with_many_names(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    row = {"doc_id": "a", "title": "t", **{f"k{n}": n for n in range(2_000)}}
    path.write_text(json.dumps(row) + "\n" + json.dumps({"doc_id": "b", "title": "t"}) + "\n")
    assert open_corpus([path]).check().documents == 2


@pytest.mark.parametrize("grade", [b"\xff", b"1\x00", b"\xed\xa0\x80"])
def test_a_grade_that_is_not_text(tmp_path: Path, grade: bytes) -> None:
    path = tmp_path / "j.csv"
    path.write_bytes(b"query,doc_id,grade\nq,a,0\nq,b," + grade + b"\nq,c,1\n")
    with pytest.raises(DataError, match=r"column 'grade', line 3: (invalid UTF-8|a NUL byte)"):
        read_judgments([path], (0, 1))


def test_pieces_of_repeated_texts_are_small() -> None:
    array = pa.DictionaryArray.from_arrays(pa.array([0, 0], pa.int32()), ["x" * _MIB])
    assert columnar._longest(array) == _MIB
    assert columnar._longest(pa.array(["x"])) == 1
    assert columnar._longest(pa.nulls(1).dictionary_encode()) == 1
