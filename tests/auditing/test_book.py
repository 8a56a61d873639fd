from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from audited_run import open_book, pairs_of
from hypothesis import given, settings
from hypothesis import strategies as st

from ssra_engine.audit import NO_GRADE
from ssra_engine.auditing.answers import ANSWER, SKIP, UNDO, Answer
from ssra_engine.auditing.book import Book, Desk, NotNextError
from ssra_engine.judgments import read_judgments


def _key(book: Book, annotator: str) -> str:
    pair = book.next_of(annotator)
    assert pair is not None
    return pair.key


def _label(book: Book, annotator: str, *labels: str | None) -> None:
    for label in labels:
        book.answer(annotator, _key(book, annotator), label)


def test_skipped_pairs_come_again_at_the_end(book: Book) -> None:
    keys = list(book.pairs)
    _label(book, "a", None, "1", None, *"22222")
    assert _key(book, "a") == keys[0]
    _label(book, "a", None)
    assert _key(book, "a") == keys[2]
    _label(book, "a", "3", NO_GRADE)
    assert book.done("a")
    assert book.next_of("a") is None
    assert book.desks["a"].labels[keys[0]] == NO_GRADE


def test_undo_goes_back_answer_by_answer(book: Book) -> None:
    keys = list(book.pairs)
    _label(book, "a", "1", None, "3")
    for expected in (keys[2], keys[1], keys[0]):
        book.undo("a")
        assert _key(book, "a") == expected
    assert not book.desks["a"].labels
    book.undo("a")
    _label(book, "a", "0", "0", "0")
    assert list(book.desks["a"].labels) == keys[:3]
    assert _key(book, "a") == keys[3]


def test_a_pair_that_is_not_next_is_refused(book: Book) -> None:
    first = _key(book, "a")
    _label(book, "a", "1")
    with pytest.raises(NotNextError):
        book.answer("a", first, "2")
    with pytest.raises(NotNextError):
        book.answer("a", "nothing", "2")
    assert book.desks["a"].labels == {first: "1"}


_STEPS = st.lists(st.sampled_from([ANSWER, SKIP, UNDO]), max_size=40)


@settings(max_examples=60, deadline=None)
@given(steps=_STEPS)
def test_whatever_the_order_every_pair_is_labelled_once_and_undo_restores(
    steps: Sequence[str],
) -> None:
    keys = [f"{number}" for number in range(4)]
    desk, before = Desk(), [{}]
    for kind in steps:
        key = desk.history[-1] if kind == UNDO and desk.history else desk.next(keys)
        if key is None or (kind == UNDO and not desk.history):
            continue
        desk.take(Answer(kind, key, "", "", "1" if kind == ANSWER else None, "a", None))
        if kind == UNDO:
            before.pop()
            assert desk.labels == before[-1]
            assert desk.next(keys) == key
        else:
            before.append(dict(desk.labels))
    for _ in range(12):
        key = desk.next(keys)
        if key is not None:
            desk.take(Answer(ANSWER, key, "", "", "1", "a", None))
    assert sorted(desk.labels) == keys
    assert not desk.skipped
    assert not desk.returned


def test_labels_stand_where_people_agree_or_somebody_decided(book: Book) -> None:
    keys = list(book.pairs)
    _label(book, "a", "1", "2", NO_GRADE)
    _label(book, "b", "1", "3", "0")
    assert book.standing() == {keys[0]: "1"}
    assert book.disagreements() == [keys[1], keys[2]]
    with pytest.raises(NotNextError):
        book.adjudicate("b", keys[0], "3")
    book.adjudicate("b", keys[1], "2")
    book.adjudicate("b", keys[2], "1")
    book.adjudicate("b", keys[2], NO_GRADE)
    assert book.standing() == {keys[0]: "1", keys[1]: "2", keys[2]: NO_GRADE}
    book.undo("b")
    _label(book, "b", NO_GRADE)
    assert book.disagreements() == [keys[1]]


def test_everything_is_there_again_and_feeds_build(book: Book) -> None:
    folder, audit = book.folder, book.audit
    _label(book, "a", "1", "2", NO_GRADE, None, "0")
    _label(book, "b", "1", "3")
    book.adjudicate("b", list(book.pairs)[1], "3")
    before = (book.desks, book.adjudicated, book.standing())
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    book.__exit__(None, None, None)
    for name in ("audit.parquet", "judgments.parquet"):
        (folder / name).unlink()
    with open_book(folder, audit) as again:
        assert (again.desks, again.adjudicated, again.standing()) == before
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
    judged = pq.read_table(folder / "judgments.parquet").to_pylist()
    assert [(row["doc_id"], row["grade"]) for row in judged] == [("d0", 1), ("d1", 3), ("d4", 0)]
    assert [row["annotators"] for row in judged] == [["a", "b"], ["a", "b"], ["a"]]
    assert [row["adjudicated"] for row in judged] == [False, True, False]
    assert [row["time"].second for row in judged] == [5, 7, 4]
    read = read_judgments([folder / "judgments.parquet"], audit.grades)
    assert read.column("grade").to_pylist() == [1, 3, 0]


def test_another_draw_in_the_same_folder(book: Book) -> None:
    book.__exit__(None, None, None)
    with pytest.raises(Exception, match="answers of another audit"):
        open_book(book.folder, pairs_of(9))


def test_a_full_disk_does_not_count_the_answer(
    book: Book, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(_: int) -> None:
        raise OSError("full")

    first = _key(book, "a")
    with monkeypatch.context() as patch:
        patch.setattr("ssra_engine.auditing.answers.os.fsync", full)
        with pytest.raises(Exception, match="cannot be written"):
            _label(book, "a", "1")
    assert _key(book, "a") == first
    _label(book, "a", "1")
    assert book.standing() == {first: "1"}
