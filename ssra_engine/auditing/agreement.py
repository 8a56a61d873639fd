"""What an audit shows: how often people agree with the target, the score model and each other."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

from scipy.stats import binomtest
from sklearn.metrics import cohen_kappa_score

from ssra_engine.audit import NO_GRADE
from ssra_engine.auditing.book import Book

__all__ = ["Graded", "agreement", "between_annotators", "kappa", "with_labels"]


class Graded(NamedTuple):
    """A pair with the label that stands.

    Attributes:
        target: grade that was asked for.
        predicted: grade that the score model gives.
        kept: whether the run kept the pair.
        label: a grade, or `audit.NO_GRADE`.
    """

    target: int
    predicted: int
    kept: bool
    label: str


def agreement(book: Book) -> dict[str, Any]:
    """Figures of the labels that stand, plain JSON values.

    Returns:
        pairs (drawn), open (those whose disagreement is undecided), disputed; the figures of
        `with_labels`; annotators: how many pairs each has labelled; kappa: see
        `between_annotators`.
    """
    graded = []
    for key, label in book.standing().items():
        pair = book.pairs[key]
        graded.append(Graded(pair.target, pair.predicted, pair.kept, label))
    disputed = book.disagreements()
    labels_of = {name: desk.labels for name, desk in book.desks.items()}
    return {
        "pairs": len(book.pairs),
        "open": sum(key not in book.adjudicated for key in disputed),
        "disputed": len(disputed),
        **with_labels(graded, book.audit.grades),
        "annotators": {name: len(labels) for name, labels in sorted(labels_of.items())},
        "kappa": between_annotators(labels_of, list(book.pairs)),
    }


def with_labels(graded: Sequence[Graded], grades: Sequence[int]) -> dict[str, Any]:
    """How often the target and the score model's grade are the label.

    Returns:
        labelled (pairs) and no_grade (of those); targets: for each target grade the `_share` of
        pairs whose label is the target, of all pairs, the kept and the rejected ones, and of pairs
        whose label is the score model's grade; labels (the columns of the two matrices), by_target
        and by_predicted: how many pairs of each target, and of each grade of the score model, have
        each label.
    """
    labels = [*map(str, grades), NO_GRADE]
    return {
        "labelled": len(graded),
        "no_grade": sum(one.label == NO_GRADE for one in graded),
        "targets": _targets(graded),
        "labels": labels,
        "by_target": _matrix([(one.target, one.label) for one in graded], labels),
        "by_predicted": _matrix([(one.predicted, one.label) for one in graded], labels),
    }


def between_annotators(
    labels_of: Mapping[str, Mapping[str, str]], keys: Collection[str]
) -> list[dict[str, Any]]:
    """Agreement of each two annotators.

    Args:
        labels_of: labels by pair, by name.
        keys: the pairs.

    Returns:
        annotators (two names), pairs (that both have labelled) and what `kappa` tells.
    """
    found = []
    for first, second in combinations(sorted(labels_of), 2):
        mine, theirs = labels_of[first], labels_of[second]
        shared = [key for key in keys if key in mine and key in theirs]
        figures = kappa([mine[key] for key in shared], [theirs[key] for key in shared])
        found.append({"annotators": [first, second], "pairs": len(shared), **figures})
    return found


def kappa(a: list[str], b: list[str]) -> dict[str, float | None]:
    """Agreement of two annotators beyond chance.

    Args:
        a: labels of one, grades or `audit.NO_GRADE`.
        b: labels of the other for the same pairs.

    Returns:
        agree: share of equal labels; kappa: Cohen's, every label a category; weighted: Cohen's
        with quadratic weights, of the pairs to which both gave a grade. None where it is not
        defined: without pairs, or where both gave one and the same label throughout.
    """
    both = [(int(x), int(y)) for x, y in zip(a, b, strict=True) if NO_GRADE not in (x, y)]
    return {
        "agree": sum(x == y for x, y in zip(a, b, strict=True)) / len(a) if a else None,
        "kappa": None if len({*a, *b}) < 2 else float(cohen_kappa_score(a, b)),
        "weighted": (
            None
            if len({grade for pair in both for grade in pair}) < 2
            else float(cohen_kappa_score(*zip(*both, strict=True), weights="quadratic"))
        ),
    }


def _targets(graded: Sequence[Graded]) -> list[dict[str, Any]]:
    rows = []
    for target in sorted({one.target for one in graded}):
        mine = [one for one in graded if one.target == target]
        rows.append(
            {
                "target": target,
                "all": _share([one.label == str(target) for one in mine]),
                "kept": _share([one.label == str(target) for one in mine if one.kept]),
                "rejected": _share([one.label == str(target) for one in mine if not one.kept]),
                "predicted": _share([one.label == str(one.predicted) for one in mine]),
            }
        )
    return rows


def _share(right: list[bool]) -> dict[str, Any]:
    """Right of so many, with Wilson's 95 % interval (null without pairs)."""
    if not right:
        return {"right": 0, "of": 0, "low": None, "high": None}
    bounds = binomtest(sum(right), len(right)).proportion_ci(0.95, method="wilson")
    return {
        "right": sum(right),
        "of": len(right),
        "low": float(bounds.low),
        "high": float(bounds.high),
    }


def _matrix(pairs: list[tuple[int, str]], labels: list[str]) -> dict[str, list[int]]:
    return {
        str(row): [pairs.count((row, label)) for label in labels]
        for row in sorted({row for row, _ in pairs})
    }
