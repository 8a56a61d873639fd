"""Attention and cache of token trees, in the forms that transformers calls.

Importing this registers the attention function under the name `ATTENTION`.
"""

from __future__ import annotations

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.cache_utils import Cache, CacheLayerMixin

from ssra_engine.engines.token_tree import additive

__all__ = ["ATTENTION", "TreeCache", "tree_attention"]

#: Name of the attention function below, for ``model.set_attn_implementation``.
ATTENTION = "ssra_token_tree"

#: Up to this many queries per key head, folding query heads into queries beats grouped attention.
_FOLD_QUERIES = 96


class _TreeCacheLayer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values of one layer, in a buffer that is allocated once.

    transformers' dynamic layers copy the whole cache at every step; at this project's shapes that
    costs as much as a third of the step.
    """

    is_sliding = False

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.columns = columns
        self.used = 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        rows, heads, _, _ = key_states.shape
        self.keys = key_states.new_empty(rows, heads, self.columns, key_states.shape[-1])
        self.values = value_states.new_empty(rows, heads, self.columns, value_states.shape[-1])
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.used + key_states.shape[-2]
        self.keys[:, :, self.used : end] = key_states
        self.values[:, :, self.used : end] = value_states
        self.used = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def keep(self, rows: torch.Tensor, columns: torch.Tensor, capacity: int) -> None:
        """Keep some columns of some rows: int64[D'] and int64[D', C']."""
        self.columns, self.used = capacity, columns.shape[1]
        for name in ("keys", "values"):
            old = getattr(self, name)
            new = old.new_empty(len(rows), old.shape[1], capacity, old.shape[3])
            kept = old[rows[:, None], :, columns]
            new[:, :, : self.used] = kept.transpose(1, 2)
            setattr(self, name, new)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.used + query_length, 0

    def get_seq_length(self) -> int:
        return self.used

    def get_max_length(self) -> int:
        return self.columns

    get_max_cache_shape = get_max_length


class TreeCache(Cache):  # type: ignore[misc]
    """The keys and values of a batch of trees, all layers.

    Args:
        layers: number of layers of the model.
        columns: room for this many tokens in a row.
    """

    def __init__(self, layers: int, columns: int) -> None:
        super().__init__(layers=[_TreeCacheLayer(columns) for _ in range(layers)])

    def keep(self, rows: torch.Tensor, columns: torch.Tensor, capacity: int) -> None:
        """Keep the columns int64[D', C'] of the rows int64[D']; room for `capacity` columns."""
        for layer in self.layers:
            layer.keep(rows, columns, capacity)


def tree_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    softcap: float | None = None,
    **kwargs: object,
) -> tuple[torch.Tensor, None]:
    """Attention for token trees, in the form of transformers' attention interface.

    A mask with fewer rows than there are queries is the mask of the last ones; the queries before
    are a document, causal among themselves. That way the kernel skips half of the document's
    square, and never looks at the suffixes from the document.

    Args:
        module: the attention layer; not used.
        query: [D, H, Q, d].
        key: [D, h, C, d]; h divides H.
        value: [D, h, C, d].
        attention_mask: additive [D, 1, M, C] with M <= Q; None for a plain causal forward.
        dropout: must be 0.
        scaling: of the dot products; default 1 / sqrt(d).
        softcap: soft limit of the scaled dot products (Gemma 2).
        **kwargs: what other implementations need; sliding windows are in the mask already.

    Returns:
        [D, Q, H, d], and no attention weights.
    """
    unknown = [name for name in ("s_aux", "position_bias") if kwargs.get(name) is not None]
    assert not dropout, "engines run in evaluation mode"
    if unknown:
        raise ValueError(f"token trees do not support attention with {unknown}")
    masked = 0 if attention_mask is None else attention_mask.shape[2]
    document = query.shape[2] - masked
    parts = []
    if document:
        head = (query[:, :, :document], key[:, :, :document], value[:, :, :document])
        parts.append(_attend(*head, None, scaling=scaling, softcap=softcap))
    if masked:
        tail = (query[:, :, document:], key, value, attention_mask)
        parts.append(_attend(*tail, scaling=scaling, softcap=softcap))
    output = parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)
    return output.transpose(1, 2).contiguous(), None


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    *,
    scaling: float | None,
    softcap: float | None,
) -> torch.Tensor:
    """[D, H, Q, d]; causal without a mask."""
    rows, heads, queries, width = query.shape
    group = heads // key.shape[1]
    if softcap is not None:
        return _attend_capped(query, key, value, mask, scaling=scaling, softcap=softcap)
    if mask is None or group == 1 or group * queries > _FOLD_QUERIES:
        return scaled_dot_product_attention(
            query, key, value, mask, is_causal=mask is None, scale=scaling, enable_gqa=group > 1
        )
    folded = query.reshape(rows, key.shape[1], group * queries, width)
    output = scaled_dot_product_attention(
        folded, key, value, mask.repeat(1, 1, group, 1), scale=scaling
    )
    return output.reshape(rows, heads, queries, value.shape[-1])


def _attend_capped(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    *,
    scaling: float | None,
    softcap: float,
) -> torch.Tensor:
    group = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = softcap * torch.tanh(query @ key.transpose(2, 3) * (scale / softcap))
    if mask is None:
        visible = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        mask = additive(visible[None], scores.dtype)
    return (scores + mask).softmax(-1, dtype=torch.float32).to(value.dtype) @ value


AttentionInterface.register(ATTENTION, tree_attention)
