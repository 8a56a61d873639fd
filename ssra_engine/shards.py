"""Shards of a section: worked on in order, each committed while the next is worked on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa

from ssra_engine.budget import WorkClock
from ssra_engine.runners.runner import Runner
from ssra_engine.section import Section

__all__ = ["DoneRows", "Shard", "commit_shards", "shard_count"]


@dataclass(frozen=True)
class Shard:
    """Some consecutive rows of what a section works on.

    Attributes:
        index: among the section's shards.
        documents: `schema.CORPUS`, or other rows.
        bad: documents that were left out beside them, `corpus.REJECTED_DOCUMENTS`.
    """

    index: int
    documents: pa.RecordBatch
    bad: pa.Table | None = None


class DoneRows:
    """How many rows of a section are done; several shards may be at work.

    Args:
        section: of which some shards may be committed already.
        tell: told whenever more is done.

    Attributes:
        before: rows done when this was made.
        done: rows of the shards that are done by now.
    """

    def __init__(self, section: Section, tell: Callable[[float], None]) -> None:
        self.before = sum(record["documents"] for record in section.shards.values())
        self.done = self.before
        self._tell = tell
        self._lock = threading.Lock()
        self._at_work: dict[int, float] = {}

    def tell(self, shard: int, share: float) -> None:
        """So many rows' worth of a shard's work is done."""
        with self._lock:
            self._at_work[shard] = share
            done = self.done + sum(self._at_work.values())
        self._tell(done)

    def end(self, shard: int, rows: int) -> None:
        """A shard is committed, or will be next."""
        with self._lock:
            self._at_work.pop(shard, None)
            self.done += rows
            done = self.done + sum(self._at_work.values())
        self._tell(done)


def commit_shards(
    section: Section,
    shards: Iterable[Shard],
    work: Callable[[Shard], pa.Table],
    runner: Runner,
    rows: DoneRows,
    clock: WorkClock,
) -> None:
    """Work on the shards of a section that are not committed yet, and commit each in order.

    Args:
        section: to commit to.
        shards: all of them; those beyond `section.shard_count` are of input that has grown, and
            are left out.
        work: what a shard yields.
        runner: says how many shards are worked on at a time.
        rows: counts what is done.
        clock: of the section; begins with the first shard.
    """
    wanted = set(range(section.shard_count)) - set(section.shards)
    left = (shard for shard in shards if shard.index in wanted)

    def timed(shard: Shard) -> pa.Table:
        clock.begin()
        return work(shard)

    with ThreadPoolExecutor(1, "writer") as writer:
        # The disk is waited for while the next shard is worked on; commits stay in order.
        commit: Future[None] | None = None
        for shard, table in runner.run_shards(left, timed):
            if commit is not None:
                commit.result()
            facts = {"documents": len(shard.documents), "seconds": round(clock.lap(), 3)}
            commit = writer.submit(section.commit, shard.index, table, facts)
            rows.end(shard.index, len(shard.documents))
        if commit is not None:
            commit.result()


def shard_count(rows: int, shard_rows: int) -> int:
    """Shards that so many rows are cut into."""
    return -(-rows // shard_rows)
