"""The run: from documents to graded synthetic queries (arXiv 2509.16717, stage 2 and onwards).

Rounds first: on a sample of the documents, synthesise with the current query model, filter, train
the next query model on the survivors and the data of the first. Then the final synthesis over all
documents. See `steps`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssra_engine import __version__
from ssra_engine.config import Config
from ssra_engine.corpus import Corpus, open_corpus
from ssra_engine.errors import ConfigError
from ssra_engine.roles import Roles
from ssra_engine.runners.runner import open_runner
from ssra_engine.shards import shard_count
from ssra_engine.steps import NoProgress, Progress, Steps
from ssra_engine.store import open_store

__all__ = ["Plan", "Progress", "RunResult", "plan", "run"]

#: Settings that change how fast rows are made, not which.
_SPEED_ONLY = {
    "engine": ("batch_tokens", "threads", "python", "memory", "start_seconds", "batch_seconds")
}


@dataclass(frozen=True)
class RunResult:
    """How a run ended.

    Attributes:
        output: the output folder.
        summary: what summary.json holds.
        already_finished: nothing was left to do.
    """

    output: Path
    summary: dict[str, Any]
    already_finished: bool

    @property
    def failed_documents(self) -> int:
        """Documents that yielded no samples because they, or an engine over them, failed."""
        return int(self.summary["failed_documents"])


@dataclass(frozen=True)
class Plan:
    """What a run would do.

    Attributes:
        documents: usable documents.
        rejected_documents: documents that cannot be used.
        shards: of the final synthesis.
        round_documents: documents of each round of refinement.
        requests: queries asked for in the first wave of everything, each of them scored at most
            once.
        seconds: an estimate without the training between rounds; None where the speed of the
            engines is not known.
    """

    documents: int
    rejected_documents: int
    shards: int
    round_documents: int
    requests: int
    seconds: float | None


def plan(config: Config, inputs: Sequence[str | Path], roles: Roles) -> Plan:
    """Validate settings and documents without loading a model, and say what `run` would do.

    Raises:
        ConfigError, DataError: as `run` would.
    """
    _check_settings(config, roles)
    corpus = _open_corpus(config, inputs)
    found = corpus.check()
    round_documents = min(found.documents, config.refine.documents) if config.refine.rounds else 0
    cells = config.refine.rounds * round_documents * config.refine.samples
    cells += found.documents * config.synthesize.per_grade
    requests = cells * len(config.targets)
    seconds = None
    if roles.requests_per_second is not None:
        seconds = sum(requests / speed for speed in roles.requests_per_second)
    return Plan(
        found.documents,
        found.rejected,
        shard_count(found.documents, config.output.shard_documents),
        round_documents,
        requests,
        seconds,
    )


def run(
    config: Config,
    inputs: Sequence[str | Path],
    roles: Roles,
    output: str | Path,
    progress: Progress | None = None,
) -> RunResult:
    """Make graded synthetic queries for documents; go on where an earlier call was stopped.

    Args:
        config: the whole tree.
        inputs: see `corpus.open_corpus`.
        roles: the models.
        output: the output folder; see `store`.
        progress: told what happens.

    Raises:
        ConfigError: the models grade on another scale, or settings contradict each other.
        DataError: a document cannot be used.
        EngineError: a model cannot be loaded, or fails at everything.
        StoreError: the output folder cannot be used.
    """
    _check_settings(config, roles)
    corpus = _open_corpus(config, inputs)
    output = Path(output)
    with open_store(output, _fingerprint(config, corpus, roles), config.to_yaml()) as store:
        if store.finished:
            return RunResult(output, store.summary(), already_finished=True)
        with store.logging():
            started = time.perf_counter()
            runner = open_runner(config.runner)
            steps = Steps(config, corpus, roles, store, progress or NoProgress(), runner)
            try:
                summary = steps.run()
            finally:
                steps.close()
                runner.close()
            summary["timing"] = steps.timing(time.perf_counter() - started)
            store.finish(summary)
    return RunResult(output, summary, already_finished=False)


def _check_settings(config: Config, roles: Roles) -> None:
    if len(roles.labels) != len(config.grades):
        raise ConfigError(
            f"the engines grade on a scale of {len(roles.labels)} grades, the configuration has "
            f"{len(config.grades)}. Set grades to those of the engines, or build them again."
        )
    samples = max(config.synthesize.per_grade * config.synthesize.attempts, config.refine.samples)
    most = np.iinfo(np.int16).max
    if samples > most:
        raise ConfigError(
            f"synthesize.per_grade x synthesize.attempts and refine.samples are at most {most}, "
            f"got {samples}."
        )


def _open_corpus(config: Config, inputs: Sequence[str | Path]) -> Corpus:
    return open_corpus(inputs, limit=config.input.limit, on_error=config.input.on_error)


def _fingerprint(config: Config, corpus: Corpus, roles: Roles) -> dict[str, Any]:
    tree = config.model_dump(mode="json", exclude={"runner", "rewrite", "rationale"})
    for section, names in _SPEED_ONLY.items():
        for name in names:
            del tree[section][name]
    return {
        "code": __version__,
        "inputs": corpus.fingerprint(),
        "engines": roles.fingerprint,
        "config": tree,
    }
