from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from audited_run import open_book, pairs_of
from sklearn.metrics import cohen_kappa_score

from ssra_engine.audit import NO_GRADE
from ssra_engine.auditing.agreement import agreement, kappa
from ssra_engine.auditing.book import Book


def _label(book: Book, annotator: str, labels: list[str]) -> None:
    for pair, label in zip(book.audit.pairs, labels, strict=False):
        book.answer(annotator, pair.key, label)


def test_shares_count_what_they_say(tmp_path: Path) -> None:
    """Counted again from the pairs, one by one."""
    with open_book(tmp_path, pairs_of(24)) as book:
        rng = np.random.default_rng(0)
        _label(book, "a", [str(x) if x < 4 else NO_GRADE for x in rng.integers(0, 5, 24)])
        found = agreement(book)
        labels = book.standing()
        assert (found["pairs"], found["labelled"], found["open"]) == (24, 24, 0)
        assert found["no_grade"] == sum(label == NO_GRADE for label in labels.values())
        for row in found["targets"]:
            mine = [pair for pair in book.audit.pairs if pair.target == row["target"]]
            right = [pair for pair in mine if labels[pair.key] == str(pair.target)]
            assert (row["all"]["right"], row["all"]["of"]) == (len(right), 6)
            assert row["kept"]["of"] == sum(pair.kept for pair in mine)
            assert row["kept"]["right"] == sum(pair.kept for pair in right)
            assert row["rejected"]["right"] == sum(not pair.kept for pair in right)
            predicted = sum(labels[pair.key] == str(pair.predicted) for pair in mine)
            assert row["predicted"]["right"] == predicted
        total = np.array(list(found["by_target"].values()))
        assert total.sum() == 24
        diagonal = sum(found["by_target"][str(g)][g] for g in range(4))
        assert diagonal == sum(row["all"]["right"] for row in found["targets"])
        diagonal = sum(found["by_predicted"][str(g)][g] for g in range(4))
        assert diagonal == sum(row["predicted"]["right"] for row in found["targets"])


def test_the_interval_is_wilsons(tmp_path: Path) -> None:
    with open_book(tmp_path, pairs_of(200, (0, 1))) as book:
        _label(book, "a", ["1"] * 200)
        row = agreement(book)["targets"][1]["all"]
        assert (row["right"], row["of"]) == (100, 100)
        # z^2 / (n + z^2) below 1, by Wilson's formula at p = 1
        z = 1.959963985
        assert row["low"] == pytest.approx(1 - z * z / (100 + z * z), abs=1e-6)
        assert row["high"] == pytest.approx(1)


def test_kappa_by_hand() -> None:
    # 20 of 50 yes-yes, 15 no-no, 5 and 10 otherwise: observed 0.7, expected 0.5
    a = ["1"] * 25 + ["0"] * 25
    b = ["1"] * 20 + ["0"] * 5 + ["1"] * 10 + ["0"] * 15
    found = kappa(a, b)
    assert found["agree"] == pytest.approx(0.7)
    assert found["kappa"] == pytest.approx(0.4)
    assert found["weighted"] == pytest.approx(0.4)


def test_no_grade_is_a_category_but_has_no_distance() -> None:
    a, b = ["0", "3", "3", NO_GRADE, "1"], ["0", "2", "3", "1", NO_GRADE]
    found = kappa(a, b)
    assert found["kappa"] == pytest.approx(cohen_kappa_score(a, b))
    weighted = cohen_kappa_score([0, 3, 3], [0, 2, 3], weights="quadratic")
    assert found["weighted"] == pytest.approx(weighted)


@pytest.mark.parametrize("labels", [[], ["2", "2"], [NO_GRADE, NO_GRADE]])
def test_kappa_where_it_is_not_defined(labels: list[str]) -> None:
    found = kappa(labels, labels)
    assert found["kappa"] is found["weighted"] is None


def test_annotators_are_compared_on_what_both_labelled(book: Book) -> None:
    _label(book, "b", list("0123"))
    _label(book, "a", list("01"))
    found = agreement(book)
    assert found["annotators"] == {"a": 2, "b": 4}
    (row,) = found["kappa"]
    assert (row["annotators"], row["pairs"], row["agree"]) == (["a", "b"], 2, 1.0)
    assert found["labelled"] == 4
