from __future__ import annotations

from pathlib import Path

import pytest

from ssra_engine.errors import StoreError
from ssra_engine.journal import Journal


def _filled(path: Path) -> bytes:
    journal = Journal(path)
    for number in range(3):
        journal.append({"kind": "shard", "index": number, "text": "小\u2028\n"})
    journal.close()
    return path.read_bytes()


def test_records_come_back(tmp_path: Path) -> None:
    _filled(tmp_path / "journal")
    journal = Journal(tmp_path / "journal")
    assert [record["index"] for record in journal.records] == [0, 1, 2]
    journal.close()


def test_a_torn_last_line_is_cut_off_wherever_it_was_torn(tmp_path: Path) -> None:
    whole = _filled(tmp_path / "journal")
    third = whole[:-1].rindex(b"\n") + 1
    for size in range(third, len(whole)):
        (tmp_path / "journal").write_bytes(whole[:size])
        journal = Journal(tmp_path / "journal")
        assert len(journal.records) == 2
        journal.append({"kind": "again"})
        journal.close()
        assert (tmp_path / "journal").read_bytes().startswith(whole[:third])
        again = Journal(tmp_path / "journal")
        assert [record["kind"] for record in again.records] == ["shard", "shard", "again"]
        again.close()


def test_a_last_line_of_rubbish_is_cut_off(tmp_path: Path) -> None:
    whole = _filled(tmp_path / "journal")
    (tmp_path / "journal").write_bytes(whole + b"\0" * 80 + b"\n")
    journal = Journal(tmp_path / "journal")
    assert len(journal.records) == 3
    journal.close()


def test_damage_before_the_last_line_is_an_error(tmp_path: Path) -> None:
    whole = _filled(tmp_path / "journal")
    (tmp_path / "journal").write_bytes(whole.replace(b'"index":1', b'"index":7'))
    with pytest.raises(StoreError, match="line 2 is damaged"):
        Journal(tmp_path / "journal")
