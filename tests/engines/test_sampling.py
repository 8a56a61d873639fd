from __future__ import annotations

import numpy as np
import pytest
import torch

from ssra_engine.engines.sampling import draw, exponentials

ROWS = 40_000
KEYS = np.arange(ROWS, dtype=np.uint64)


def _nucleus(logits: torch.Tensor, temperature: float, top_p: float) -> np.ndarray:
    """The plain way: sort, sum, cut."""
    p = (logits.double() / temperature).softmax(-1).numpy()
    order = np.argsort(-p, kind="stable")
    keep = order[: int(np.searchsorted(np.cumsum(p[order]), top_p)) + 1] if top_p < 1 else order
    q = np.zeros_like(p)
    q[keep] = p[keep]
    return q / q.sum()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("top_p", [0.01, 0.3, 0.9, 1.0])
def test_draws_follow_the_nucleus(temperature: float, top_p: float) -> None:
    logits = torch.randn(600, generator=torch.Generator().manual_seed(0)) * 2
    expected = _nucleus(logits, temperature, top_p)
    tokens, _ = draw(logits.expand(ROWS, -1), KEYS, 3, temperature=temperature, top_p=top_p)
    counts = np.bincount(tokens, minlength=600)
    assert not counts[expected == 0].any()
    often = expected * ROWS >= 5
    chi2 = ((counts - expected * ROWS)[often] ** 2 / (expected * ROWS)[often]).sum()
    degrees = max(often.sum() - 1, 1)
    assert chi2 < degrees + 5 * np.sqrt(2 * degrees)


def test_a_draw_depends_on_its_own_row_only() -> None:
    logits = torch.randn(300, 5000, generator=torch.Generator().manual_seed(1))
    settings = {"temperature": 0.8, "top_p": 0.9}
    whole, logprobs = draw(logits, KEYS[:300], 2, **settings)
    order = np.random.default_rng(0).permutation(300)
    shuffled, again = draw(logits[order], KEYS[order], 2, **settings)
    assert np.array_equal(shuffled, whole[order])
    assert np.allclose(again, logprobs[order], atol=1e-6)
    other, _ = draw(logits, KEYS[:300], 3, **settings)
    assert (other != whole).mean() > 0.9


def test_rounding_rarely_changes_a_draw() -> None:
    logits = torch.randn(4000, 2000, generator=torch.Generator().manual_seed(1))
    noise = 1e-5 * torch.randn(logits.shape, generator=torch.Generator().manual_seed(2))
    before, _ = draw(logits, KEYS[:4000], 0, temperature=1.0, top_p=0.95)
    after, _ = draw(logits + noise, KEYS[:4000], 0, temperature=1.0, top_p=0.95)
    assert (before != after).sum() <= 2


def test_greedy_and_banned() -> None:
    logits = torch.tensor([[0.0, 3.0, 2.0, 1.0]])
    banned = torch.tensor([1, 0])
    tokens, logprobs = draw(logits, KEYS[:1], 0, temperature=0, top_p=1)
    assert tokens.tolist() == [1]
    assert logprobs[0] == pytest.approx(float(logits.log_softmax(-1)[0, 1]))
    tokens, logprobs = draw(logits, KEYS[:1], 0, temperature=0, top_p=1, banned=banned)
    assert tokens.tolist() == [2]
    assert logprobs[0] == pytest.approx(float(logits.log_softmax(-1)[0, 2]))
    tokens, _ = draw(logits.expand(500, -1), KEYS[:500], 0, temperature=5.0, top_p=1, banned=banned)
    assert set(tokens.tolist()) == {2, 3}


def test_extreme_logits() -> None:
    logits = torch.full((3, 700), -torch.inf)
    logits[0, 699] = 0
    logits[1, 5] = 1e4
    logits[2, 300] = -1e30
    tokens, logprobs = draw(logits, KEYS[:3], 0, temperature=1.0, top_p=0.5)
    assert tokens.tolist() == [699, 5, 300]
    assert np.allclose(logprobs, 0)


def test_exponentials_are_exponential() -> None:
    numbers = exponentials(KEYS, 1, 0, 3).numpy()
    assert numbers.min() > 0
    assert np.allclose(numbers.mean(0), 1, atol=0.03)
    assert np.allclose(numbers.var(0), 1, atol=0.05)
    assert np.abs(np.corrcoef(numbers.T) - np.eye(3)).max() < 0.03
