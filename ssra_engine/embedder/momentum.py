"""A copy of a model that follows it slowly (MoCo, arXiv 1911.05722)."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["MomentumCopy"]

# Texts of one forward pass; there is no gradient, so this costs little memory.
_ROWS = 128


class MomentumCopy:
    """A copy of a model without dropout, whose weights are a moving average of the model's.

    Weights that are frozen now are shared and not copied, so that the copy of a model with a LoRA
    costs little: add the LoRA before. Where the model's weights have less than 32 bits, its small
    steps may be lost in the average.

    Args:
        model: a SentenceTransformer.
        momentum: what a weight keeps of itself in a step; 1 never changes the copy, 0 makes it the
            model.

    Raises:
        ValueError: momentum is not within 0 and 1.
    """

    def __init__(self, model: Any, momentum: float) -> None:
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum must be within 0 and 1, got {momentum}")
        self.momentum = momentum
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        shared = {id(p): p for p in model.parameters() if not p.requires_grad}
        self._copy = copy.deepcopy(model, shared).requires_grad_(False).eval()
        copied = dict(self._copy.named_parameters())
        self._source = list(trained.values())
        self._weights = {name: copied[name] for name in trained}

    def follow(self) -> None:
        """Move a step towards the model as it is now."""
        if self._weights and self.momentum < 1:
            with torch.no_grad():
                torch._foreach_lerp_(
                    [weight.data for weight in self._weights.values()],
                    [weight.detach() for weight in self._source],
                    1 - self.momentum,
                )

    def embed(self, features: Mapping[str, Any]) -> Tensor:
        """Embeddings of tokenised texts, float32[B, D]; `features` stay as they are."""
        device = next(value.device for value in features.values() if isinstance(value, Tensor))
        self._copy.to(device)
        with torch.no_grad():
            parts = [self._copy(part)["sentence_embedding"] for part in _slices(features)]
        return torch.cat(parts).float()

    def state_dict(self) -> dict[str, Tensor]:
        """The weights that are not shared."""
        return {name: weight.detach().cpu() for name, weight in self._weights.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take weights of `state_dict`.

        Raises:
            ValueError: they are those of another model.
        """
        if {name: w.shape for name, w in state.items()} != {
            name: w.shape for name, w in self._weights.items()
        }:
            raise ValueError("the momentum copy was saved for a model with other weights")
        with torch.no_grad():
            for name, weight in self._weights.items():
                weight.copy_(state[name])


def _slices(features: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Copies of rows of features, since modules may write into them; all rows where none are."""
    mask = features.get("attention_mask")
    rows = 1 if mask is None else len(mask)
    for begin in range(0, rows, rows if mask is None else _ROWS):
        yield {
            name: _rows(value, mask, begin) if isinstance(value, Tensor) else value
            for name, value in features.items()
        }


def _rows(value: Tensor, mask: Tensor | None, begin: int) -> Tensor:
    if mask is not None and value.ndim and len(value) == len(mask):
        value = value[begin : begin + _ROWS]
    return value.clone()
