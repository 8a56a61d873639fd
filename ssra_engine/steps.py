"""The steps of a run, each recorded in the output folder when it is done, and not done twice."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from ssra_engine.budget import Budget, WorkClock, acceptance, parse_budget
from ssra_engine.config import Config
from ssra_engine.corpus import Corpus
from ssra_engine.ending import end_section
from ssra_engine.errors import StoreError
from ssra_engine.keys import mix
from ssra_engine.refine import sample_documents, survivors
from ssra_engine.role_engines import RoleEngines
from ssra_engine.roles import Roles
from ssra_engine.runners.runner import Runner
from ssra_engine.schema import STAGED
from ssra_engine.section import Section
from ssra_engine.shard import Job, failed_documents, synthesize_shard
from ssra_engine.shards import DoneRows, Shard, commit_shards, shard_count
from ssra_engine.store import Store
from ssra_engine.tally import describe, describe_comparisons, describe_costs

__all__ = ["NoProgress", "Progress", "Steps"]

_log = logging.getLogger(__name__)

_COUNTERS = ("requests", "prompt_tokens", "shared_tokens", "generated_tokens", "seconds")


class Progress(Protocol):
    """What `run` tells of its progress, in documents."""

    def begin(self, name: str, documents: int, done: int) -> None:
        """A step begins, or goes on after `done` documents; 0 of 0 where it does not count them."""

    def update(self, done: float) -> None:
        """So many of the step's documents are done."""


class NoProgress:
    """Tells nobody."""

    def begin(self, name: str, documents: int, done: int) -> None:
        """Ignore it."""

    def update(self, done: float) -> None:
        """Ignore it."""


class Steps:
    """The steps of one run, in order; each looks in the store for what is already done."""

    def __init__(
        self,
        config: Config,
        corpus: Corpus,
        roles: Roles,
        store: Store,
        progress: Progress,
        runner: Runner,
    ) -> None:
        self._config = config
        self._corpus = corpus
        self._roles = roles
        self._store = store
        self._progress = progress
        self._models = RoleEngines(roles, store, runner)
        self._runner = runner
        self._documents_done = 0

    def run(self) -> dict[str, Any]:
        """Everything up to the summary, which is returned without its timing."""
        config = self._config
        documents = self._check_corpus()
        for number in range(1, config.refine.rounds + 1):
            if self._store.find("model", round=number) is None:
                self._refine(number, documents)
        section = self._section("final", documents, "synthetic", "rejected")
        if section.ended is None:
            shards = (
                Shard(index, batch, bad)
                for index, (batch, bad) in enumerate(
                    self._corpus.batches_with_errors(config.output.shard_documents)
                )
            )
            settings = config.synthesize
            budget = None if settings.budget is None else parse_budget(settings.budget)
            self._synthesize(
                section,
                shards,
                documents,
                version=config.refine.rounds,
                per_grade=settings.per_grade,
                attempts=settings.attempts,
                budget=budget,
            )
        end_section(section, config.filter, config.targets)
        return self._summarize(documents)

    def timing(self, seconds: float) -> dict[str, Any]:
        """What the clock says of this call; nothing else in the summary depends on it."""
        rate = self._documents_done / seconds if seconds > 0 else 0.0
        return {
            "seconds": round(seconds, 3),
            "documents": self._documents_done,
            "documents_per_second": round(rate, 1),
            "engines": {
                role: {name: sum(asdict(one)[name] for one in stats) for name in _COUNTERS}
                for role, stats in self._models.stats.items()
            },
        }

    def close(self) -> None:
        """Release the models."""
        self._models.close()

    def _check_corpus(self) -> int:
        record = self._store.find("corpus")
        if record is None:
            with self._store.scratch() as scratch:
                found = self._corpus.check(scratch)
            record = self._store.record(
                "corpus",
                inputs=list(self._corpus.files),
                documents=found.documents,
                rejected=found.rejected,
            )
        return int(record["documents"])

    def _section(self, name: str, documents: int, kept: str, rejected: str) -> Section:
        return Section(
            self._store,
            name,
            kept=kept,
            rejected=rejected,
            file_format=self._config.output.format,
            shard_count=shard_count(documents, self._config.output.shard_documents),
        )

    def _refine(self, number: int, documents: int) -> None:
        """One round: synthesise with the query model of the round before, and train the next."""
        config, seed = self._config, _seed(self._config, number)
        count = min(documents, config.refine.documents)
        sample = sample_documents(self._corpus.batches(), count, seed)
        folder = f"rounds/{number}"
        section = self._section(f"round-{number}", count, f"{folder}/kept", f"{folder}/rejected")
        if section.ended is None:
            batches = sample.to_batches(max_chunksize=config.output.shard_documents)
            shards = (Shard(index, batch) for index, batch in enumerate(batches))
            self._synthesize(
                section,
                shards,
                count,
                version=number - 1,
                per_grade=config.refine.samples,
                attempts=1,
            )
        end_section(section, config.filter, config.targets)
        if not self._models.folder(number).exists():
            self._models.close()
            self._progress.begin(f"training the query model, round {number}", 0, 0)
            fresh = survivors(section.read_kept(), sample, self._roles.template, number)
            d2q = pa.concat_tables([self._roles.d2q(), fresh])
            self._store.put_model(
                f"{folder}/query", lambda empty: self._roles.retrain(d2q, empty, seed)
            )
        files = self._store.checksums(f"{folder}/query")
        self._store.record("model", round=number, files=files)

    def _synthesize(
        self,
        section: Section,
        shards: Iterator[Shard],
        documents: int,
        *,
        version: int,
        per_grade: int,
        attempts: int,
        budget: Budget | None = None,
    ) -> None:
        """Commit the shards of a section that are not committed yet."""
        progress = DoneRows(section, self._progress.update)
        self._progress.begin(section.name, documents, progress.before)
        job = Job(
            self._config,
            self._roles,
            self._models.query(version),
            self._models.score(),
            version,
            per_grade,
            attempts,
            self._models.comparator(),
            budget,
            documents,
            self._acceptance(),
        )

        clock = WorkClock(sum(record["seconds"] for record in section.shards.values()))

        def work(shard: Shard) -> pa.Table:
            if budget is not None and budget.unit == "seconds" and clock.total() >= budget.amount:
                _log.info("the budget is spent: shard %d is not begun", shard.index)
                table = STAGED.empty_table()
            else:
                table = synthesize_shard(
                    shard.documents,
                    job,
                    partial(progress.tell, shard.index),
                    shard.index * self._config.output.shard_documents,
                )
            if shard.bad is not None:
                bad = failed_documents(shard.bad.column("doc_id"), shard.bad.column("message"))
                table = pa.concat_tables([table, bad])
            return table

        # More shards than were counted are of input that changed: see below.
        commit_shards(section, shards, work, self._runner, progress, clock)
        self._documents_done += progress.done - progress.before
        self._check_unchanged(section, documents, progress.done)

    def _check_unchanged(self, section: Section, documents: int, done: int) -> None:
        """Refuse what was made of input that changed after the run had begun to read it."""
        if done == documents and self._corpus.fingerprint() == self._store.fingerprint["inputs"]:
            return
        section.drop_staged()
        raise StoreError(
            f"{self._store.folder}: the input changed while it was read, so what {section.name} "
            "made of it was dropped. Put the input back and run the same command again, or give "
            "another --output."
        )

    def _acceptance(self) -> np.ndarray | None:
        """Chance of a sample at each target, as the last round of refinement ended."""
        rounds = self._config.refine.rounds
        ended = self._store.find("section", section=f"round-{rounds}")
        return None if ended is None else acceptance(np.array(ended["counts"]))

    def _summarize(self, documents: int) -> dict[str, Any]:
        config = self._config
        found, final = self._store.find("corpus"), self._store.find("section", section="final")
        assert found is not None
        assert final is not None
        rounds = []
        for number in range(1, config.refine.rounds + 1):
            ended = self._store.find("section", section=f"round-{number}")
            assert ended is not None
            counts = describe(np.array(ended["counts"]), config.targets)
            compared = describe_comparisons(np.array(ended["compared"]))
            told = {"round": number, "failed_documents": ended["failed"], "comparator": compared}
            rounds.append({**told, **counts})
        return {
            "documents": documents,
            "failed_documents": final["failed"],
            "rejected_documents": found["rejected"],
            "wanted_per_grade": documents * config.synthesize.per_grade,
            "budget": config.synthesize.budget,
            "documents_not_begun": self._not_begun(),
            **describe(np.array(final["counts"]), config.targets),
            "cost": describe_costs(
                np.array(final["counts"]), np.array(final["costs"]), config.targets
            ),
            "comparator": describe_comparisons(np.array(final["compared"])),
            "rounds": rounds,
        }

    def _not_begun(self) -> int:
        """Documents of the shards that a budget left without any sample."""
        return sum(
            record["documents"]
            for record in self._store.records
            if record["kind"] == "shard" and record["section"] == "final" and not record["rows"]
        )


def _seed(config: Config, number: int) -> int:
    return int(mix(np.array([config.seed], np.uint64), number)[0])
