"""Everything in this process: a shard is worked on while the next is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ssra_engine.config import Role
from ssra_engine.engines.engine import Engine

__all__ = ["LocalRunner", "run_shards"]

Shard = TypeVar("Shard")
Outcome = TypeVar("Outcome")


class LocalRunner:
    """See `runner.Runner`."""

    def open(self, role: Role, load: Callable[[], Engine]) -> Engine:
        """Load it here."""
        return load()

    def run_shards(
        self, shards: Iterable[Shard], work: Callable[[Shard], Outcome]
    ) -> Iterator[tuple[Shard, Outcome]]:
        """One shard at a time."""
        return run_shards(shards, work)

    def close(self) -> None:
        """There is nothing to release."""


def run_shards(
    shards: Iterable[Shard], work: Callable[[Shard], Outcome]
) -> Iterator[tuple[Shard, Outcome]]:
    """Work on shards in order; an error in reading or in work is raised where its shard is due."""
    source = iter(shards)
    with ThreadPoolExecutor(1, "reader") as reader:
        ahead = reader.submit(next, source, None)
        while (shard := ahead.result()) is not None:
            ahead = reader.submit(next, source, None)
            yield shard, work(shard)
