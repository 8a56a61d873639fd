"""Inference engines: `load_engine` opens a model folder with one of the backends."""

from __future__ import annotations

from ssra_engine.engines.engine import Completion, Engine, EngineStats, Request, Sampling

__all__ = ["Completion", "Engine", "EngineStats", "Request", "Sampling"]
