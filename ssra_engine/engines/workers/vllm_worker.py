"""vLLM behind the pipes of a worker."""

from __future__ import annotations

import os
from typing import Any

__all__ = ["open_model"]

_SEED_BITS = 2**63 - 1

Prompt = tuple[list[int], list[int]]


def open_model(options: dict[str, Any]) -> _Model:
    """Open ``options["folder"]`` with vLLM's offline engine."""
    # One process is one to watch; with several GPUs vLLM starts more whatever this says.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    import vllm

    llm = vllm.LLM(
        model=options["folder"],
        skip_tokenizer_init=True,
        generation_config="vllm",
        trust_remote_code=options["trust_remote_code"],
        tensor_parallel_size=options["tensor_parallel"],
        dtype=options["dtype"],
        max_model_len=options["max_context_tokens"],
        max_num_batched_tokens=options["batch_tokens"],
        gpu_memory_utilization=options["memory"] or 0.9,
        enable_prefix_caching=options["block_reuse"],
    )
    return _Model(llm, vllm.SamplingParams, vllm.__version__)


class _Model:
    def __init__(self, llm: Any, sampling_params: Any, version: str) -> None:
        self._llm = llm
        self._params = sampling_params
        self._version = version

    def about(self) -> dict[str, Any]:
        return {"version": self._version}

    def score(self, prompts: list[Prompt], label_ids: list[int]) -> list[list[float]]:
        # A label asked for twice would be one key of the answer.
        params = self._params(
            max_tokens=1,
            temperature=0.0,
            logprob_token_ids=sorted(set(label_ids)),
            ignore_eos=True,
            detokenize=False,
        )
        answers = self._run(prompts, [params] * len(prompts))
        found = [answer.outputs[0].logprobs[0] for answer in answers]
        return [[row[label].logprob for label in label_ids] for row in found]

    def generate(
        self, prompts: list[Prompt], seeds: list[int], settings: dict[str, Any]
    ) -> list[tuple[list[int], list[float]]]:
        params = [
            self._params(
                max_tokens=settings["max_new_tokens"],
                min_tokens=settings["min_new_tokens"],
                temperature=settings["temperature"],
                top_p=settings["top_p"],
                stop_token_ids=settings["stop_ids"],
                seed=seed & _SEED_BITS,
                logprobs=0,
                ignore_eos=True,
                detokenize=False,
            )
            for seed in seeds
        ]
        drawn = []
        for answer in self._run(prompts, params):
            tokens = list(answer.outputs[0].token_ids)
            steps = answer.outputs[0].logprobs
            logprobs = [step[token].logprob for token, step in zip(tokens, steps, strict=True)]
            drawn.append((tokens, logprobs))
        return drawn

    def _run(self, prompts: list[Prompt], params: list[Any]) -> list[Any]:
        whole = [{"prompt_token_ids": prefix + suffix} for prefix, suffix in prompts]
        answers: list[Any] = self._llm.generate(whole, sampling_params=params, use_tqdm=False)
        return answers
