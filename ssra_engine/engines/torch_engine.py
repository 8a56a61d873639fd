"""The torch backend: always there, and the reference for the others.

Documents are computed once for all that is asked of them (`token_tree`), only the labels' rows of
the head are computed when scoring, and batches are as large as their tokens allow.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from ssra_engine.engines.causal_lm import TreeModel
from ssra_engine.engines.completions import (
    Draws,
    check_sampling,
    completion_rows,
    distinct_columns,
    plan_draws,
)
from ssra_engine.engines.decoding import Decoded, decode
from ssra_engine.engines.engine import Engine, Sampling, scored_schema
from ssra_engine.engines.scheduler import Prompts, Tree, grow_trees, pack_trees, read_prompts
from ssra_engine.engines.stopping import StopRules
from ssra_engine.engines.token_tree import lay_out
from ssra_engine.errors import EngineError
from ssra_engine.models.backbone import load_backbone
from ssra_engine.models.prompt_tokens import PromptTokens

__all__ = ["TorchEngine", "multiplies_bfloat16"]

#: Scoring gains nothing from more tokens at once: their activations only leave the cache.
_SCORING_TOKENS = 2048
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class TorchEngine(Engine):
    """A causal language model on the CPU.

    Args:
        folder: a model folder, or a GGUF file; see `load_backbone`.
        dtype: auto, float32 or bfloat16. auto is bfloat16 where the CPU multiplies it natively and
            float32 elsewhere. With bfloat16, label probabilities are off by up to about 0.03.
        batch_tokens: tokens in one batch, padding and tokens still to be generated included.
        threads: threads of torch (of the whole process); None leaves them as they are.
        max_document_tokens: a longer document is cut at its end.
        max_context_tokens: prompt and completion together; default, what the model was made for.
        adapter: folder of a LoRA adapter, merged when loading.
        trust_remote_code: run model code from the folder.

    Raises:
        EngineError: the folder is not a readable model, its architecture cannot share documents
            between prompts, or an option is out of range.
    """

    name = "torch"

    def __init__(
        self,
        folder: str | Path,
        *,
        dtype: str = "auto",
        batch_tokens: int = 8192,
        threads: int | None = None,
        max_document_tokens: int | None = None,
        max_context_tokens: int | None = None,
        adapter: str | Path | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        super().__init__()
        if batch_tokens < 1:
            raise EngineError(f"batch_tokens must be at least 1, got {batch_tokens}.")
        if threads is not None:
            torch.set_num_threads(threads)
        model, tokenizer = load_backbone(
            folder, _dtype(dtype), adapter=adapter, trust_remote_code=trust_remote_code
        )
        self._tokens = PromptTokens(tokenizer, max_document_tokens)
        self._end_ids = _end_ids(model, tokenizer)
        self._pad_id = min(self._end_ids, default=0)
        self._model = TreeModel(model)
        limits = [n for n in (self._model.context, max_context_tokens) if n is not None]
        self._context = min(limits, default=None)
        self._batch_tokens = batch_tokens
        self.stats.notes.append(_size(model))
        self._pieces: list[str] | None = None
        self._rules: dict[tuple[str, ...], StopRules] = {}

    def limits(self) -> tuple[str, ...]:
        """See `Engine.limits`."""
        context = "any number of" if self._context is None else f"at most {self._context}"
        return (f"A prompt and its completion take {context} tokens.",)

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
            seeds = batch.column("seed").to_numpy().astype(np.uint64)
            draws = plan_draws(prompts, seeds, sampling)
            rules = self._stop_rules(sampling.stop)
            decoded = self.complete_prompts(prompts, draws, sampling, rules)
            rows = completion_rows(decoded, draws, rules, self._tokens)
            self.stats.requests += batch.num_rows
            self.stats.seconds += time.perf_counter() - started
            yield rows

    def score_prompts(self, prompts: Prompts, label_ids: list[int]) -> np.ndarray:
        """Logits of the labels after each of R prompts, float32[R, L]."""
        first, again = distinct_columns(np.stack([prompts.prefix, prompts.suffix]))
        logits = np.empty((len(first), len(label_ids)), np.float32)
        trees = grow_trees(prompts, first, self._context, 0)
        for batch in pack_trees(trees, min(self._batch_tokens, _SCORING_TOKENS), 0):
            layout = lay_out(batch, self._pad_id)
            real = layout.branch >= 0
            logits[layout.branch[real]] = self._model.label_logits(layout, label_ids)[real]
        self._count(prompts, trees)
        scores: np.ndarray = logits[again]
        return scores

    def complete_prompts(
        self, prompts: Prompts, draws: Draws, sampling: Sampling, rules: StopRules
    ) -> Decoded:
        """The completions of `draws`, in their order."""
        decoded = Decoded.empty(len(draws.request), sampling.max_new_tokens)
        trees = grow_trees(prompts, draws.request, self._context, sampling.max_new_tokens)
        for batch in pack_trees(trees, self._batch_tokens, sampling.max_new_tokens):
            layout = lay_out(batch, self._pad_id)
            decode(self._model, layout, sampling, rules=rules, keys=draws.keys, decoded=decoded)
        self._count(prompts, trees)
        self.stats.generated_tokens += int(decoded.length.sum())
        return decoded

    def end_rules(self, end_ids: Sequence[int]) -> StopRules:
        """Rules by which a completion ends with one of `end_ids` and nothing else."""
        vocabulary = max(self._model.vocabulary, self._tokens.vocabulary)
        return StopRules(self._tokens, (), end_ids, (), vocabulary)

    def _stop_rules(self, stop: tuple[str, ...]) -> StopRules:
        if stop not in self._rules:
            if stop and self._pieces is None:
                self._pieces = self._tokens.pieces()
            pieces = self._pieces or () if stop else ()
            vocabulary = max(self._model.vocabulary, self._tokens.vocabulary)
            self._rules[stop] = StopRules(self._tokens, pieces, self._end_ids, stop, vocabulary)
        return self._rules[stop]

    def _count(self, prompts: Prompts, trees: Sequence[Tree]) -> None:
        total = prompts.tokens()
        computed = sum(len(tree.prefix) + tree.suffix_tokens for tree in trees)
        self.stats.prompt_tokens += total
        self.stats.shared_tokens += total - computed


def _size(model: Any) -> str:
    parameters = sum(parameter.numel() for parameter in model.parameters())
    megabytes = sum(p.numel() * p.element_size() for p in model.parameters()) / 2**20
    dtype = str(model.dtype).removeprefix("torch.")
    return f"{parameters / 1e6:.1f} million parameters in {dtype}, {megabytes:.0f} MiB"


def _dtype(name: str) -> torch.dtype:
    if name == "auto":
        return torch.bfloat16 if multiplies_bfloat16() else torch.float32
    if name not in _DTYPES:
        raise EngineError(f"dtype must be auto, {' or '.join(_DTYPES)}, got '{name}'.")
    return _DTYPES[name]


def multiplies_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 natively; elsewhere it is slower than float32."""
    # Older versions of torch lack one check or the other.
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, check, bool)() for check in checks)


def _end_ids(model: Any, tokenizer: Any) -> list[int]:
    ids = {tokenizer.eos_token_id}
    for config in (model.generation_config, model.config):
        value = getattr(config, "eos_token_id", None)
        ids.update(value if isinstance(value, list) else [value])
    vocabulary = model.get_output_embeddings().weight.shape[0]
    return sorted(int(i) for i in ids if i is not None and 0 <= i < vocabulary)
