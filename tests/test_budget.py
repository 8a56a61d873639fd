from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssra_engine.budget import Budget, WorkClock, acceptance, parse_budget
from ssra_engine.config import load_config
from ssra_engine.errors import ConfigError
from ssra_engine.schema import REASONS


@given(st.integers(1, 10**15), st.integers(1, 50), st.integers(1, 9))
def test_shares_add_up_however_they_are_cut(amount: int, documents: int, shard: int) -> None:
    budget = Budget(amount, "samples")
    shares = np.concatenate(
        [
            budget.shares(documents, first, min(shard, documents - first))
            for first in range(0, documents, shard)
        ]
    )
    assert shares.sum() == amount
    assert shares.max() - shares.min() <= 1


def test_forms() -> None:
    assert parse_budget(" 20000 samples") == Budget(20000, "samples")
    assert parse_budget("600seconds") == Budget(600, "seconds")
    for text in ("", "20", "0 samples", "-3 samples", "2 hours", "1.5 samples"):
        with pytest.raises(
            ConfigError, match=r"synthesize\.budget: a budget is a number and a unit"
        ):
            load_config(overrides={"synthesize.budget": text})


def test_acceptance_of_what_is_not_known_is_even() -> None:
    counts = np.zeros((2, 1 + len(REASONS)), np.int64)
    counts[0, 0], counts[0, 3] = 2, 6
    assert acceptance(counts).tolist() == [0.3, 0.5]


def test_seconds_of_shards_that_overlap_add_up_to_what_passed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    clock = WorkClock(before=7.0)
    now = 110.0  # reading past finished shards
    assert clock.total() == 7.0
    for _ in range(3):  # three shards begin together
        clock.begin()
    laps = []
    for now in (113.0, 113.0, 115.0):
        assert clock.total() == now - 103.0
        laps.append(clock.lap())
    assert laps == [3.0, 0.0, 2.0]
    now = 116.0
    assert clock.total() == 13.0
