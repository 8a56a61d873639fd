"""How negatives are drawn: each alike, or around the positive's score."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ssra_engine.negatives.sampling import Draws, order_of_choice
from ssra_engine.negatives.settings import Settings

SCORES = np.asarray([0.9, 0.7, 0.6, 0.55, 0.2], np.float32)
POSITIVE = 0.65


def draw(rows: int, count: int, *, whole: bool = False, **choice: Any) -> np.ndarray:
    return order_of_choice(
        np.tile(SCORES, (rows, 1)),
        np.full(rows, count),
        np.full(rows, POSITIVE, np.float32),
        Settings(**choice),
        Draws(3),
        whole=whole,
    )


def weights(a: float, b: float, count: int) -> np.ndarray:
    w = np.exp(-a * (SCORES[:count].astype(float) - POSITIVE - b) ** 2)
    return w / w.sum()


@pytest.mark.parametrize("count", [5, 3])
@pytest.mark.parametrize(("a", "b"), [(50, 0), (20, -0.3), (0, 0)])
def test_simans_draws_by_its_weights(a: float, b: float, count: int) -> None:
    """The second of two draws follows the weights of those that the first left."""
    rows = 40_000
    order = draw(rows, count, num_negatives=2, sampling_strategy="simans", simans_a=a, simans_b=b)
    w = weights(a, b, count)
    left = 1 - w
    expected = {(i, j): w[i] * w[j] / left[i] for i in range(count) for j in range(count) if i != j}
    for pair, p in expected.items():
        share = (order == pair).all(axis=1).mean()
        assert abs(share - p) < 5 * np.sqrt(p * (1 - p) / rows) + 1e-4, pair


def test_random_draws_each_alike() -> None:
    order = draw(20_000, 4, num_negatives=1, sampling_strategy="random")
    share = np.bincount(order[:, 0], minlength=5) / 20_000
    np.testing.assert_allclose(share, [0.25] * 4 + [0], atol=0.02)


@pytest.mark.parametrize("strategy", ["top", "random", "simans"])
@pytest.mark.parametrize("count", [0, 2, 5])
def test_a_whole_order_holds_every_candidate_once(strategy: Any, count: int) -> None:
    order = draw(50, count, whole=True, num_negatives=2, sampling_strategy=strategy)
    assert order.shape == (50, 5)
    for row in order:
        assert sorted(row[row < count]) == list(range(count))
