"""The tensorrt_llm backend: NVIDIA's engine, by its LLM API of 1.x, in a worker process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa

from ssra_engine.engines.engine import Sampling
from ssra_engine.engines.worker_engine import WorkerEngine
from ssra_engine.errors import EngineError

__all__ = ["TensorRtLlmEngine"]


class TensorRtLlmEngine(WorkerEngine):
    """A causal language model in TensorRT-LLM; see `WorkerEngine` for the arguments.

    Quantised weights (fp8, int4) come as ModelOpt checkpoints, which are taken as they are.
    """

    name = "tensorrt_llm"

    def generate_batches(
        self, batches: Iterable[pa.RecordBatch], sampling: Sampling
    ) -> Iterator[pa.RecordBatch]:
        """See `WorkerEngine.generate_batches`.

        Raises:
            EngineError: also, `sampling` sets a minimal length.
        """
        if sampling.min_new_tokens:
            raise EngineError(
                "the tensorrt_llm backend cannot hold back stop tokens: min_new_tokens must be 0."
            )
        return super().generate_batches(batches, sampling)

    def limits(self) -> tuple[str, ...]:
        """See `Engine.limits`."""
        return (
            *super().limits(),
            "There is no minimal length of completions.",
            "Draws come from one stream of random numbers for all requests: a completion depends "
            "on its neighbours, and a run cannot be repeated draw for draw.",
        )
