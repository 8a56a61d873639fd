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

from ssra_engine.engines.scheduler import Tree

__all__ = ["TreeLayout", "TreeTokens", "additive", "lay_out"]

_PREFIX = -1
_PADDING = -2


@dataclass(frozen=True)
class TreeLayout:
    """A batch of D trees with C = P + S columns and up to K branches.

    Attributes:
        tokens: int64[D, C].
        positions: int64[D, C].
        prefix_columns: P.
        owner: int64[D, C], the leaf of each column; negative for documents and padding.
        branch_column: int64[D, K], column of the last prompt token of each branch.
        branch_visible: bool[D, K, C]; may the branch see the column?
        branch_position: int64[D, K], position of the first generated token.
        branch: int64[D, K], number of the branch in the caller's list; -1 for none.
    """

    tokens: np.ndarray
    positions: np.ndarray
    prefix_columns: int
    owner: np.ndarray
    branch_column: np.ndarray
    branch_visible: np.ndarray
    branch_position: np.ndarray
    branch: np.ndarray

    def visible(self, first: int = 0) -> np.ndarray:
        """May the token of a column, from `first` on, see another? bool[D, C - first, C]."""
        columns = self.owner.shape[1]
        causal = np.tri(columns, dtype=bool)[first:]
        asker = self.owner[:, first:]
        real = _sees(asker, self.owner) & causal & (self.owner != _PADDING)[:, None, :]
        # Padding sees itself, so that no softmax runs over nothing.
        padding = (asker == _PADDING)[:, :, None] & np.eye(columns, dtype=bool)[first:]
        visible: np.ndarray = real | padding
        return visible


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
        owner=owner,
        branch_column=branch_column,
        branch_visible=_sees(branch_leaf, owner),
        branch_position=branch_position,
        branch=branch,
    )


def _sees(asker: np.ndarray, owner: np.ndarray) -> np.ndarray:
    seen = owner[:, None, :]
    sees: np.ndarray = (seen == _PREFIX) | (seen == asker[:, :, None])
    return sees


def additive(visible: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """bool[D, Q, C] as an additive attention mask, dtype[D, 1, Q, C]: 0, or the dtype's minimum."""
    mask = torch.zeros(visible.shape, dtype=dtype)
    return mask.masked_fill_(~visible, torch.finfo(dtype).min).unsqueeze_(1)
