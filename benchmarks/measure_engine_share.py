"""The share of a run's wall time that is spent inside the engines, and in it on tokenising.

    python benchmarks/measure_engine_share.py --engines engines --input world/corpus.arrow
        [--limit 10000] [--backend auto]

Runs the final synthesis without refinement, and counts from the first call of an engine to the end
of the last one; loading the models and the pass over all shards at the end are outside. The rest
is reading, filters, progress and waiting for the disk: all that could be gained by overlapping it
and tokenising with the models' work.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from ssra_engine.config import load_config
from ssra_engine.engine_folder import open_roles
from ssra_engine.engines import Engine
from ssra_engine.models.prompt_tokens import PromptTokens
from ssra_engine.run import run


@dataclass
class Clock:
    """When the first batch began and the last one ended, and the seconds inside batches."""

    began: float = 0.0
    ended: float = 0.0
    inside: dict[str, float] = field(default_factory=dict)
    tokenising: float = 0.0

    def time(self, role: str, call: Callable[..., Iterator[pa.RecordBatch]]) -> Any:
        """`call`, whose work between two of its batches is counted."""

        def timed(batches: Iterable[pa.RecordBatch], *rest: Any) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                start = time.perf_counter()
                self.began = self.began or start
                rows = list(call([batch], *rest))
                self.ended = time.perf_counter()
                self.inside[role] = self.inside.get(role, 0.0) + self.ended - start
                yield from rows

        return timed

    def time_tokenising(self) -> None:
        """Count the seconds of turning texts into tokens and back, from now on."""
        for name in ("prefixes", "suffixes", "texts"):
            setattr(PromptTokens, name, self._timed(getattr(PromptTokens, name)))

    def _timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any) -> Any:
            start = time.perf_counter()
            found = call(*given)
            self.tokenising += time.perf_counter() - start if self.began else 0.0
            return found

        return timed

    def watch(self, role: str, load: Callable[..., Engine]) -> Callable[..., Engine]:
        """`load`, of an engine whose batches are counted."""

        def loaded(*given: Any) -> Engine:
            engine: Any = load(*given)
            engine.generate_batches = self.time(role, engine.generate_batches)
            engine.score_batches = self.time(role, engine.score_batches)
            return engine  # type: ignore[no-any-return]

        return loaded


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--engines", type=Path, required=True)
    parser.add_argument("--input", required=True)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--backend", default="auto")
    given = parser.parse_args()
    settings = {
        "refine.rounds": 0,
        "input.limit": given.limit,
        "engine.backend": given.backend,
        "synthesize.max_new_tokens": 24,
    }
    config = load_config(None, settings)
    roles, clock = open_roles(given.engines, config), Clock()
    roles = replace(
        roles,
        open_query=clock.watch("query", roles.open_query),
        open_score=clock.watch("score", roles.open_score),
    )
    clock.time_tokenising()
    with tempfile.TemporaryDirectory() as folder:
        summary = run(config, [given.input], roles, Path(folder) / "out").summary
    wall = clock.ended - clock.began
    for role, seconds in clock.inside.items():
        print(f"{role:6} {seconds:8.1f} s  {seconds / wall:6.1%}")
    print(f"all    {wall:8.1f} s  {sum(clock.inside.values()) / wall:6.1%} inside the engines")
    print(f"of it  {clock.tokenising:8.1f} s  {clock.tokenising / wall:6.1%} tokenising")
    print(f"{summary['documents']} documents, from the first batch to the last")


if __name__ == "__main__":
    main()
