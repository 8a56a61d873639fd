from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ssra_engine import durable, section
from ssra_engine.errors import StoreError
from ssra_engine.schema import REJECTED, STAGED, SYNTHETIC
from ssra_engine.section import Section
from ssra_engine.store import Store, open_store

_FINGERPRINT = {"code": "1", "inputs": "abc", "config": {"seed": 0, "synthesize": {"per_grade": 1}}}


def _open(folder: Path, **changes: Any) -> Store:
    return open_store(folder, _FINGERPRINT | changes, "seed: 0\n")


def _rows(count: int) -> pa.Table:
    rows = [{"query": f"q{n}", "doc_id": "d", "target": 1, "key": n} for n in range(count)]
    return pa.Table.from_pylist(rows, schema=STAGED)


def _section(store: Store, shards: int = 3, file_format: Any = "parquet") -> Section:
    return Section(
        store,
        "final",
        kept="synthetic",
        rejected="rejected",
        file_format=file_format,
        shard_count=shards,
    )


def test_records_outlive_the_process(tmp_path: Path) -> None:
    with _open(tmp_path / "a" / "out") as store:
        store.record("shard", index=1)
        store.record("shard", index=2)
    with _open(tmp_path / "a" / "out") as store:
        assert store.find("shard", index=1) == {"kind": "shard", "index": 1}
        assert store.find("shard", index=3) is None
        assert (store.folder / "config.yaml").read_text() == "seed: 0\n"


def test_a_second_run_on_the_folder_is_refused_by_name(tmp_path: Path) -> None:
    with _open(tmp_path), pytest.raises(StoreError, match=f"process {os.getpid()} on .* working"):
        _open(tmp_path)
    with _open(tmp_path):
        pass


def test_another_run_is_refused_with_what_differs(tmp_path: Path) -> None:
    with _open(tmp_path) as store:
        store.record("shard", index=1)
    config = {"seed": 7, "synthesize": {"per_grade": 2}}
    with pytest.raises(StoreError) as raised:
        _open(tmp_path, inputs="xyz", config=config)
    message = str(raised.value)
    assert "inputs: abc -> xyz; config seed: 0 -> 7; config synthesize.per_grade: 1 -> 2" in message
    assert "Give another --output" in message
    with _open(tmp_path) as store:
        assert len(store.records) == 1


def test_a_folder_where_nothing_was_finished_belongs_to_nobody(tmp_path: Path) -> None:
    with _open(tmp_path) as store:
        store.put_model("rounds/1/query", lambda folder: (folder / "w").touch())
    with _open(tmp_path, inputs="xyz"):
        assert not (tmp_path / "rounds").exists()
        assert (
            json.loads((tmp_path / "manifest.json").read_text())["fingerprint"]["inputs"] == "xyz"
        )


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(StoreError, match=r"not the output of a run \(it holds 'holiday.jpg'\)"):
        _open(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", "{", '"x"'])
def test_a_manifest_of_something_else_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(StoreError, match="not the manifest of a run"):
        _open(tmp_path)


def test_a_manifest_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"version": 99}')
    with pytest.raises(StoreError, match="another version"):
        _open(tmp_path)


def test_an_output_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be written"):
        _open(tmp_path / "file")
    with pytest.raises(StoreError, match="cannot be written"):
        _open(tmp_path / "file" / "below")


def test_what_a_killed_process_left_is_cleared(tmp_path: Path) -> None:
    with _open(tmp_path) as store:
        store.record("shard", index=1)
    (tmp_path / "rounds" / "1" / "query.tmp").mkdir(parents=True)
    (tmp_path / "rounds" / "1" / "query.tmp" / "weights").touch()
    (tmp_path / "summary.json.tmp").touch()
    with _open(tmp_path):
        assert not list(tmp_path.rglob("*.tmp"))


def test_a_full_disk_leaves_nothing_and_the_run_can_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with _open(tmp_path) as store:
        part = _section(store)
        part.commit(0, _rows(3), {})
        with monkeypatch.context() as patch:
            patch.setattr(durable.os, "fsync", full)
            with pytest.raises(StoreError, match=r"000001\.arrow: cannot be written: No space"):
                part.commit(1, _rows(3), {})
        assert [path.name for path in (tmp_path / "shards" / "final").iterdir()] == ["000000.arrow"]
    with _open(tmp_path) as store:
        assert list(_section(store).shards) == [0]


def test_a_model_that_fails_to_train_is_not_there(tmp_path: Path) -> None:
    def train(folder: Path) -> None:
        (folder / "weights").write_text("half")
        raise ValueError("loss is not a number")

    with _open(tmp_path) as store:
        with pytest.raises(ValueError, match="loss"):
            store.put_model("rounds/1/query", train)
        assert not (tmp_path / "rounds" / "1" / "query").exists()
        store.put_model("rounds/1/query", lambda folder: (folder / "weights").write_text("all"))
        assert (tmp_path / "rounds" / "1" / "query" / "weights").read_text() == "all"


@pytest.mark.parametrize("file_format", ["parquet", "arrow"])
def test_staged_shards_and_parts_come_back(tmp_path: Path, file_format: Any) -> None:
    with _open(tmp_path) as store:
        part = _section(store, 1, file_format)
        part.commit(0, _rows(5), {"documents": 1})
        assert part.read(0).equals(_rows(5))
        assert part.read(0, ["key", "reason"]).column_names == ["reason", "key"]
        assert part.parts() == [[0]]
        assert not part.part_written(0)
        part.write_part(0, _rows(5).select(SYNTHETIC.names), _rows(2).select(REJECTED.names))
        assert part.part_written(0)
        assert part.read_kept().equals(_rows(5).select(SYNTHETIC.names))
        part.end(failed=0)
        assert part.ended is not None
        assert not (tmp_path / "shards" / "final").exists()
        manifest = json.loads((tmp_path / "manifest.json").read_text())
        assert [record["kind"] for record in manifest["records"]] == ["shard", "part", "section"]


def test_parts_are_runs_of_shards_with_enough_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(section, "_PART_ROWS", 5)
    with _open(tmp_path) as store:
        part = _section(store, 5)
        for index, rows in enumerate([2, 3, 9, 0, 1]):
            part.commit(index, _rows(rows), {})
        assert part.parts() == [[0, 1], [2], [3, 4]]


def test_lost_and_damaged_shards(tmp_path: Path) -> None:
    with _open(tmp_path) as store:
        part = _section(store)
        for index in range(3):
            part.commit(index, _rows(index + 1), {})
        staged = tmp_path / "shards" / "final"
        damaged = bytearray((staged / "000001.arrow").read_bytes())
        damaged[40] ^= 1
        (staged / "000001.arrow").write_bytes(damaged)
        with pytest.raises(StoreError, match=r"000001\.arrow: the file is damaged\. Remove it"):
            part.read(1)
        (staged / "000000.arrow").unlink()
        with pytest.raises(StoreError, match=r"000000\.arrow: cannot be read"):
            part.read(0)
    with _open(tmp_path) as store:
        assert list(_section(store).shards) == [1, 2]


def test_a_finished_run_whose_output_was_removed_is_no_success(tmp_path: Path) -> None:
    with _open(tmp_path) as store:
        part = _section(store, 1)
        part.commit(0, _rows(1), {})
        part.write_part(0, _rows(1).select(SYNTHETIC.names), _rows(0).select(REJECTED.names))
        part.end()
        store.finish({"documents": 1})
        assert not (tmp_path / "journal").exists()
    with _open(tmp_path) as store:
        assert store.finished
        assert store.summary() == {"documents": 1}
    (tmp_path / "synthetic" / "part-00000.parquet").unlink()
    with _open(tmp_path) as store, pytest.raises(StoreError, match="missing or was changed"):
        store.summary()
