from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, hypergeom

from ssra_engine.stages import accept
from ssra_engine.stages.accept import (
    Choice,
    choose,
    compete,
    estimate,
    fewest_right,
    p_values,
    surest,
)

_RISK = 0.05
_REDRAWS = 500
# Three standard deviations above a share of `_RISK`.
_MOST_BROKEN = _RISK + 3 * math.sqrt(_RISK * (1 - _RISK) / _REDRAWS)


def _choose(confidence: Any, audited: Any, right: Any, least: float = 0.9) -> Choice:
    return choose(
        np.asarray(confidence, np.float32),
        np.asarray(audited, bool),
        np.asarray(audited, bool) & np.asarray(right, bool),
        min_precision=least,
        risk=_RISK,
    )


def _p_of(size: int, audited: int, right: int, least: float) -> float:
    return float(p_values(*(np.array([x]) for x in (size, audited, right)), least)[0])


# A world in which no threshold is good enough, and none far from it: wrong promises are likeliest.
_PAIRS = 10_000
_NOWHERE = np.arange(_PAIRS) % 10 != 0
_NOWHERE[5] = False
_CONFIDENCE = np.linspace(1, 0.1, _PAIRS, dtype=np.float32)


def _broken_share(per_audit: int) -> tuple[float, float]:
    """Redraws of the audit that lead to a promise, and to one or a reachable precision too high."""
    random = np.random.default_rng(3)
    promised = told_wrong = 0
    for _ in range(_REDRAWS):
        audited = np.zeros(_PAIRS, bool)
        audited[random.choice(_PAIRS, per_audit, replace=False)] = True
        choice = _choose(_CONFIDENCE, audited, _NOWHERE)
        promised += choice.threshold is not None
        if choice.reachable is not None:
            told_wrong += choice.reachable > _NOWHERE[choice.reachable_at <= _CONFIDENCE].mean()
    return promised / _REDRAWS, (promised + told_wrong) / _REDRAWS


def test_the_planted_world_is_bad_at_every_threshold() -> None:
    share = np.cumsum(_NOWHERE) / np.arange(1, _PAIRS + 1)
    assert share.max() < 0.9
    assert share[100:].min() > 0.88


@pytest.mark.parametrize("per_audit", [120, 300, 900])
def test_the_promise_holds_as_often_as_it_says(per_audit: int) -> None:
    promised, told_wrong = _broken_share(per_audit)
    assert promised <= _MOST_BROKEN
    assert told_wrong <= _MOST_BROKEN


def _plain_share(size: Any, audited: Any, right: Any, least: float) -> np.ndarray:
    return np.where(right >= least * audited, 0.0, 1.0)


def _each_at_full_risk(p: np.ndarray, brought: np.ndarray) -> np.ndarray:
    return p <= brought.sum()


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("p_values", _plain_share),
        ("_fallback", _each_at_full_risk),
    ],
)
def test_a_broken_bound_would_be_noticed(
    monkeypatch: pytest.MonkeyPatch, name: str, broken: Callable[..., Any]
) -> None:
    monkeypatch.setattr(accept, name, broken)
    assert _broken_share(900)[0] > _MOST_BROKEN


def test_risk_is_handed_on_by_success_and_lost_by_failure() -> None:
    def out(*p: float) -> list[bool]:
        brought = np.array([0.0, 0.04, 0.0, 0.01, 0.0])
        return accept._fallback(np.array(p), brought).tolist()

    assert out(0, 0.03, 0.04, 0.05, 0.05) == [False, True, True, True, True]
    assert out(0, 0.03, 0.05, 0.02, 0.0) == [False, True, False, False, False]
    assert out(0, 0.05, 0.0, 0.01, 0.01) == [False, False, False, True, True]


def _worst_risk(size: int, audited: int, least: float, p: Callable[..., float]) -> float:
    """Highest probability, over all numbers of right samples, to pass what breaks the promise."""
    right = np.arange(audited + 1)
    passes = np.array([p(size, audited, k, least) <= _RISK for k in right.tolist()])
    worst = 0.0
    for truth in range(size + 1):
        broken = (truth - right < least * (size - audited) - 1e-9) | (truth < least * size - 1e-9)
        chance = hypergeom.pmf(right, size, truth, audited)
        worst = max(worst, float(chance[passes & broken].sum()))
    return worst


@pytest.mark.parametrize(("size", "audited"), [(60, 40), (150, 100), (400, 40), (300, 299)])
@pytest.mark.parametrize("least", [0.5, 0.9])
def test_one_threshold_exactly(size: int, audited: int, least: float) -> None:
    assert _worst_risk(size, audited, least, _p_of) <= _RISK + 1e-9


def test_one_label_too_many_would_be_noticed() -> None:
    def optimist(size: int, audited: int, right: int, least: float) -> float:
        return _p_of(size, audited, min(right + 1, audited), least)

    assert _worst_risk(400, 40, 0.9, optimist) > 1.4 * _RISK


def test_the_rest_needs_more_than_the_whole() -> None:
    def whole(size: int, audited: int, right: int, least: float) -> float:
        return float(hypergeom.sf(right - 1, size, math.ceil(least * size) - 1, audited))

    assert _worst_risk(150, 100, 0.9, whole) > 2 * _RISK


def test_a_large_set_is_tested_as_binomial() -> None:
    for right in (85, 95, 98):
        expected = binom.sf(right - 1, 100, 0.9)
        assert _p_of(10_000_000, 100, right, 0.9) == pytest.approx(expected, rel=1e-3)


def test_when_all_are_audited_nothing_is_uncertain() -> None:
    assert _p_of(100, 100, 90, 0.9) == 0.0
    assert _p_of(100, 100, 89, 0.9) == 1.0


@given(st.integers(1, 60), st.data())
@settings(max_examples=60, deadline=None)
def test_fewest_right_is_the_lowest_number_that_is_not_ruled_out(
    size: int, data: st.DataObject
) -> None:
    audited = data.draw(st.integers(1, size))
    right = data.draw(st.integers(0, audited))
    possible = range(right, size - (audited - right) + 1)
    expected = next(k for k in possible if hypergeom.sf(right - 1, size, k, audited) > _RISK)
    assert fewest_right(size, audited, right, _RISK) == expected


def test_all_right_and_all_audited() -> None:
    found = _choose(np.linspace(0, 1, 200), np.ones(200), np.ones(200))
    assert found == Choice(0.0, 200, 200, 200, 200)


def test_the_threshold_parts_good_from_bad() -> None:
    confidence = np.linspace(1, 0, 4000)
    audited = np.random.default_rng(0).random(4000) < 0.2
    found = _choose(confidence, audited, confidence > 0.5)
    assert found.threshold is not None
    assert 0.45 <= found.threshold <= 0.6
    assert found.accepted == (confidence.astype(np.float32) >= found.threshold).sum()


def test_equal_confidences_go_together() -> None:
    confidence = np.repeat([0.9, 0.4], 500)
    found = _choose(confidence, np.ones(1000), confidence > 0.5, 0.95)
    assert found.threshold == pytest.approx(0.9)
    assert (found.accepted, found.audited, found.right) == (500, 500, 500)


def test_the_order_of_the_samples_does_not_matter() -> None:
    random = np.random.default_rng(1)
    confidence = random.random(3000).astype(np.float32)
    audited, right = random.random(3000) < 0.3, random.random(3000) < confidence**0.2
    shuffled = random.permutation(3000)
    assert _choose(confidence, audited, right) == _choose(
        confidence[shuffled], audited[shuffled], right[shuffled]
    )


def test_labels_below_the_threshold_change_nothing_above_it() -> None:
    """What a strict threshold promises follows from the labels above it alone."""
    confidence = np.linspace(1, 0, 4000)
    audited = np.random.default_rng(0).random(4000) < 0.2
    good = _choose(confidence, audited, confidence > 0.5)
    assert good.threshold is not None
    worse = _choose(confidence, audited, confidence > max(0.5, good.threshold - 0.1))
    assert worse == good


def test_a_refusal_says_what_can_be_had() -> None:
    random = np.random.default_rng(5)
    confidence = random.random(2000)
    audited, right = random.random(2000) < 0.25, random.random(2000) < 0.7
    refused = _choose(confidence, audited, right)
    assert refused.threshold is None
    assert refused.accepted == 0
    assert refused.reachable is not None
    assert 0.55 < refused.reachable < 0.75
    again = _choose(confidence, audited, right, math.floor(1000 * refused.reachable) / 1000)
    assert again.threshold is not None
    more = _choose(confidence, audited, right, refused.reachable + 0.02)
    assert more.reachable == pytest.approx(refused.reachable)


@pytest.mark.parametrize("size", [0, 50])
def test_without_labels_everything_is_refused(size: int) -> None:
    assert _choose(np.ones(size), np.zeros(size), np.zeros(size)) == Choice(None, size, 0, 0, 0, 0)


def test_few_labels_are_tested_once() -> None:
    audited = np.arange(500) < 40
    found = _choose(np.linspace(0, 1, 500), audited, np.ones(500))
    assert found.accepted == 500
    assert _choose(np.linspace(0, 1, 500), np.arange(500) < 20, np.ones(500)).threshold is None


def _compete(rows: list[tuple[int, int, int, float]], *, everywhere: bool) -> list[int]:
    query, document, target, confidence = (np.array(column) for column in zip(*rows, strict=True))
    stays = compete(
        query=query.astype(np.uint64),
        document=document.astype(np.uint64),
        target=target,
        confidence=confidence,
        seed=np.arange(len(rows), dtype=np.uint64),
        everywhere=everywhere,
    )
    return np.flatnonzero(stays).tolist()


def test_of_equal_queries_the_surest_stays() -> None:
    rows = [(1, 1, 2, 0.6), (1, 2, 2, 0.9), (1, 3, 2, 0.9), (1, 3, 1, 0.05), (2, 1, 2, 0.1)]
    assert _compete(rows, everywhere=True) == [1, 4]
    assert _compete(rows, everywhere=False) == [0, 1, 2, 4]


def test_a_query_that_lost_in_its_document_beats_nobody() -> None:
    # As grade 1 of document 3 it is surer than in document 1, but there it is grade 2.
    rows = [(1, 3, 2, 0.6), (1, 3, 1, 0.4), (1, 1, 1, 0.3)]
    assert _compete(rows, everywhere=True) == [0, 2]


def test_surest_share() -> None:
    confidence = np.array([0.1, 0.9, 0.5, 0.5, 0.2])
    assert surest(confidence, 0.2).tolist() == [False, True, False, False, False]
    assert surest(confidence, 0.4).tolist() == [False, True, True, True, False]
    assert surest(confidence, 1.0).all()
    assert surest(confidence[:0], 0.5).tolist() == []


def test_estimate_takes_the_lowest_threshold_that_reaches_the_share() -> None:
    confidence = np.linspace(1, 0.01, 100)
    right = np.arange(100) < 40
    found = estimate(confidence, right, 0.8)
    assert (found.judged, found.right) == (50, 40)
    assert found.threshold == pytest.approx(confidence[49])


def test_estimate_without_a_threshold() -> None:
    confidence = np.linspace(1, 0.01, 100)
    assert estimate(confidence, np.arange(100) < 10, 0.9).threshold is None
    found = estimate(confidence[:19], np.ones(19, bool), 0.9)
    assert (found.threshold, found.judged, found.right) == (None, 19, 19)
    assert estimate(confidence[:0], np.ones(0, bool), 0.9).threshold is None


def test_estimate_takes_equals_together() -> None:
    confidence = np.repeat([0.9, 0.5], 30)
    right = np.concatenate([np.ones(45, bool), np.zeros(15, bool)])
    assert estimate(confidence, right, 0.8).threshold == pytest.approx(0.9)
    assert estimate(confidence, right, 0.75).threshold == pytest.approx(0.5)
