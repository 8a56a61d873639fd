"""The vllm backend: vLLM's offline engine in a worker process, on a GPU or a CPU."""

from __future__ import annotations

from ssra_engine.engines.worker_engine import WorkerEngine

__all__ = ["VllmEngine"]


class VllmEngine(WorkerEngine):
    """A causal language model in vLLM; see `WorkerEngine` for the arguments.

    Scores of labels are log-probabilities: logits up to a constant of the row. Completions are
    drawn by vLLM with the seeds of their requests, so they differ from those of the torch engine.
    """

    name = "vllm"

    def limits(self) -> tuple[str, ...]:
        """See `Engine.limits`."""
        return (
            *super().limits(),
            "Draws repeat on the same device and version only.",
            "On a GPU, a minimal length cannot hold back more than 128 tokens that end a text.",
        )
