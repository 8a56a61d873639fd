"""What a run asks of the machines it runs on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

from ssra_engine.config import Role, RunnerConfig
from ssra_engine.engines.engine import Engine

__all__ = ["Runner", "open_runner"]

Shard = TypeVar("Shard")
Outcome = TypeVar("Outcome")


class Runner(Protocol):
    """Where engines are, and how many shards are worked on at a time."""

    def open(self, role: Role, load: Callable[[], Engine]) -> Engine:
        """The engine that `load` loads, for a role of the run.

        `load` is called where the engine is to run, so it holds paths and settings, no open files.
        """

    def run_shards(
        self, shards: Iterable[Shard], work: Callable[[Shard], Outcome]
    ) -> Iterator[tuple[Shard, Outcome]]:
        """Work on shards; each comes with its outcome, in their order, and is read when needed.

        An error in reading or in work is raised where its shard is due. `work` may be called from
        several threads.
        """

    def close(self) -> None:
        """Release what the runner holds; engines are closed before."""


def open_runner(settings: RunnerConfig) -> Runner:
    """The runner that the settings name.

    Raises:
        ConfigError: Ray is not installed, or its cluster is not there.
    """
    if settings.kind == "ray":
        from ssra_engine.runners.ray import RayRunner

        return RayRunner(settings)
    from ssra_engine.runners.local import LocalRunner

    return LocalRunner()
