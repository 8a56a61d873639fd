from __future__ import annotations

import pytest
import torch

from ssra_engine.engines.token_tree import additive
from ssra_engine.engines.tree_attention import TreeCache, tree_attention


@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize(("queries", "masked"), [(9, 9), (9, 4), (9, 0), (3, 3)])
def test_attention_is_softmax_of_dot_products(
    queries: int, masked: int, softcap: float | None
) -> None:
    random = torch.Generator().manual_seed(0)
    query = torch.randn(2, 6, queries, 8, generator=random)
    key, value = (torch.randn(2, 3, 9, 8, generator=random) for _ in range(2))
    visible = torch.rand(2, masked, 9, generator=random) < 0.5
    visible[..., 0] = True
    mask = additive(visible, torch.float32) if masked else None
    found, weights = tree_attention(
        torch.nn.Identity(), query, key, value, mask, scaling=0.3, softcap=softcap
    )
    assert weights is None
    causal = torch.ones(queries, 9, dtype=torch.bool).tril()
    allowed = torch.cat([causal.expand(2, -1, -1)[:, : queries - masked], visible], 1)[:, None]
    scores = query.double() @ key.double().repeat_interleave(2, 1).transpose(2, 3) * 0.3
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    attention = scores.masked_fill(~allowed, -torch.inf).softmax(-1)
    expected = (attention @ value.double().repeat_interleave(2, 1)).transpose(1, 2)
    assert torch.allclose(found.double(), expected, atol=1e-5)


def test_unknown_attention_is_refused() -> None:
    part = torch.zeros(1, 1, 1, 4)
    with pytest.raises(ValueError, match="s_aux"):
        tree_attention(torch.nn.Identity(), part, part, part, None, s_aux=torch.zeros(1))


def test_the_cache_keeps_what_it_is_told_to() -> None:
    cache = TreeCache(2, 10)
    states = torch.arange(3 * 2 * 6 * 4.0).view(3, 2, 6, 4)
    for layer in range(2):
        cache.update(states + layer, -states, layer)
    rows, columns = torch.tensor([0, 2]), torch.tensor([[5, 1], [0, 3]])
    cache.keep(rows, columns, 3)
    more = torch.ones(2, 2, 1, 4)
    keys, values = cache.update(more, more, 1)
    assert keys.shape == (2, 2, 3, 4)
    assert torch.equal(keys[0, :, :2], states[0][:, [5, 1]] + 1)
    assert torch.equal(values[1, :, :2], -states[2][:, [0, 3]])
    assert torch.equal(keys[:, :, 2:], more)
    assert cache.get_seq_length(0) == 2
