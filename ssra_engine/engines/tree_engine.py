"""The engine around a `TreeModel`: requests become trees, trees batches, batches logits.

Documents are computed once for all that is asked of them (`token_tree`), and batches are as large
as their tokens allow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ssra_engine.engines.completions import Draws
from ssra_engine.engines.decoding import Decoded, decode
from ssra_engine.engines.engine import Sampling
from ssra_engine.engines.prompt_engine import PromptEngine
from ssra_engine.engines.scheduler import Prompts, grow_trees, pack_trees
from ssra_engine.engines.stopping import StopRules
from ssra_engine.engines.token_tree import lay_out
from ssra_engine.engines.tree_model import TreeModel
from ssra_engine.errors import EngineError
from ssra_engine.models.prompt_tokens import PromptTokens

__all__ = ["TreeEngine"]

#: Scoring gains nothing from more tokens at once: their activations only leave the cache.
_SCORING_TOKENS = 2048


class TreeEngine(PromptEngine):
    """A causal language model on the CPU. Backends are subclasses with a `name`.

    Args:
        model: computes the logits.
        tokens: tokenises prompts and labels.
        end_ids: tokens that end a completion.
        batch_tokens: tokens in one batch, padding and tokens still to be generated included.
        max_context_tokens: prompt and completion together; default, what the model was made for.

    Raises:
        EngineError: an option is out of range.
    """

    def __init__(
        self,
        model: TreeModel[Any],
        tokens: PromptTokens,
        end_ids: Sequence[int],
        *,
        batch_tokens: int,
        max_context_tokens: int | None,
    ) -> None:
        super().__init__(tokens, end_ids, model.vocabulary)
        if batch_tokens < 1:
            raise EngineError(f"batch_tokens must be at least 1, got {batch_tokens}.")
        self._model = model
        self._pad_id = min(self._end_ids, default=0)
        limits = [n for n in (model.context, max_context_tokens) if n is not None]
        self._context = min(limits, default=None)
        self._batch_tokens = batch_tokens

    def limits(self) -> tuple[str, ...]:
        """See `Engine.limits`."""
        context = "any number of" if self._context is None else f"at most {self._context}"
        return (f"A prompt and its completion take {context} tokens.",)

    def distinct_scores(
        self, prompts: Prompts, request: np.ndarray, label_ids: list[int]
    ) -> np.ndarray:
        """See `PromptEngine.distinct_scores`."""
        logits = np.empty((len(request), len(label_ids)), np.float32)
        trees = grow_trees(prompts, request, self._context, 0)
        for batch in pack_trees(trees, min(self._batch_tokens, _SCORING_TOKENS), 0):
            layout = lay_out(batch, self._pad_id)
            real = layout.branch >= 0
            logits[layout.branch[real]] = self._model.label_logits(layout, label_ids)[real]
        self._count(prompts, trees)
        return logits

    def complete_prompts(
        self, prompts: Prompts, draws: Draws, sampling: Sampling, rules: StopRules
    ) -> Decoded:
        """See `PromptEngine.complete_prompts`."""
        decoded = Decoded.empty(len(draws.request), sampling.max_new_tokens)
        trees = grow_trees(prompts, draws.request, self._context, sampling.max_new_tokens)
        for batch in pack_trees(trees, self._batch_tokens, sampling.max_new_tokens):
            layout = lay_out(batch, self._pad_id)
            decode(self._model, layout, sampling, rules=rules, keys=draws.keys, decoded=decoded)
        self._count(prompts, trees)
        return decoded
