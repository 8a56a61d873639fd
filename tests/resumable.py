"""A run with every kind of step, small enough to be interrupted many times."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ssra_engine.config import load_config
from ssra_engine.roles import fake_roles
from ssra_engine.run import run
from ssra_engine.section import Section

__all__ = ["assert_same", "results", "run_half", "run_here"]


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


def run_half(folder: Path, documents: int, shard_documents: int) -> None:
    """As `run_here`, but stopped before the end of the final section is recorded."""
    end = Section.end

    def stop(section: Section, **facts: Any) -> None:
        if section.name == "final":
            raise KeyboardInterrupt
        end(section, **facts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Section, "end", stop)
        with pytest.raises(KeyboardInterrupt):
            run_here(folder, documents, shard_documents)


def results(out: Path) -> dict[str, Any]:
    """Everything that must not depend on interruptions."""
    found: dict[str, Any] = {
        str(path.relative_to(out)): pq.read_table(path) for path in out.rglob("*.parquet")
    }
    for path in out.rglob("weights.txt"):
        found[str(path.relative_to(out))] = path.read_text()
    summary = json.loads((out / "summary.json").read_text())
    del summary["timing"]
    found["summary"] = summary
    found["files"] = sorted(
        str(path.relative_to(out)) for path in out.rglob("*") if path.name != "run.log"
    )
    return found


def assert_same(got: dict[str, Any], expected: dict[str, Any]) -> None:
    """Compare `results`."""
    assert got.keys() == expected.keys()
    for name, result in expected.items():
        same = got[name].equals(result) if isinstance(result, pa.Table) else got[name] == result
        assert same, name
