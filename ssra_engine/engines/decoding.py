"""Decoding of token trees: one step appends a token to every open branch of a batch.

Branches close at different steps. A closed one leaves a hole in its row, which is still computed;
when holes make up a third of the grid, rows, branches and columns that nobody needs are cut out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ssra_engine.engines.engine import Sampling
from ssra_engine.engines.sampling import draw
from ssra_engine.engines.stopping import StopRules
from ssra_engine.engines.token_tree import TreeLayout, TreeTokens
from ssra_engine.engines.tree_model import KeptColumns, TreeModel

__all__ = ["Decoded", "decode"]

_CUT_BELOW = 2 / 3


@dataclass
class Decoded:
    """Completions of B branches, in the caller's numbering.

    Attributes:
        tokens: int32[B, max_new_tokens].
        length: int32[B], tokens generated, with the one that ended the completion.
        logprobs: float32[B, max_new_tokens], of the tokens.
        stopped: bool[B], ended by a stop string or an end token.
    """

    tokens: np.ndarray
    length: np.ndarray
    logprobs: np.ndarray
    stopped: np.ndarray

    @classmethod
    def empty(cls, branches: int, max_new_tokens: int) -> Decoded:
        """No tokens yet."""
        return cls(
            np.zeros((branches, max_new_tokens), np.int32),
            np.zeros(branches, np.int32),
            np.zeros((branches, max_new_tokens), np.float32),
            np.zeros(branches, bool),
        )

    @property
    def logprob(self) -> np.ndarray:
        """Of each completion, float64[B]."""
        inside = np.arange(self.logprobs.shape[1]) < self.length[:, None]
        total: np.ndarray = np.where(inside, self.logprobs, 0).sum(1, dtype=np.float64)
        return total

    def append(self, branches: np.ndarray, tokens: np.ndarray, logprobs: np.ndarray) -> None:
        """One more token for each of `branches`."""
        self.tokens[branches, self.length[branches]] = tokens
        self.logprobs[branches, self.length[branches]] = logprobs
        self.length[branches] += 1


def decode(
    model: TreeModel[Any],
    layout: TreeLayout,
    sampling: Sampling,
    *,
    rules: StopRules,
    keys: np.ndarray,
    decoded: Decoded,
) -> None:
    """Complete the branches of one batch.

    Args:
        model: computes the logits.
        layout: the batch.
        sampling: how tokens are drawn.
        rules: when completions end.
        keys: uint64[B], by branch; see `draw`.
        decoded: completions of all branches; those of this batch are written.
    """
    flat = layout.branch.reshape(-1)
    logits, cache = model.prefill(layout, sampling.max_new_tokens)
    grid = _Grid(layout, cache, model.dtype, sampling.max_new_tokens)
    open_cells = np.flatnonzero(flat >= 0)
    logits = logits[torch.from_numpy(open_cells)]
    for step in range(sampling.max_new_tokens):
        branches = grid.branch.reshape(-1)[open_cells]
        banned = rules.banned if step < sampling.min_new_tokens else None
        tokens, logprobs = draw(
            logits,
            keys[branches],
            step,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            banned=banned,
        )
        decoded.append(branches, tokens, logprobs)
        if step + 1 >= sampling.min_new_tokens:
            ended = rules.ended(tokens, branches, decoded.tokens, step + 1)
            decoded.stopped[branches[ended]] = True
            open_cells, tokens = open_cells[~ended], tokens[~ended]
        if not len(open_cells) or step + 1 == sampling.max_new_tokens:
            return
        if len(open_cells) < _CUT_BELOW * grid.branch.size:
            open_cells = grid.cut(open_cells, sampling.max_new_tokens - step - 1)
        logits = grid.advance(model, open_cells, tokens)


class _Grid:
    """The rows and branches still computed, and what each branch may see."""

    mask: torch.Tensor
    column_positions: torch.Tensor
    used: int

    def __init__(
        self, layout: TreeLayout, cache: KeptColumns, dtype: torch.dtype, steps: int
    ) -> None:
        self.cache = cache
        self.branch = layout.branch
        self.position = torch.from_numpy(layout.branch_position)
        self._hidden = torch.finfo(dtype).min
        visible = torch.from_numpy(layout.branch_visible)
        column_positions = torch.from_numpy(layout.positions)
        self._open_buffers(visible, column_positions, dtype, steps)

    def advance(
        self, model: TreeModel[Any], open_cells: np.ndarray, tokens: np.ndarray
    ) -> torch.Tensor:
        """Logits after `tokens`, which extend the branches of `open_cells` (flat indices)."""
        rows, branches = self.branch.shape
        start, end = self.used, self.used + branches
        grid_tokens = torch.zeros(rows * branches, dtype=torch.int64)
        wanted = torch.from_numpy(open_cells)
        grid_tokens[wanted] = torch.from_numpy(tokens)
        own = torch.arange(branches)
        self.mask[:, 0, own, start + own] = 0
        self.column_positions[:, start:end] = self.position
        inputs = TreeTokens(
            grid_tokens.view(rows, branches),
            self.position,
            self.mask[..., :end],
            self.column_positions[:, :end],
        )
        logits = model.forward(inputs, self.cache, wanted)
        self.used = end
        self.position = self.position + 1
        return logits

    def cut(self, open_cells: np.ndarray, steps: int) -> np.ndarray:
        """Leave out what no open branch needs; the new flat indices of the open cells."""
        old_row, old_cell = np.divmod(open_cells, self.branch.shape[1])
        rows, row = np.unique(old_row, return_inverse=True)
        counts = np.bincount(row)
        cell = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
        branches = int(counts.max())
        source = np.repeat(old_cell[np.cumsum(counts) - counts][:, None], branches, axis=1)
        source[row, cell] = old_cell
        alive = np.zeros(source.shape, bool)
        alive[row, cell] = True
        pick_rows, pick_cells = torch.from_numpy(rows), torch.from_numpy(source)
        visible = self.mask[pick_rows[:, None], 0, pick_cells, : self.used] == 0
        columns = _needed_columns(visible)
        visible = visible.gather(2, columns[:, None, :].expand(-1, branches, -1))
        positions = self.column_positions[pick_rows[:, None], columns]
        self.branch = np.where(alive, self.branch[rows[:, None], source], -1)
        self.position = self.position[pick_rows[:, None], pick_cells]
        self.cache.keep(pick_rows, columns, columns.shape[1] + steps * branches)
        self._open_buffers(visible, positions, self.mask.dtype, steps)
        return row * branches + cell

    def _open_buffers(
        self, visible: torch.Tensor, positions: torch.Tensor, dtype: torch.dtype, steps: int
    ) -> None:
        rows, branches, self.used = visible.shape
        room = self.used + steps * branches
        self.mask = torch.full((rows, 1, branches, room), self._hidden, dtype=dtype)
        self.mask[:, 0, :, : self.used].masked_fill_(visible, 0.0)
        self.column_positions = torch.zeros(rows, room, dtype=torch.int64)
        self.column_positions[:, : self.used] = positions


def _needed_columns(visible: torch.Tensor) -> torch.Tensor:
    """Columns that some branch of the row sees, in order, then others up to the longest row.

    Args:
        visible: bool[D, K, C].

    Returns:
        int64[D, C'].
    """
    needed = visible.any(1)
    width = int(needed.sum(1).max())
    return (~needed).to(torch.int8).argsort(dim=1, stable=True)[:, :width]
