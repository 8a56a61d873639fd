"""What stands around the decoding of any backend: which completions to draw, and their rows.

Identical requests are drawn once, and a greedy request once whatever its n. The j-th completion of
a request is drawn with a key of its own, mixed from the request's seed and j.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ssra_engine.engines.decoding import Decoded
from ssra_engine.engines.engine import GENERATED, Sampling
from ssra_engine.engines.scheduler import Prompts
from ssra_engine.engines.stopping import StopRules
from ssra_engine.errors import EngineError
from ssra_engine.keys import mix
from ssra_engine.models.prompt_tokens import PromptTokens

__all__ = ["Draws", "check_sampling", "completion_rows", "distinct_columns", "plan_draws"]


@dataclass(frozen=True)
class Draws:
    """The B completions to draw for R requests, and which of them each row of the answer takes.

    Attributes:
        request: int64[B], the request that each completion belongs to.
        keys: uint64[B], see `sampling.draw`.
        taken: int64[R * n], the completion of each row, ordered by (request, sample).
        n: samples per request.
    """

    request: np.ndarray
    keys: np.ndarray
    taken: np.ndarray
    n: int


def plan_draws(prompts: Prompts, seeds: np.ndarray, sampling: Sampling) -> Draws:
    """Which completions to draw for requests with `seeds`, uint64[R]."""
    parts = np.stack([prompts.prefix, prompts.suffix, seeds.view(np.int64)])
    first, again = distinct_columns(parts[:2] if sampling.temperature == 0 else parts)
    draws = sampling.n if sampling.temperature > 0 else 1
    request = np.repeat(first, draws)
    keys = mix(seeds[request], np.tile(np.arange(draws), len(first)))
    sample = np.tile(np.arange(sampling.n), len(prompts))
    taken = np.repeat(again * draws, sampling.n) + np.minimum(sample, draws - 1)
    return Draws(request, keys, taken, sampling.n)


def completion_rows(
    decoded: Decoded, draws: Draws, rules: StopRules, tokens: PromptTokens
) -> pa.RecordBatch:
    """Rows of `GENERATED`, R * n of them."""
    rows = [ids[:end] for ids, end in zip(decoded.tokens.tolist(), decoded.length, strict=True)]
    texts = pa.array([rules.cut(text) for text in tokens.texts(rows)], pa.string())
    taken = pa.array(draws.taken)
    row = np.arange(len(draws.taken))
    return pa.RecordBatch.from_arrays(
        [
            pa.array((row // draws.n).astype(np.int32)),
            pa.array((row % draws.n).astype(np.int16)),
            texts.take(taken),
            pa.array(rows, pa.list_(pa.int32())).take(taken),
            pa.array(decoded.logprob[draws.taken].astype(np.float32)),
            pa.array(["length", "stop"]).take(
                pa.array(decoded.stopped[draws.taken].astype(np.int8))
            ),
        ],
        schema=GENERATED,
    )


def distinct_columns(parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First place of each distinct column of `parts`, and which of them each column is."""
    _, first, again = np.unique(parts, axis=1, return_index=True, return_inverse=True)
    return first, again.reshape(-1)


def check_sampling(sampling: Sampling) -> None:
    """Refuse settings out of range.

    Raises:
        EngineError: one is.
    """
    if sampling.n < 1 or sampling.max_new_tokens < 1:
        raise EngineError("n and max_new_tokens must be at least 1.")
    if not 0 <= sampling.min_new_tokens <= sampling.max_new_tokens:
        raise EngineError("min_new_tokens must lie between 0 and max_new_tokens.")
    if sampling.temperature < 0 or not 0 < sampling.top_p <= 1:
        raise EngineError("temperature must be at least 0, and top_p above 0 and at most 1.")
    if "" in sampling.stop:
        raise EngineError("a stop string must not be empty.")
