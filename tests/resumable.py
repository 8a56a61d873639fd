"""A run with every kind of step, small enough to be interrupted many times."""

from __future__ import annotations

from pathlib import Path

from ssra_engine.config import load_config
from ssra_engine.roles import fake_roles
from ssra_engine.run import run


def run_here(folder: Path, documents: int, shard_documents: int, rounds: int = 1) -> None:
    """From ``folder/corpus.arrow`` to ``folder/out``, with the fake engine."""
    config = load_config(
        overrides={
            "refine.rounds": rounds,
            "refine.documents": documents // 3,
            "synthesize.attempts": 2,
            "output.shard_documents": shard_documents,
        }
    )
    run(config, [folder / "corpus.arrow"], fake_roles(config.grades), folder / "out")
