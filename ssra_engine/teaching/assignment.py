"""One pass of a teacher over a table, shard by shard, into an output folder that can be resumed."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ssra_engine import __version__
from ssra_engine.budget import WorkClock
from ssra_engine.config import Config
from ssra_engine.engines.engine import Engine
from ssra_engine.errors import ConfigError, StoreError
from ssra_engine.runners.runner import open_runner
from ssra_engine.section import Section
from ssra_engine.shards import DoneRows, Shard, commit_shards, shard_count
from ssra_engine.steps import NoProgress, Progress
from ssra_engine.store import Store, open_store
from ssra_engine.teaching.teacher import Teacher

__all__ = ["Assignment", "Outcome", "fulfil", "staged_schema"]

_log = logging.getLogger(__name__)

_SPEED_ONLY = ("batch_tokens", "threads", "python", "memory", "start_seconds", "batch_seconds")
_TABLE_SUFFIXES = (".arrow", ".parquet", ".jsonl", ".csv")


@dataclass(frozen=True)
class Assignment:
    """What a teacher is to do with every row of a table.

    Attributes:
        name: of the section; also the setting that holds its settings.
        output: folder of the rows that are passed on, inside the output folder.
        kept: schema of those.
        rejected: schema of the rows whose answer is of no use, and of those that cannot be read.
        rows: usable rows of the input.
        shards: of the input.
        answer: what a shard yields, rows of `staged_schema`.
        inputs: fingerprint of the input.
    """

    name: str
    output: str
    kept: pa.Schema
    rejected: pa.Schema
    rows: int
    shards: Callable[[], Iterable[Shard]]
    answer: Callable[[Shard, Engine, Callable[[float], None]], pa.Table]
    inputs: Callable[[], str]


@dataclass(frozen=True)
class Outcome:
    """How an assignment ended.

    Attributes:
        output: the output folder.
        table: the folder of the rows that are passed on.
        summary: what summary.json holds.
        already_finished: nothing was left to do.
    """

    output: Path
    table: Path
    summary: dict[str, Any]
    already_finished: bool

    @property
    def failed(self) -> int:
        """Rows that could not be read, and those at which the engine failed."""
        return int(self.summary["rejected"].get("error", 0))


def staged_schema(kept: pa.Schema, rejected: pa.Schema) -> pa.Schema:
    """Schema of a shard before the end: the columns of both, and what becomes of each row.

    `keep` says whether a row is passed on, `asked` whether the teacher was asked about it, and
    `tokens` how many it wrote.
    """
    columns = {field.name: field.with_nullable(True) for field in [*kept, *rejected]}
    facts = [("keep", pa.bool_()), ("asked", pa.bool_()), ("tokens", pa.int32())]
    return pa.schema([*columns.values(), *(pa.field(*fact, nullable=False) for fact in facts)])


def fulfil(
    config: Config,
    assignment: Assignment,
    teacher: Teacher,
    output: str | Path,
    progress: Progress | None = None,
) -> Outcome:
    """Do an assignment, or go on where an earlier call was stopped.

    Raises:
        ConfigError: the output has the name of a file.
        EngineError: the teacher cannot be loaded, or fails at everything.
        StoreError: the output folder cannot be used, or the input changed while it was read.
    """
    output, steps = Path(output), progress or NoProgress()
    if output.suffix in _TABLE_SUFFIXES:
        raise ConfigError(
            f"--output: '{output}' is the name of a file, and the output is a folder, so that it "
            f"can be resumed. Give --output {output.stem}, and read {output.stem}/"
            f"{assignment.output} afterwards."
        )
    fingerprint = _fingerprint(config, assignment, teacher)
    table = output / assignment.output
    with open_store(output, fingerprint, config.to_yaml()) as store:
        if store.finished:
            return Outcome(output, table, store.summary(), already_finished=True)
        with store.logging():
            summary = _fulfil(config, assignment, teacher, store, steps)
            store.finish(summary)
    return Outcome(output, table, summary, already_finished=False)


def _fingerprint(config: Config, assignment: Assignment, teacher: Teacher) -> dict[str, Any]:
    tree = config.model_dump(
        mode="json", include={"seed", "grades", "input", "engine", "output", assignment.name}
    )
    for name in _SPEED_ONLY:
        del tree["engine"][name]
    return {
        "command": assignment.name,
        "code": __version__,
        "inputs": assignment.inputs(),
        "model": teacher.fingerprint,
        "config": tree,
    }


def _fulfil(
    config: Config, assignment: Assignment, teacher: Teacher, store: Store, steps: Progress
) -> dict[str, Any]:
    section = Section(
        store,
        assignment.name,
        kept=assignment.output,
        rejected="rejected",
        file_format=config.output.format,
        shard_count=shard_count(assignment.rows, config.output.shard_documents),
    )
    started = time.perf_counter()
    rows = DoneRows(section, steps.update)
    if section.ended is None:
        steps.begin(assignment.name, assignment.rows, rows.before)
        _ask_shards(config, assignment, teacher, section, rows)
        _check_unchanged(assignment, section, rows.done)
        _end(assignment, section)
    section.drop_staged()
    seconds = time.perf_counter() - started
    ended = section.ended
    assert ended is not None
    facts = {name: ended[name] for name in ("rows", "written", "left", "rejected", "tokens")}
    done = rows.done - rows.before
    rate = round(done / seconds, 1) if seconds > 0 else 0.0
    timing = {"seconds": round(seconds, 3), "rows": done, "rows_per_second": rate}
    return {**facts, "timing": timing}


def _ask_shards(
    config: Config, assignment: Assignment, teacher: Teacher, section: Section, rows: DoneRows
) -> None:
    if len(section.shards) == section.shard_count:
        return
    runner = open_runner(config.runner)
    clock = WorkClock(sum(record["seconds"] for record in section.shards.values()))
    try:
        _log.info("loading the teacher")
        engine = runner.open("teacher", teacher.open)
        try:

            def work(shard: Shard) -> pa.Table:
                return assignment.answer(shard, engine, lambda share: rows.tell(shard.index, share))

            commit_shards(section, assignment.shards(), work, runner, rows, clock)
        finally:
            engine.close()
    finally:
        runner.close()


def _check_unchanged(assignment: Assignment, section: Section, done: int) -> None:
    """Refuse what was made of input that changed after it had begun to be read."""
    if done == assignment.rows and assignment.inputs() == section.store.fingerprint["inputs"]:
        return
    section.drop_staged()
    raise StoreError(
        f"{section.store.folder}: the input changed while it was read, so what was made of it was "
        "dropped. Put the input back and run the same command again, or give another --output."
    )


def _end(assignment: Assignment, section: Section) -> None:
    """Write the final parts. They follow from the staged shards: interrupted, all is done again."""
    counts: Counter[str] = Counter()
    for number, shards in enumerate(section.parts()):
        staged = pa.concat_tables([section.read(index) for index in shards])
        counts.update(_counts(staged))
        if section.part_written(number):
            continue
        kept = staged.filter(staged["keep"]).select(assignment.kept.names)
        rejected = staged.filter(pc.is_valid(staged["reason"])).select(assignment.rejected.names)
        section.write_part(number, kept.cast(assignment.kept), rejected)
    section.end(**_facts(counts))


def _counts(staged: pa.Table) -> Mapping[str, int]:
    reasons = pc.value_counts(staged["reason"].cast(pa.string()).drop_null()).to_pylist()
    asked, used = staged["asked"], pc.is_null(staged["reason"])
    return {
        "rows": pc.sum(staged["keep"]).as_py() or 0,
        "written": pc.sum(pc.and_(asked, used)).as_py() or 0,
        "left": pc.sum(pc.and_(pc.invert(asked), used)).as_py() or 0,
        "tokens": pc.sum(staged["tokens"]).as_py() or 0,
        **{f"rejected {row['values']}": row["counts"] for row in reasons},
    }


def _facts(counts: Mapping[str, int]) -> dict[str, Any]:
    prefix = "rejected "
    rejected = {
        name.removeprefix(prefix): count
        for name, count in sorted(counts.items())
        if name.startswith(prefix)
    }
    plain = {name: counts.get(name, 0) for name in ("rows", "written", "left", "tokens")}
    return plain | {"rejected": rejected}
