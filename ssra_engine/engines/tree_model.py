"""What the tree engine asks of a model: logits of token trees, whoever computes them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch

from ssra_engine.engines.scheduler import Tree
from ssra_engine.engines.token_tree import TreeLayout, TreeTokens, additive, lay_out
from ssra_engine.errors import EngineError

__all__ = ["KeptColumns", "TreeModel", "attention_windows", "probe_prompts", "usable_context"]

_PROBE_TRUNK = 6


class KeptColumns(Protocol):
    """Keys and values of a batch of trees."""

    def keep(self, rows: torch.Tensor, columns: torch.Tensor, capacity: int) -> None:
        """Keep the columns int64[D', C'] of the rows int64[D']; room for `capacity` columns."""


Cache = TypeVar("Cache", bound=KeptColumns)


class TreeModel(ABC, Generic[Cache]):
    """A causal language model that computes several prompts in one row.

    Args:
        name: its type, for messages.
        dtype: of attention masks.
        vocabulary: tokens that it knows.
        context: positions that it was made for; None for no limit.
        windows: see `attention_windows`.
    """

    def __init__(
        self,
        name: str,
        *,
        dtype: torch.dtype,
        vocabulary: int,
        context: int | None,
        windows: dict[str, int],
    ) -> None:
        self.dtype = dtype
        self.vocabulary = vocabulary
        self.context = context
        self._name = name
        self._windows = windows

    @abstractmethod
    def label_logits(self, layout: TreeLayout, label_ids: list[int]) -> np.ndarray:
        """Logits of the labels after each branch, float32[D, K, L]."""

    @abstractmethod
    def prefill(self, layout: TreeLayout, steps: int) -> tuple[torch.Tensor, Cache]:
        """Logits after each branch, [D * K, V], and a cache with room for `steps` tokens more."""

    @abstractmethod
    def forward(
        self, inputs: TreeTokens, cache: Cache | None, wanted: torch.Tensor
    ) -> torch.Tensor:
        """Logits after some of the tokens.

        Args:
            inputs: the tokens, int64[D, Q] and what they may see.
            cache: of the columns before them, to which they are added.
            wanted: int64[N], flat indices of the tokens whose logits are needed.

        Returns:
            [N, V], good until the next call.
        """

    def verify(self, plain: torch.Tensor, tolerance: float) -> None:
        """Compute the probe prompts as a tree, their last tokens in a step of their own.

        Args:
            plain: logits after each of `probe_prompts` alone, [2, V].
            tolerance: largest difference, in standard deviations of the logits.

        Raises:
            EngineError: they differ by more.
        """
        try:
            difference = (self._probe_tree() - plain).abs() / plain.std(-1, keepdim=True)
        except (RuntimeError, ValueError, TypeError, AttributeError, IndexError) as error:
            problem = f"{type(error).__name__}: {error}"
        else:
            if float(difference.max()) <= tolerance:
                return
            problem = "prompts that share a document do not get the logits they get alone"
        raise EngineError(
            f"models of type '{self._name}' cannot share a document between prompts ({problem}). "
            "Use a decoder with ordinary attention, such as Llama, Qwen or Gemma."
        )

    def window_matters(self, positions: torch.Tensor) -> bool:
        """Whether a sliding window hides something from tokens at these positions."""
        return bool(self._windows) and int(positions.max()) >= min(self._windows.values())

    def windowed(self, inputs: TreeTokens) -> dict[str, torch.Tensor]:
        """The mask of each kind of layer that has a window."""
        distance = inputs.positions[:, None, :, None] - inputs.column_positions[:, None, None, :]
        hidden = torch.finfo(inputs.mask.dtype).min
        return {
            kind: inputs.mask.masked_fill(distance >= window, hidden)
            for kind, window in self._windows.items()
        }

    def _probe_tree(self) -> torch.Tensor:
        first, second = probe_prompts(self.vocabulary)
        trunk = first[:_PROBE_TRUNK]
        leaves = [first[_PROBE_TRUNK:-1], second[_PROBE_TRUNK:-1]]
        layout = lay_out([Tree(trunk, leaves, [0, 1], [0, 1])], first[0])
        _, cache = self.prefill(layout, 1)
        own = torch.eye(2, dtype=torch.bool)[None]
        visible = torch.cat([torch.from_numpy(layout.branch_visible), own], -1)
        positions = torch.from_numpy(layout.branch_position)
        column_positions = torch.cat([torch.from_numpy(layout.positions), positions], -1)
        inputs = TreeTokens(
            torch.tensor([[first[-1], second[-1]]]),
            positions,
            additive(visible, self.dtype),
            column_positions,
        )
        return self.forward(inputs, cache, torch.arange(2)).float()


def probe_prompts(vocabulary: int) -> list[list[int]]:
    """Two prompts that begin alike and differ in length."""
    ids = [(7 * i + 11) % vocabulary for i in range(24)]
    return [ids[:12], ids[:_PROBE_TRUNK] + ids[14:24]]


def usable_context(config: Any) -> int | None:
    """Positions that a model takes; None for no limit.

    Longrope has other rotary factors for all prompts of a batch as soon as one of them is longer
    than the original context; so that a prompt does not depend on its neighbours, none may be.

    Args:
        config: of the language model, as transformers reads it.
    """
    limit: int | None = getattr(config, "max_position_embeddings", None)
    parameters = getattr(config, "rope_parameters", None) or {}
    for rope in (parameters, *(part for part in parameters.values() if isinstance(part, dict))):
        if rope.get("rope_type") == "longrope":
            original = rope.get("original_max_position_embeddings") or getattr(
                config, "original_max_position_embeddings", None
            )
            limit = min((n for n in (limit, original) if n is not None), default=None)
    return limit


def attention_windows(config: Any) -> dict[str, int]:
    """Window of each kind of layer that has one; the kind is "" where all layers are alike.

    Args:
        config: of the language model, as transformers reads it.

    Raises:
        EngineError: some layers are of a kind without ordinary attention.
    """
    kinds = set(getattr(config, "layer_types", None) or ())
    kinds |= set(getattr(config, "attention_layers", None) or ()) - {"global"}
    window = getattr(config, "sliding_window", None)
    if kinds - {"full_attention", "sliding_attention"}:
        raise EngineError(
            f"models of type '{config.model_type}' cannot share a document between prompts: they "
            f"have layers of kind {sorted(kinds)}. Use a decoder with ordinary attention."
        )
    if kinds:
        return {"sliding_attention": int(window)} if "sliding_attention" in kinds and window else {}
    return {"": int(window)} if window and getattr(config, "use_sliding_window", True) else {}
