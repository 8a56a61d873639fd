"""Our own torch engine in a process of its own: what the worker protocol is tested with."""

from __future__ import annotations

from ssra_engine.engines.worker_engine import WorkerEngine


class TorchWorkerEngine(WorkerEngine):
    name = "torch"
    scoring_draws = 0
