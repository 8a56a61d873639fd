"""A causal language model that computes token trees: the forward passes of the torch engine."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from ssra_engine.engines.token_tree import TreeLayout, TreeTokens, additive
from ssra_engine.engines.tree_attention import ATTENTION, TreeCache
from ssra_engine.engines.tree_model import (
    TreeModel,
    attention_windows,
    probe_prompts,
    usable_context,
)

__all__ = ["CausalTreeModel", "PickingHead", "plain_logits"]

#: Largest difference from separate prompts, in standard deviations of the logits.
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.5}


class CausalTreeModel(TreeModel[TreeCache]):
    """Logits of token trees, for any transformers causal language model.

    Raises:
        EngineError: the architecture cannot compute several prompts in one row (it has no
            attention, or takes no custom mask); a short computation at the start finds out.
    """

    def __init__(self, model: Any) -> None:
        config = model.config.get_text_config(decoder=True)
        super().__init__(
            str(config.model_type),
            dtype=model.dtype,
            vocabulary=config.vocab_size,
            context=usable_context(config),
            windows=attention_windows(config),
        )
        self.model = model
        self.layers: int = config.num_hidden_layers
        plain = plain_logits(model)
        self._head = PickingHead(model.get_output_embeddings())
        model.set_output_embeddings(self._head)
        # A model whose attention cannot be exchanged gets the whole mask and its own attention.
        self._owns_attention = bool(model._can_set_attn_implementation())
        if self._owns_attention:
            model.set_attn_implementation(ATTENTION)
        self.verify(plain, _TOLERANCE.get(self.dtype, 0.5))

    def label_logits(self, layout: TreeLayout, label_ids: list[int]) -> np.ndarray:
        """See `TreeModel.label_logits`; computes only those rows of the head."""
        self._head.labels = torch.tensor(label_ids)
        try:
            logits = self._forward_layout(layout, None)
        finally:
            self._head.labels = None
        return logits.view(*layout.branch.shape, -1).numpy()

    def prefill(self, layout: TreeLayout, steps: int) -> tuple[torch.Tensor, TreeCache]:
        """See `TreeModel.prefill`."""
        room = layout.tokens.shape[1] + steps * layout.branch.shape[1]
        cache = TreeCache(self.layers, room)
        return self._forward_layout(layout, cache), cache

    def forward(
        self, inputs: TreeTokens, cache: TreeCache | None, wanted: torch.Tensor
    ) -> torch.Tensor:
        """See `TreeModel.forward`; [N, L] while labels are scored."""
        self._head.wanted = wanted
        with torch.inference_mode():
            output = self.model(
                input_ids=inputs.tokens,
                attention_mask=self._masks(inputs),
                position_ids=inputs.positions,
                past_key_values=cache,
                use_cache=cache is not None,
            )
        logits: torch.Tensor = output.logits[0]
        return logits

    def _forward_layout(self, layout: TreeLayout, cache: TreeCache | None) -> torch.Tensor:
        tokens, positions = torch.from_numpy(layout.tokens), torch.from_numpy(layout.positions)
        plain_prefix = self._owns_attention and not self.window_matters(positions)
        visible = torch.from_numpy(layout.visible(layout.prefix_columns if plain_prefix else 0))
        columns = torch.from_numpy(layout.branch_column)
        wanted = columns + torch.arange(len(columns))[:, None] * tokens.shape[1]
        inputs = TreeTokens(tokens, positions, additive(visible, self.dtype), positions)
        return self.forward(inputs, cache, wanted.flatten())

    def _masks(self, inputs: TreeTokens) -> torch.Tensor | dict[str, torch.Tensor]:
        """The mask, or one for each kind of layer where sliding windows hide something."""
        if not self.window_matters(inputs.positions):
            return inputs.mask
        masks = self.windowed(inputs)
        return masks.get("", {"full_attention": inputs.mask, **masks})


class PickingHead(nn.Module):
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


def plain_logits(model: Any) -> torch.Tensor:
    """Logits after each of `probe_prompts`, as any user of transformers would compute them."""
    prompts = probe_prompts(model.config.get_text_config(decoder=True).vocab_size)
    with torch.inference_mode():
        rows = [model(torch.tensor([ids])).logits[0, -1] for ids in prompts]
    return torch.stack(rows).float()
