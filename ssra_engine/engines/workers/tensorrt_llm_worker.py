"""TensorRT-LLM behind the pipes of a worker, by its LLM API of 1.x."""

from __future__ import annotations

from typing import Any

__all__ = ["open_model"]

#: No end token of the engine's own: ends are stop tokens, since there may be several and they are
#: to be kept. (ignore_eos would set the stop tokens aside too.)
_NO_END = {"end_id": -1, "pad_id": 0}

_SEED_BITS = 2**63 - 1

Prompt = tuple[list[int], list[int]]


def open_model(options: dict[str, Any]) -> _Model:
    """Open ``options["folder"]`` with TensorRT-LLM's PyTorch backend."""
    # Importing it needs the NVIDIA driver, so not before it is asked for.
    import tensorrt_llm
    from tensorrt_llm.llmapi import KvCacheConfig

    llm = tensorrt_llm.LLM(
        model=options["folder"],
        skip_tokenizer_init=True,
        trust_remote_code=options["trust_remote_code"],
        tensor_parallel_size=options["tensor_parallel"],
        dtype=options["dtype"],
        max_seq_len=options["max_context_tokens"],
        max_input_len=options["max_context_tokens"],
        max_num_tokens=max(options["batch_tokens"], options["max_context_tokens"]),
        gather_generation_logits=True,
        kv_cache_config=KvCacheConfig(
            enable_block_reuse=options["block_reuse"],
            free_gpu_memory_fraction=options["memory"] or 0.9,
        ),
    )
    return _Model(llm, tensorrt_llm.SamplingParams, tensorrt_llm.__version__)


class _Model:
    def __init__(self, llm: Any, sampling_params: Any, version: str) -> None:
        self._llm = llm
        self._params = sampling_params
        self._version = version

    def about(self) -> dict[str, Any]:
        return {"version": self._version}

    def score(self, prompts: list[Prompt], label_ids: list[int]) -> list[list[float]]:
        # Context logits would copy prompt x vocabulary, and lack what the cache holds.
        params = self._params(
            max_tokens=1,
            temperature=0.0,
            return_generation_logits=True,
            detokenize=False,
            **_NO_END,
        )
        answers = self._run(prompts, [params] * len(prompts))
        logits = [answer.outputs[0].generation_logits[0, label_ids] for answer in answers]
        return [row.float().cpu().tolist() for row in logits]

    def generate(
        self, prompts: list[Prompt], seeds: list[int], settings: dict[str, Any]
    ) -> list[tuple[list[int], list[float]]]:
        params = [
            self._params(
                max_tokens=settings["max_new_tokens"],
                temperature=settings["temperature"],
                top_p=settings["top_p"],
                stop_token_ids=settings["stop_ids"],
                include_stop_str_in_output=True,
                seed=seed & _SEED_BITS,
                logprobs=1,
                detokenize=False,
                **_NO_END,
            )
            for seed in seeds
        ]
        drawn = []
        for answer in self._run(prompts, params):
            tokens = list(answer.outputs[0].token_ids)
            steps = answer.outputs[0].logprobs
            drawn.append((tokens, [_logprob(s, t) for t, s in zip(tokens, steps, strict=True)]))
        return drawn

    def _run(self, prompts: list[Prompt], params: list[Any]) -> list[Any]:
        whole = [{"prompt_token_ids": prefix + suffix} for prefix, suffix in prompts]
        answers: list[Any] = self._llm.generate(whole, sampling_params=params, use_tqdm=False)
        return answers


def _logprob(step: dict[int, Any], token: int) -> float:
    """Of the token drawn; some releases tell the most probable token's only."""
    return float(step[token].logprob) if token in step else float("nan")
