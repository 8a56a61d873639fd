from __future__ import annotations

import numpy as np
import pytest

from ssra_engine.stages.balance import affordable, count_accepted, likely_kept, shortfall


def test_counts_and_what_is_short() -> None:
    document = np.array([0, 0, 2, 2, 2], np.int32)
    target = np.array([1, 3, 3, 3, 3], np.int8)
    accepted = count_accepted(document, target, 3, (1, 3))
    assert accepted.tolist() == [[1, 1], [0, 0], [0, 3]]
    assert shortfall(accepted, 2).tolist() == [[1, 1], [2, 2], [2, 0]]


def test_a_short_budget_goes_round_by_likelihood() -> None:
    short = np.array([[2, 1, 0], [2, 1, 0], [1, 1, 1], [3, 0, 0]])
    likely = np.array([[0.1, 0.9, 1.0], [0.9, 0.1, 1.0], [0.5, 0.5, 0.4], [0.2, 1.0, 1.0]])
    wanted = affordable(short, np.array([2, 1, 2, 0]), likely)
    assert wanted.tolist() == [[1, 1, 0], [1, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert affordable(short, np.array([3, 3, 3, 3]), likely).tolist() == short.tolist()


def test_a_document_of_its_own_outweighs_the_rest() -> None:
    accepted, asked = np.array([[0, 3], [0, 0]]), np.array([[4, 4], [0, 0]])
    chance = likely_kept(accepted, asked, np.array([0.9, 0.1]))
    assert chance[0, 0] < chance[0, 1]
    assert chance[1].tolist() == pytest.approx([0.9, 0.1])
