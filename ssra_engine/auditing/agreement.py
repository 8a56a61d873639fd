"""What an audit shows: how often people agree with the target, the score model and each other."""

from __future__ import annotations

from itertools import combinations
from typing import Any

from scipy.stats import binomtest
from sklearn.metrics import cohen_kappa_score

from ssra_engine.audit import NO_GRADE
from ssra_engine.auditing.book import Book
from ssra_engine.auditing.pairs import AuditPair

__all__ = ["agreement", "kappa"]

_Labelled = list[tuple[AuditPair, str]]


def agreement(book: Book) -> dict[str, Any]:
    """Figures of the labels that stand, plain JSON values.

    Returns:
        pairs (drawn), labelled (with a label that stands), no_grade (of those), open (pairs whose
        disagreement is undecided); targets: for each target grade the `_share` of pairs whose
        label is the target, of all pairs, the kept and the rejected ones, and of pairs whose label
        is the score model's grade; labels (the columns of the two matrices), by_target and
        by_predicted: how many pairs of each target, and of each grade of the score model, have each
        label; annotators: how many pairs each has labelled; kappa: see `kappa`.
    """
    standing = book.standing()
    labelled = [(book.pairs[key], label) for key, label in standing.items()]
    labels = [*map(str, book.audit.grades), NO_GRADE]
    disputed = book.disagreements()
    return {
        "pairs": len(book.pairs),
        "labelled": len(labelled),
        "no_grade": sum(label == NO_GRADE for _, label in labelled),
        "open": sum(key not in book.adjudicated for key in disputed),
        "disputed": len(disputed),
        "targets": _targets(labelled),
        "labels": labels,
        "by_target": _matrix([(pair.target, label) for pair, label in labelled], labels),
        "by_predicted": _matrix([(pair.predicted, label) for pair, label in labelled], labels),
        "annotators": {name: len(desk.labels) for name, desk in sorted(book.desks.items())},
        "kappa": _kappas(book),
    }


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


def _targets(labelled: _Labelled) -> list[dict[str, Any]]:
    rows = []
    for target in sorted({pair.target for pair, _ in labelled}):
        mine = [(pair, label) for pair, label in labelled if pair.target == target]
        rows.append(
            {
                "target": target,
                "all": _share([label == str(target) for _, label in mine]),
                "kept": _share([label == str(target) for pair, label in mine if pair.kept]),
                "rejected": _share([label == str(target) for pair, label in mine if not pair.kept]),
                "predicted": _share([label == str(pair.predicted) for pair, label in mine]),
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


def _kappas(book: Book) -> list[dict[str, Any]]:
    found = []
    for first, second in combinations(sorted(book.desks), 2):
        mine, theirs = book.desks[first].labels, book.desks[second].labels
        shared = [key for key in book.pairs if key in mine and key in theirs]
        figures = kappa([mine[key] for key in shared], [theirs[key] for key in shared])
        found.append({"annotators": [first, second], "pairs": len(shared), **figures})
    return found
