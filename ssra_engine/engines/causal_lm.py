"""A causal language model that computes token trees: the forward passes of the torch engine."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from ssra_engine.engines.scheduler import Tree
from ssra_engine.engines.token_tree import TreeLayout, TreeTokens, additive, lay_out
from ssra_engine.engines.tree_attention import ATTENTION, TreeCache
from ssra_engine.errors import EngineError

__all__ = ["TreeModel"]

#: Largest difference from separate prompts, in standard deviations of the logits.
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.5}
_PROBE_TRUNK = 6


class TreeModel:
    """Logits of token trees, for any transformers causal language model.

    Raises:
        EngineError: the architecture cannot compute several prompts in one row (it has no
            attention, or takes no custom mask); a short computation at the start finds out.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        config = model.config.get_text_config(decoder=True)
        self.dtype: torch.dtype = model.dtype
        self.layers: int = config.num_hidden_layers
        self.vocabulary: int = config.vocab_size
        self.context: int | None = getattr(config, "max_position_embeddings", None)
        self._name = str(config.model_type)
        self._windows = _attention_windows(config)
        plain = self._plain_logits(_probe_prompts(self.vocabulary))
        self._head = _PickingHead(model.get_output_embeddings())
        model.set_output_embeddings(self._head)
        # A model whose attention cannot be exchanged gets the whole mask and its own attention.
        self._owns_attention = bool(model._can_set_attn_implementation())
        if self._owns_attention:
            model.set_attn_implementation(ATTENTION)
        self._verify(plain)

    def label_logits(self, layout: TreeLayout, label_ids: list[int]) -> np.ndarray:
        """Logits of the labels after each branch, float32[D, K, L]; only those rows of the head."""
        self._head.labels = torch.tensor(label_ids)
        try:
            logits = self._forward_layout(layout, None)
        finally:
            self._head.labels = None
        return logits.view(*layout.branch.shape, -1).numpy()

    def prefill(self, layout: TreeLayout, steps: int) -> tuple[torch.Tensor, TreeCache]:
        """Logits after each branch, [D * K, V], and a cache with room for `steps` tokens more."""
        room = layout.tokens.shape[1] + steps * layout.branch.shape[1]
        cache = TreeCache(self.layers, room)
        return self._forward_layout(layout, cache), cache

    def forward(
        self, inputs: TreeTokens, cache: TreeCache | None, wanted: torch.Tensor
    ) -> torch.Tensor:
        """Logits after some of the tokens.

        Args:
            inputs: the tokens, int64[D, Q] and what they may see.
            cache: of the columns before them, to which they are added.
            wanted: int64[N], flat indices of the tokens whose logits are needed.

        Returns:
            [N, V], or [N, L] while labels are scored.
        """
        self._head.wanted = wanted
        with torch.inference_mode():
            output = self.model(
                input_ids=inputs.tokens,
                attention_mask=self._windowed(inputs),
                position_ids=inputs.positions,
                past_key_values=cache,
                use_cache=cache is not None,
            )
        logits: torch.Tensor = output.logits[0]
        return logits

    def _forward_layout(self, layout: TreeLayout, cache: TreeCache | None) -> torch.Tensor:
        tokens, positions = torch.from_numpy(layout.tokens), torch.from_numpy(layout.positions)
        plain_prefix = self._owns_attention and not self._window_matters(positions)
        visible = torch.from_numpy(layout.visible(layout.prefix_columns if plain_prefix else 0))
        columns = torch.from_numpy(layout.branch_column)
        wanted = columns + torch.arange(len(columns))[:, None] * tokens.shape[1]
        inputs = TreeTokens(tokens, positions, additive(visible, self.dtype), positions)
        return self.forward(inputs, cache, wanted.flatten())

    def _window_matters(self, positions: torch.Tensor) -> bool:
        return bool(self._windows) and int(positions.max()) >= min(self._windows.values())

    def _windowed(self, inputs: TreeTokens) -> torch.Tensor | dict[str, torch.Tensor]:
        """The mask, or one for each kind of layer where sliding windows hide something."""
        mask = inputs.mask
        if not self._window_matters(inputs.positions):
            return mask
        distance = inputs.positions[:, None, :, None] - inputs.column_positions[:, None, None, :]
        hidden = torch.finfo(mask.dtype).min
        masks = {
            kind: mask.masked_fill(distance >= window, hidden)
            for kind, window in self._windows.items()
        }
        return masks.get("", {"full_attention": mask, **masks})

    def _plain_logits(self, prompts: list[list[int]]) -> torch.Tensor:
        """Logits after each prompt, computed as any user of transformers would."""
        with torch.inference_mode():
            rows = [self.model(torch.tensor([ids])).logits[0, -1] for ids in prompts]
        return torch.stack(rows).float()

    def _verify(self, plain: torch.Tensor) -> None:
        """Compute the probe prompts as a tree, their last tokens in a step of their own."""
        try:
            difference = (self._probe_tree() - plain).abs() / plain.std(-1, keepdim=True)
        except (RuntimeError, ValueError, TypeError, AttributeError, IndexError) as error:
            problem = f"{type(error).__name__}: {error}"
        else:
            if float(difference.max()) <= _TOLERANCE.get(self.dtype, 0.5):
                return
            problem = "prompts that share a document do not get the logits they get alone"
        raise EngineError(
            f"models of type '{self._name}' cannot share a document between prompts ({problem}). "
            "Use a decoder with ordinary attention, such as Llama, Qwen or Gemma."
        )

    def _probe_tree(self) -> torch.Tensor:
        first, second = _probe_prompts(self.vocabulary)
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


class _PickingHead(nn.Module):
    """The model's own head, for some positions and perhaps some tokens only.

    In its place the model still applies what comes after the head (a soft limit, a scale).
    """

    def __init__(self, head: nn.Linear) -> None:
        super().__init__()
        self.head = head
        self.wanted: torch.Tensor | None = None
        self.labels: torch.Tensor | None = None

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """[D, C, width] to [1, N, V or L]."""
        assert self.wanted is not None
        picked = hidden.reshape(-1, hidden.shape[-1])[self.wanted]
        if self.labels is None:
            return self.head(picked)[None]  # type: ignore[no-any-return]
        # In float32 even where the model is bfloat16: there its logits would have three digits.
        bias = None if self.head.bias is None else self.head.bias[self.labels].float()
        weight = self.head.weight[self.labels].float()
        return nn.functional.linear(picked.float(), weight, bias)[None]


def _attention_windows(config: Any) -> dict[str, int]:
    """Window of each kind of layer that has one; the kind is "" where all layers are alike."""
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


def _probe_prompts(vocabulary: int) -> list[list[int]]:
    """Two prompts that begin alike and differ in length."""
    ids = [(7 * i + 11) % vocabulary for i in range(24)]
    return [ids[:12], ids[:_PROBE_TRUNK] + ids[14:24]]
