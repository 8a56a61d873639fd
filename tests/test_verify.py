"""What `verify` says of an output folder, sound or damaged in one place."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from documents import write_documents
from resumable import run_here

from ssra_engine.checksums import file_checksum
from ssra_engine.cli import main
from ssra_engine.errors import StoreError
from ssra_engine.manifest import Manifest, manifest_text, read_manifest
from ssra_engine.store import open_store
from ssra_engine.verify import verify_output

_KEPT = "synthetic/part-00000.parquet"
_REJECTED = "rejected/part-00000.parquet"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    write_documents(folder / "corpus.arrow", 30)
    run_here(folder, 30, 10)
    return folder / "out"


@pytest.fixture
def out(sound: Path, tmp_path: Path) -> Path:
    shutil.copytree(sound, tmp_path / "out")
    return tmp_path / "out"


def _findings(out: Path) -> list[str]:
    return [f"{finding.file}: {finding.problem}" for finding in verify_output(out).findings]


def _only(out: Path) -> str:
    (finding,) = _findings(out)
    return finding


def _rewrite(out: Path, file: str, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change the rows of a part and bring its record up to date, as a bug of ours would."""
    table = change(pq.read_table(out / file))
    pq.write_table(table, out / file)
    manifest = read_manifest(out)
    assert manifest is not None
    for record in manifest.records:
        if record["kind"] == "part" and file in record["files"]:
            record["files"][file] = {"rows": len(table), **file_checksum(out / file)}
    (out / "manifest.json").write_text(manifest_text(manifest))


def _set(column: str, row: int, value: object) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        values = table.column(column).to_pylist()
        values[row] = value
        index = table.schema.get_field_index(column)
        return table.set_column(
            index, table.schema.field(index), pa.array(values, table.schema.field(index).type)
        )

    return change


def test_a_sound_folder(sound: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in sound.rglob("*")}
    verdict = verify_output(sound)
    assert verdict.findings == []
    assert verdict.finished
    summary = json.loads((sound / "summary.json").read_text())
    generated = [one["total"]["generated"] for one in (summary, *summary["rounds"])]
    assert verdict.rows == sum(generated)
    assert verdict.files == 5
    assert {path: path.stat().st_mtime_ns for path in sound.rglob("*")} == before


def test_what_is_not_the_output_of_a_run(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(StoreError, match="not the output of a run"):
            verify_output(folder)


def test_a_folder_that_a_run_works_on_is_left_alone(out: Path) -> None:
    manifest = read_manifest(out)
    assert manifest is not None
    with (
        open_store(out, manifest.fingerprint, ""),
        pytest.raises(StoreError, match=r"process \d+ on .* is working on it"),
    ):
        verify_output(out)
    assert not _findings(out)


@pytest.mark.parametrize("file", [_KEPT, _REJECTED, "rounds/1/query/weights.txt"])
def test_files_that_are_missing_or_changed(out: Path, file: str) -> None:
    data = (out / file).read_bytes()
    (out / file).write_bytes(data[:-1])
    assert f"{file}: has {len(data) - 1:,} bytes, {len(data):,} are recorded" == _only(out)
    (out / file).write_bytes(data[:9] + bytes([data[9] ^ 4]) + data[10:])
    assert f"{file}: was changed: its checksum is not the one recorded" == _only(out)
    (out / file).unlink()
    assert f"{file}: is missing" == _only(out)


def test_files_of_nobody(out: Path) -> None:
    (out / "notes.txt").touch()
    assert not _findings(out)
    shutil.copy(out / _KEPT, out / "synthetic" / "part-00001.parquet")
    assert _only(out).startswith("synthetic/part-00001.parquet: is not of this run")


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("seed", 7, "row 3 has a seed that is not of its document and settings"),
        ("doc_id", "doc-29", "row 3 has a seed that is not of its document"),
        ("doc_id", None, "row 3 has no doc_id"),
        ("round", 0, "row 3 is of another round"),
        ("target", 9, "row 3 is of a target grade that the run did not ask for"),
        ("target", None, "row 3 has no target grade and no reason error"),
    ],
)
def test_rows_that_nobody_asked_for(out: Path, column: str, value: object, says: str) -> None:
    _rewrite(out, _KEPT, _set(column, 3, value))
    assert any(finding.startswith(f"{_KEPT}: {says}") for finding in _findings(out))


def test_rows_that_are_there_twice(out: Path) -> None:
    def double(table: pa.Table) -> pa.Table:
        return pa.concat_tables([table, table.slice(4, 2)])

    rows = pq.read_metadata(out / _KEPT).num_rows
    _rewrite(out, _KEPT, double)
    assert (
        f"{_KEPT}: 2 samples (doc_id, target, sample) are there twice, the first of them in row "
        f"{rows} and in row 4 of {_KEPT}"
    ) == _only(out)


def test_a_row_that_is_kept_and_rejected(out: Path) -> None:
    row = pq.read_table(out / _KEPT).slice(0, 1)
    reason = pa.array(["copied"]).dictionary_encode().cast(pa.dictionary(pa.int8(), pa.string()))

    def add(table: pa.Table) -> pa.Table:
        other = row.append_column("reason", reason).append_column("message", pa.nulls(1, "string"))
        return pa.concat_tables([table, other])

    _rewrite(out, _REJECTED, add)
    assert "are there twice" in _only(out)


def test_rows_that_were_lost(out: Path) -> None:
    rows = sum(pq.read_metadata(out / file).num_rows for file in (_KEPT, _REJECTED))
    _rewrite(out, _KEPT, lambda table: table.slice(1))
    assert _findings(out) == [
        f"manifest.json: final: its shards had {rows} rows, its parts have {rows - 1}",
        "manifest.json: final: the counts recorded are not those of the rows",
        "summary.json: its counts are not those of the rows",
    ]


def test_documents_that_were_lost(out: Path) -> None:
    for file in (_KEPT, _REJECTED):
        _rewrite(out, file, lambda table: table.filter(pc.not_equal(table["doc_id"], "doc-7")))
    assert "manifest.json: final: of 30 documents, 29 have rows and 0 failed" in _findings(out)


@pytest.mark.parametrize("damage", ["", "[", "{}", '{"rounds": []}', '{"rounds": 3}', "[" * 9999])
def test_a_summary_of_something_else(out: Path, damage: str) -> None:
    (out / "summary.json").write_text(damage)
    assert _only(out).startswith("summary.json: cannot be read")


def test_a_summary_with_other_counts(out: Path) -> None:
    text = (out / "summary.json").read_text()
    (out / "summary.json").write_text(text.replace('"documents": 30', '"documents": 31', 1))
    assert _only(out) == "summary.json: its counts are not those of the rows"


def test_a_damaged_manifest_and_other_settings(out: Path) -> None:
    text = (out / "manifest.json").read_text()
    (out / "manifest.json").write_text(text.replace('"rows": ', '"rows": 1', 1))
    assert "the manifest is damaged" in _only(out)
    (out / "manifest.json").write_text(text)
    config = (out / "config.yaml").read_text()
    (out / "config.yaml").write_text(config.replace("seed: 0", "seed: 1"))
    assert "these are not the settings of the manifest" in _only(out)


def test_a_run_that_has_not_ended(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(out)
    write_documents(out.parent / "corpus.arrow", 30)
    monkeypatch.setattr("ssra_engine.steps.end_section", _stop_at_the_final_section)
    with pytest.raises(KeyboardInterrupt):
        run_here(out.parent, 30, 10)
    verdict = verify_output(out)
    assert (verdict.findings, verdict.finished) == ([], False)
    assert verdict.files == 3 + 3
    staged = out / "shards/final/000001.arrow"
    staged.write_bytes(staged.read_bytes()[:-1])
    assert _only(out).startswith("shards/final/000001.arrow: has")
    (out / "journal").unlink()
    assert "records are missing" in _only(out)


def _stop_at_the_final_section(section: object, *rest: object) -> None:
    from ssra_engine.ending import end_section

    if section.name == "final":  # type: ignore[attr-defined]
        raise KeyboardInterrupt
    end_section(section, *rest)  # type: ignore[arg-type]


def test_the_command(sound: Path, out: Path) -> None:
    def call(*arguments: str | Path) -> tuple[int, str]:
        result = CliRunner().invoke(main, ["verify", *map(str, arguments)])
        return result.exit_code, result.output

    code, said = call(sound)
    assert (code, "all is well" in said) == (0, True)
    (out / _KEPT).unlink()
    code, said = call(out)
    assert code == 4
    assert f"{_KEPT}: is missing\n" in said
    code, said = call(out, "--json")
    report = json.loads(said)
    assert code == 4
    assert report["findings"] == [{"file": _KEPT, "problem": "is missing"}]
    assert (report["sound"], report["finished"]) == (False, True)
    assert call(out / "synthetic")[0] == 2


def test_names_that_lead_out_of_the_folder(out: Path) -> None:
    manifest = read_manifest(out)
    assert manifest is not None
    for name in ("../stolen", "/etc/passwd", "a/../../b", "", "a\0b"):
        record = {"kind": "model", "round": 1, "files": {name: {"bytes": 1, "xxh3": "0"}}}
        text = manifest_text(Manifest("finished", manifest.fingerprint, [record]))
        (out / "manifest.json").write_text(text)
        assert "the manifest is damaged" in _only(out)
