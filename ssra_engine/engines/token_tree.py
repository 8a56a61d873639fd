"""Token trees as tensors: one row a document, several prompts in it.

A row holds the document's tokens, then the tokens of each suffix. A mask lets every token see the
document and its own suffix only, and positions go on from the document's end, so each prompt is
computed as if it stood alone, while the document is computed once. Decoding goes on in the same
rows: a step appends one token for each branch. Any causal language model that takes an attention
mask of four dimensions and position ids can do this; no key or value is ever copied per prompt.

Layout of a batch of D trees: columns ``[0, P)`` hold the documents, ``[P, P + S)`` the suffixes,
both padded on the right; further columns hold generated tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.cache_utils import Cache, CacheLayerMixin

from ssra_engine.engines.scheduler import Tree

__all__ = ["ATTENTION", "TreeCache", "TreeLayout", "TreeTokens", "additive", "lay_out"]

#: Name of the attention function below, for ``model.set_attn_implementation``.
ATTENTION = "ssra_token_tree"

_PREFIX = -1
_PADDING = -2
#: Up to this many queries per key head, folding query heads into queries beats grouped attention.
_FOLD_QUERIES = 96


@dataclass(frozen=True)
class TreeLayout:
    """A batch of D trees with C = P + S columns and up to K branches.

    Attributes:
        tokens: int64[D, C].
        positions: int64[D, C].
        prefix_columns: P.
        visible: bool[D, C, C]; may the token of a column (second axis) see another (third)?
        branch_column: int64[D, K], column of the last prompt token of each branch.
        branch_visible: bool[D, K, C]; may the branch see the column?
        branch_position: int64[D, K], position of the first generated token.
        branch: int64[D, K], number of the branch in the caller's list; -1 for none.
    """

    tokens: np.ndarray
    positions: np.ndarray
    prefix_columns: int
    visible: np.ndarray
    branch_column: np.ndarray
    branch_visible: np.ndarray
    branch_position: np.ndarray
    branch: np.ndarray


@dataclass(frozen=True)
class TreeTokens:
    """New tokens of D rows, and what they may see among C columns, their own included.

    Attributes:
        tokens: int64[D, Q].
        positions: int64[D, Q].
        mask: additive [D, 1, M, C]; M = Q, or less (see `tree_attention`).
        column_positions: int64[D, C], position of the token in each column.
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor
    column_positions: torch.Tensor


def lay_out(trees: Sequence[Tree], pad_id: int) -> TreeLayout:
    """Lay trees into one batch."""
    rows = len(trees)
    prefix_columns = max(len(tree.prefix) for tree in trees)
    columns = prefix_columns + max(tree.suffix_tokens for tree in trees)
    branches = max(len(tree.branch) for tree in trees)
    tokens = np.full((rows, columns), pad_id, np.int64)
    positions = np.zeros((rows, columns), np.int64)
    owner = np.full((rows, columns), _PADDING, np.int64)
    branch_leaf = np.full((rows, branches), -3, np.int64)
    branch_column = np.zeros((rows, branches), np.int64)
    branch_position = np.zeros((rows, branches), np.int64)
    branch = np.full((rows, branches), -1, np.int64)
    for row, tree in enumerate(trees):
        length = len(tree.prefix)
        tokens[row, :length] = tree.prefix
        positions[row, :length] = np.arange(length)
        owner[row, :length] = _PREFIX
        last, end = [], prefix_columns
        for leaf, suffix in enumerate(tree.suffixes):
            start, end = end, end + len(suffix)
            tokens[row, start:end] = suffix
            positions[row, start:end] = np.arange(length, length + len(suffix))
            owner[row, start:end] = leaf
            last.append(end - 1 if suffix else length - 1)
        count = len(tree.branch)
        branch[row, :count] = tree.branch
        branch_leaf[row, :count] = tree.leaf
        branch_column[row, :count] = np.array(last)[tree.leaf]
        branch_position[row, :count] = length + np.array([len(s) for s in tree.suffixes])[tree.leaf]
    return TreeLayout(
        tokens=tokens,
        positions=positions,
        prefix_columns=prefix_columns,
        visible=_visible(owner),
        branch_column=branch_column,
        branch_visible=_sees(branch_leaf, owner),
        branch_position=branch_position,
        branch=branch,
    )


def _sees(asker: np.ndarray, owner: np.ndarray) -> np.ndarray:
    seen = owner[:, None, :]
    sees: np.ndarray = (seen == _PREFIX) | (seen == asker[:, :, None])
    return sees


def _visible(owner: np.ndarray) -> np.ndarray:
    columns = owner.shape[1]
    causal = np.tril(np.ones((columns, columns), bool))
    # Padding sees itself, so that no softmax runs over nothing.
    padding = (owner == _PADDING)[:, :, None] & np.eye(columns, dtype=bool)
    real = _sees(owner, owner) & causal & (owner != _PADDING)[:, None, :]
    visible: np.ndarray = real | padding
    return visible


def additive(visible: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """bool[D, Q, C] as an additive attention mask, dtype[D, 1, Q, C]: 0, or the dtype's minimum."""
    mask = torch.zeros(visible.shape, dtype=dtype)
    return mask.masked_fill_(~visible, torch.finfo(dtype).min).unsqueeze_(1)


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
