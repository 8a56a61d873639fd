"""Shards on this machine: one is worked on while the next is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["run_shards"]

Shard = TypeVar("Shard")
Outcome = TypeVar("Outcome")


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
