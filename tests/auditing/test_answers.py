from __future__ import annotations

import errno
import os
from datetime import datetime, timezone
from pathlib import Path

import pyarrow as pa
import pytest

from ssra_engine.auditing.answers import ANSWER, Answer, Answers
from ssra_engine.errors import StoreError
from ssra_engine.schema import ANSWERS


def _answer(number: int) -> Answer:
    time = datetime(2026, 1, 1, 0, 0, number, tzinfo=timezone.utc)
    return Answer(ANSWER, f"key {number}", "狐狸", "d1", "2", "Anna", time)


def _write(path: Path, number: int) -> None:
    answers = Answers(path, "audit")
    for row in range(number):
        answers.append(_answer(row))
    answers.close()


def test_answers_come_back_and_any_arrow_reader_sees_them_while_the_file_grows(
    tmp_path: Path,
) -> None:
    path = tmp_path / "new" / "answers.arrows"
    answers = Answers(path, "audit")
    for row in range(3):
        answers.append(_answer(row))
        table = pa.ipc.open_stream(path.read_bytes()).read_all()
        assert table.schema.equals(ANSWERS)
        assert len(table) == row + 1
    answers.close()
    again = Answers(path, "audit")
    assert again.rows == [_answer(row) for row in range(3)]
    again.close()


@pytest.mark.parametrize("damaged", [1, 2])
def test_damage_before_whole_answers_is_refused_and_nothing_is_cut_off(
    tmp_path: Path, damaged: int
) -> None:
    path = tmp_path / "answers.arrows"
    _write(path, 0)
    ends = [path.stat().st_size]
    answers = Answers(path, "audit")
    for row in range(4):
        answers.append(_answer(row))
        ends.append(path.stat().st_size)
    answers.close()
    data = bytearray(path.read_bytes())
    data[ends[damaged] + 8 : ends[damaged] + 40] = bytes(32)
    path.write_bytes(data)
    with pytest.raises(StoreError, match=f"damaged after {damaged} answers"):
        Answers(path, "audit")
    assert path.read_bytes() == data


def test_a_file_cut_anywhere_keeps_the_answers_before_the_cut(tmp_path: Path) -> None:
    path = tmp_path / "answers.arrows"
    _write(path, 0)
    ends = [path.stat().st_size]
    answers = Answers(path, "audit")
    for row in range(3):
        answers.append(_answer(row))
        ends.append(path.stat().st_size)
    answers.close()
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        answers = Answers(path, "audit")
        sound = sum(end <= cut for end in ends[1:])
        assert answers.rows == [_answer(row) for row in range(sound)], cut
        answers.append(_answer(9))
        answers.close()
        assert len(pa.ipc.open_stream(path.read_bytes()).read_all()) == sound + 1, cut


def test_an_answer_that_cannot_be_written_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "answers.arrows"
    _write(path, 1)
    before = path.read_bytes()
    answers = Answers(path, "audit")
    with monkeypatch.context() as patch:
        patch.setattr("ssra_engine.auditing.answers.os.fsync", full)
        with pytest.raises(StoreError, match=r"cannot be written: No space left"):
            answers.append(_answer(5))
    assert path.read_bytes() == before
    assert answers.rows == [_answer(0)]
    answers.append(_answer(1))
    answers.close()
    assert pa.ipc.open_stream(path.read_bytes()).read_all()["sample_key"].to_pylist() == [
        "key 0",
        "key 1",
    ]


def test_another_process_is_kept_out(tmp_path: Path) -> None:
    path = tmp_path / "answers.arrows"
    answers = Answers(path, "audit")
    with pytest.raises(StoreError, match="another audit page works on it"):
        Answers(path, "audit")
    answers.close()
    Answers(path, "audit").close()


def test_another_audit_and_other_files_are_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "answers.arrows"
    _write(path, 2)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"answers of another audit \(audit\), this one is other"):
        Answers(path, "other")
    assert path.read_bytes() == before
    path.write_text("my notes")
    with pytest.raises(StoreError, match="not a file of answers"):
        Answers(path, "audit")
    assert path.read_text() == "my notes"
