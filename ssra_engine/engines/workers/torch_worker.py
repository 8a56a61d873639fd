"""Our own torch engine behind the pipes of a worker: what the protocol is tested with."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ssra_engine.engines.completions import Draws
from ssra_engine.engines.engine import Sampling
from ssra_engine.engines.scheduler import Prompts
from ssra_engine.engines.torch_engine import TorchEngine

__all__ = ["open_model"]

Prompt = tuple[list[int], list[int]]


def open_model(options: dict[str, Any]) -> _Model:
    """Open the torch engine on ``options["folder"]`` with the dtype and batch size of the others.

    Raises:
        EngineError: it cannot be opened.
    """
    return _Model(
        TorchEngine(options["folder"], dtype=options["dtype"], batch_tokens=options["batch_tokens"])
    )


class _Model:
    def __init__(self, engine: TorchEngine) -> None:
        self._engine = engine

    def about(self) -> dict[str, Any]:
        return {"version": torch.__version__, "notes": self._engine.stats.notes}

    def score(self, prompts: list[Prompt], label_ids: list[int]) -> list[list[float]]:
        logits: list[list[float]] = self._engine.score_prompts(_index(prompts), label_ids).tolist()
        return logits

    def generate(
        self, prompts: list[Prompt], seeds: list[int], settings: dict[str, Any]
    ) -> list[tuple[list[int], list[float]]]:
        rules = self._engine.end_rules(settings.pop("stop_ids"))
        every = np.arange(len(prompts))
        draws = Draws(every, np.array(seeds, np.uint64), every, 1)
        sampling = Sampling(**settings)
        decoded = self._engine.complete_prompts(_index(prompts), draws, sampling, rules)
        return [
            (decoded.tokens[row, :end].tolist(), decoded.logprobs[row, :end].tolist())
            for row, end in enumerate(decoded.length)
        ]


def _index(prompts: list[Prompt]) -> Prompts:
    """The same prompts, each distinct part once."""
    prefixes = {tuple(prefix): 0 for prefix, _ in prompts}
    suffixes = {tuple(suffix): 0 for _, suffix in prompts}
    for places in (prefixes, suffixes):
        places.update((part, place) for place, part in enumerate(list(places)))
    return Prompts(
        [list(part) for part in prefixes],
        [list(part) for part in suffixes],
        np.array([prefixes[tuple(prefix)] for prefix, _ in prompts], np.int64),
        np.array([suffixes[tuple(suffix)] for _, suffix in prompts], np.int64),
    )
