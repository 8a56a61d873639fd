"""Backends that run in a process of their own, in an interpreter of the user's choosing.

Everything around the model happens here, as for the torch engine: prompts become token ids, long
documents are cut, identical requests are asked once, completions end where their stop strings say.
The worker gets token ids and gives back logits of labels, or tokens with their log-probabilities.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ssra_engine.engines.checkpoint import prepare_checkpoint
from ssra_engine.engines.completions import Draws
from ssra_engine.engines.decoding import Decoded
from ssra_engine.engines.engine import Sampling
from ssra_engine.engines.prompt_engine import PromptEngine
from ssra_engine.engines.scheduler import Prompts, Tree, grow_trees
from ssra_engine.engines.stopping import StopRules
from ssra_engine.engines.worker_process import WorkerLimits, WorkerProcess
from ssra_engine.engines.workers import serve
from ssra_engine.errors import EngineError
from ssra_engine.models.prompt_tokens import PromptTokens

__all__ = ["WorkerEngine"]

#: Prompts in one message: enough to fill any card, few enough that one takes seconds.
_MESSAGE_PROMPTS = 4096
_MOST_CONTEXT = 8192
_TOKENS = pa.list_(pa.int32())


class WorkerEngine(PromptEngine):
    """A causal language model in a worker process. Backends are subclasses with a `name`.

    Args:
        folder: a model folder, or a GGUF file; see `prepare_checkpoint`.
        python: the interpreter that has the engine, by default this one.
        dtype: float32 or bfloat16; auto is bfloat16.
        batch_tokens: tokens that the engine computes at once.
        threads: of the worker's CPU work; None leaves it to the engine.
        tensor_parallel: GPUs that share the model.
        block_reuse: keep the cache of a document for the prompts that follow. Whether a prompt
            finds it there shifts its logits by rounding (NVIDIA/TensorRT-LLM issue 15503 saw up to
            0.16); False makes scores repeatable, and slower.
        memory: share of a GPU's memory to take, in (0, 1); None leaves it to the engine.
        max_document_tokens: a longer document is cut at its end.
        max_context_tokens: prompt and completion together, at most what the model was made for;
            default 8,192, since engines set memory aside for it.
        adapter: folder of a LoRA adapter, merged before the worker starts.
        trust_remote_code: run model code from the folder.
        start_seconds, batch_seconds, restarts: see `WorkerLimits`.

    Raises:
        EngineError: the model cannot be read, the interpreter cannot be run, or the worker cannot
            open the model.
    """

    #: The file of `workers` that serves it is ``NAME_worker.py``.
    name: str
    #: Tokens that the engine draws, and needs places for, to tell the logits after a prompt.
    scoring_draws = 1

    def __init__(
        self,
        folder: str | Path,
        *,
        python: str | Path | None = None,
        dtype: str = "auto",
        batch_tokens: int = 8192,
        threads: int | None = None,
        tensor_parallel: int = 1,
        block_reuse: bool = True,
        memory: float | None = None,
        max_document_tokens: int | None = None,
        max_context_tokens: int | None = None,
        adapter: str | Path | None = None,
        trust_remote_code: bool = False,
        start_seconds: float = WorkerLimits.start_seconds,
        batch_seconds: float = WorkerLimits.batch_seconds,
        restarts: int = WorkerLimits.restarts,
    ) -> None:
        if batch_tokens < 1:
            raise EngineError(f"batch_tokens must be at least 1, got {batch_tokens}.")
        if dtype not in ("auto", "float32", "bfloat16"):
            raise EngineError(f"dtype must be auto, float32 or bfloat16, got '{dtype}'.")
        dtype = "bfloat16" if dtype == "auto" else dtype
        checkpoint = prepare_checkpoint(
            folder, adapter=adapter, dtype=dtype, trust_remote_code=trust_remote_code
        )
        config, tokenizer = _open_tokenizer(checkpoint, trust_remote_code)
        super().__init__(
            PromptTokens(tokenizer, max_document_tokens),
            _end_ids(checkpoint, config, tokenizer),
            int(config.vocab_size),
        )
        limit = getattr(config, "max_position_embeddings", None) or _MOST_CONTEXT
        self._context: int = min(limit, max_context_tokens or _MOST_CONTEXT)
        places = min(limit, self._context + self.scoring_draws)
        self._scoring_reserve = self._context + self.scoring_draws - places
        self._process = WorkerProcess(
            self.name,
            [str(python or sys.executable), str(Path(serve.__file__)), self.name],
            {
                "folder": str(checkpoint),
                "dtype": dtype,
                "batch_tokens": batch_tokens,
                "max_context_tokens": places,
                "trust_remote_code": trust_remote_code,
                "tensor_parallel": tensor_parallel,
                "block_reuse": block_reuse,
                "memory": memory,
            },
            WorkerLimits(start_seconds, batch_seconds, restarts),
            {} if threads is None else {"OMP_NUM_THREADS": str(threads)},
        )
        about = self._process.about
        self.stats.notes += [f"{self.name} {about.get('version', '')}", *about.get("notes", ())]

    def limits(self) -> tuple[str, ...]:
        """See `Engine.limits`."""
        scored = self._context - self._scoring_reserve
        return (
            f"A prompt and its completion take at most {self._context} tokens, a prompt to be "
            f"scored at most {scored}.",
        )

    def close(self) -> None:
        """End the worker."""
        self._process.close()

    def distinct_scores(
        self, prompts: Prompts, request: np.ndarray, label_ids: list[int]
    ) -> np.ndarray:
        """See `PromptEngine.distinct_scores`; up to a constant of the row.

        Raises:
            EngineGoneError: the worker cannot be started again.
            EngineError: also, it failed more often than it may.
        """
        logits = np.empty((len(request), len(label_ids)), np.float32)
        about = {"call": "score", "label_ids": label_ids}
        schema = serve.scores_schema(len(label_ids))
        for branch, message in self._messages(prompts, request, None, self._scoring_reserve):
            answer = self._process.ask(about, message, schema)
            values = answer.column("logits").flatten().to_numpy(zero_copy_only=False)
            logits[branch] = values.reshape(len(branch), len(label_ids))
        return logits

    def complete_prompts(
        self, prompts: Prompts, draws: Draws, sampling: Sampling, rules: StopRules
    ) -> Decoded:
        """See `PromptEngine.complete_prompts`.

        Raises:
            EngineGoneError: the worker cannot be started again.
            EngineError: also, it failed more often than it may.
        """
        decoded = Decoded.empty(len(draws.request), sampling.max_new_tokens)
        settings = {
            "max_new_tokens": sampling.max_new_tokens,
            "min_new_tokens": sampling.min_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "stop_ids": rules.banned.tolist(),
        }
        about = {"call": "generate", "settings": settings}
        reserve = sampling.max_new_tokens
        for branch, message in self._messages(prompts, draws.request, draws.keys, reserve):
            answer = self._process.ask(about, message, serve.COMPLETIONS)
            _take(answer, branch, decoded)
        _end(decoded, rules, sampling.min_new_tokens)
        return decoded

    def _messages(
        self, prompts: Prompts, request: np.ndarray, keys: np.ndarray | None, reserve: int
    ) -> Iterator[tuple[np.ndarray, pa.RecordBatch]]:
        """Branches and their prompts, those of one document side by side."""
        trees = grow_trees(prompts, request, self._context, reserve)
        self._count(prompts, trees)
        part: list[Tree] = []
        for tree in trees:
            if part and sum(len(t.branch) for t in part) + len(tree.branch) > _MESSAGE_PROMPTS:
                yield _message(part, keys)
                part = []
            part.append(tree)
        if part:
            yield _message(part, keys)


def _message(trees: list[Tree], keys: np.ndarray | None) -> tuple[np.ndarray, pa.RecordBatch]:
    branch = np.array([number for tree in trees for number in tree.branch], np.int64)
    prefix = [place for place, tree in enumerate(trees) for _ in tree.branch]
    suffixes = [tree.suffixes[leaf] for tree in trees for leaf in tree.leaf]
    seeds = np.zeros(len(branch), np.uint64) if keys is None else keys[branch]
    message = pa.RecordBatch.from_arrays(
        [
            pa.DictionaryArray.from_arrays(
                pa.array(prefix, pa.int32()), pa.array([list(t.prefix) for t in trees], _TOKENS)
            ),
            pa.array(suffixes, _TOKENS),
            pa.array(seeds, pa.uint64()),
        ],
        names=["prefix", "suffix", "seed"],
    )
    return branch, message


def _take(answer: pa.RecordBatch, branch: np.ndarray, decoded: Decoded) -> None:
    """Copy the worker's completions to their places."""
    most = decoded.tokens.shape[1]
    columns = (answer.column(name).to_pylist() for name in ("token_ids", "logprobs"))
    for place, tokens, logprobs in zip(branch, *columns, strict=True):
        if not 1 <= len(tokens) == len(logprobs) <= most:
            raise EngineError(
                f"the worker drew {len(tokens)} tokens and {len(logprobs)} log-probabilities where "
                f"1 to {most} were asked for."
            )
        decoded.tokens[place, : len(tokens)] = tokens
        decoded.logprobs[place, : len(tokens)] = logprobs
        decoded.length[place] = len(tokens)


def _end(decoded: Decoded, rules: StopRules, least: int) -> None:
    """End each completion by our rules: an engine knows single tokens that stop, not strings."""
    for length in range(max(1, least), decoded.tokens.shape[1] + 1):
        branches = np.flatnonzero(~decoded.stopped & (decoded.length >= length))
        tokens = decoded.tokens[branches, length - 1]
        ended = branches[rules.ended(tokens, branches, decoded.tokens, length)]
        decoded.stopped[ended] = True
        decoded.length[ended] = length


def _open_tokenizer(folder: Path, trust_remote_code: bool) -> tuple[Any, Any]:
    """The configuration of the language model, and its tokenizer."""
    from transformers import AutoConfig, AutoTokenizer

    options = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    try:
        config = AutoConfig.from_pretrained(folder, **options).get_text_config(decoder=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
    except Exception as error:  # readers of broken files raise a dozen kinds
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise EngineError(f"{folder}: cannot be read as a language model: {reason}") from error
    if not getattr(tokenizer, "is_fast", False):
        raise EngineError(f"{folder}: needs a fast tokenizer (tokenizer.json).")
    return config, tokenizer


def _end_ids(folder: Path, config: Any, tokenizer: Any) -> list[int]:
    from transformers import GenerationConfig

    ids = {tokenizer.eos_token_id}
    sources = [config]
    if (folder / "generation_config.json").is_file():
        sources.append(GenerationConfig.from_pretrained(folder))
    for source in sources:
        value = getattr(source, "eos_token_id", None)
        ids.update(value if isinstance(value, list) else [value])
    return sorted(int(i) for i in ids if i is not None and 0 <= i < config.vocab_size)
