"""The frame of engines that tokenise here: batches of requests in, rows of the protocol out.

What stays with a backend is the middle: logits of labels after some prompts, and completions of
some, both in token ids.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa

from ssra_engine.engines.completions import (
    Draws,
    check_sampling,
    completion_rows,
    distinct_columns,
    plan_draws,
)
from ssra_engine.engines.decoding import Decoded
from ssra_engine.engines.engine import Engine, Sampling, scored_schema
from ssra_engine.engines.scheduler import Prompts, Tree, read_prompts
from ssra_engine.engines.stopping import StopRules
from ssra_engine.models.prompt_tokens import PromptTokens

__all__ = ["PromptEngine"]


class PromptEngine(Engine):
    """An engine whose model takes and gives token ids.

    Args:
        tokens: tokenises prompts and labels.
        end_ids: tokens that end a completion.
        vocabulary: tokens that the model knows.
    """

    def __init__(self, tokens: PromptTokens, end_ids: Sequence[int], vocabulary: int) -> None:
        super().__init__()
        self._tokens = tokens
        self._end_ids = list(end_ids)
        self._vocabulary = max(vocabulary, tokens.vocabulary)
        self._pieces: list[str] = []
        self._rules: dict[tuple[str, ...], StopRules] = {}

    @abstractmethod
    def distinct_scores(
        self, prompts: Prompts, request: np.ndarray, label_ids: list[int]
    ) -> np.ndarray:
        """Logits of L labels after the prompts of `request`, int64[N]: float32[N, L]."""

    @abstractmethod
    def complete_prompts(
        self, prompts: Prompts, draws: Draws, sampling: Sampling, rules: StopRules
    ) -> Decoded:
        """The completions of `draws`, in their order."""

    def score_batches(
        self, batches: Iterable[pa.RecordBatch], labels: Sequence[str | int]
    ) -> Iterator[pa.RecordBatch]:
        """See `Engine.score_batches`."""
        label_ids = self._tokens.label_ids(labels)
        for batch in batches:
            started = time.perf_counter()
            logits = self.score_prompts(read_prompts(batch, self._tokens), label_ids)
            self.stats.requests += batch.num_rows
            self.stats.seconds += time.perf_counter() - started
            values = pa.FixedSizeListArray.from_arrays(pa.array(logits.ravel()), len(labels))
            yield pa.RecordBatch.from_arrays([values], schema=scored_schema(len(labels)))

    def generate_batches(
        self, batches: Iterable[pa.RecordBatch], sampling: Sampling
    ) -> Iterator[pa.RecordBatch]:
        """See `Engine.generate_batches`.

        A completion's `token_ids` and `logprob` include the token that ended it. `logprob` is that
        of the model itself, whatever the temperature.
        """
        check_sampling(sampling)
        for batch in batches:
            started = time.perf_counter()
            prompts = read_prompts(batch, self._tokens)
            draws = plan_draws(prompts, batch.column("seed").to_numpy().astype(np.uint64), sampling)
            rules = self._stop_rules(sampling.stop)
            decoded = self.complete_prompts(prompts, draws, sampling, rules)
            rows = completion_rows(decoded, draws, rules, self._tokens)
            self.stats.requests += batch.num_rows
            self.stats.generated_tokens += int(decoded.length.sum())
            self.stats.seconds += time.perf_counter() - started
            yield rows

    def score_prompts(self, prompts: Prompts, label_ids: list[int]) -> np.ndarray:
        """Logits of the labels after each of R prompts, float32[R, L]; identical prompts once."""
        first, again = distinct_columns(np.stack([prompts.prefix, prompts.suffix]))
        scores: np.ndarray = self.distinct_scores(prompts, first, label_ids)[again]
        return scores

    def end_rules(self, end_ids: Sequence[int]) -> StopRules:
        """Rules by which a completion ends with one of `end_ids` and nothing else."""
        return StopRules(self._tokens, (), end_ids, (), self._vocabulary)

    def _stop_rules(self, stop: tuple[str, ...]) -> StopRules:
        if stop not in self._rules:
            if stop and not self._pieces:
                self._pieces = self._tokens.pieces()
            pieces = self._pieces if stop else ()
            self._rules[stop] = StopRules(
                self._tokens, pieces, self._end_ids, stop, self._vocabulary
            )
        return self._rules[stop]

    def _count(self, prompts: Prompts, trees: Sequence[Tree]) -> None:
        """Add to the statistics what `trees` computed of `prompts`."""
        total = prompts.tokens()
        computed = sum(len(tree.prefix) + tree.suffix_tokens for tree in trees)
        self.stats.prompt_tokens += total
        self.stats.shared_tokens += total - computed
