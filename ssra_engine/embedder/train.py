"""From judgments, synthetic queries and negatives to an embedding model in a folder of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from transformers.utils import logging

from ssra_engine import __version__
from ssra_engine.content import content_key
from ssra_engine.corpus import Corpus, open_corpus
from ssra_engine.durable import remove
from ssra_engine.embedder.base import merge_lora, open_base
from ssra_engine.embedder.card import model_card
from ssra_engine.embedder.fit import REPORTS, check_reports, fit
from ssra_engine.embedder.model_folder import (
    CHECKPOINTS,
    put_model,
    read_record,
    training_beside,
    training_folder,
)
from ssra_engine.embedder.processes import Processes, join_processes
from ssra_engine.embedder.rows import TrainingRows, read_training_rows
from ssra_engine.embedder.settings import TrainSettings
from ssra_engine.embedder.tables import synthetic_folder
from ssra_engine.errors import DataError
from ssra_engine.evaluation.evaluator import GradedEvaluator
from ssra_engine.evaluation.retrieval import judged_texts
from ssra_engine.judgments import read_judgments
from ssra_engine.readers import files_key
from ssra_engine.steps import NoProgress, Progress

__all__ = ["TrainData", "Trained", "train_embedder"]

_MIN_LIST = 10


@dataclass(frozen=True)
class TrainData:
    """Where the data is.

    Attributes:
        corpus: documents, as `open_corpus` takes them.
        judgments: as `read_judgments` takes them.
        grades: the scale.
        synthetic: output of a run or of `accept`, or None.
        negatives: see `tables.read_hard_negatives`.
    """

    corpus: Sequence[str | Path]
    judgments: Sequence[str | Path]
    grades: Sequence[int] = (0, 1, 2, 3)
    synthetic: Path | None = None
    negatives: Sequence[str | Path] = ()


@dataclass(frozen=True)
class Trained:
    """How a training ended.

    Attributes:
        output: the model's folder.
        record: what its training.json holds.
        did_nothing: the folder was there already, made of the same data and settings.
    """

    output: Path
    record: dict[str, Any]
    did_nothing: bool


def train_embedder(
    base: str | Path,
    data: TrainData,
    output: str | Path,
    settings: TrainSettings,
    progress: Progress | None = None,
) -> Trained:
    """Train an embedder, measure it beside its base on the split dev, and write its folder.

    Killed and called again with the same arguments, it goes on from its last checkpoint, with the
    losses of a training that was never interrupted. Called again when it is done, it does nothing.

    Under torchrun, `settings.batch_rows` is of each process, and all of them train on one joint
    batch; the first one writes. They must see the same files.

    Args:
        base: folder of a sentence-transformers model, an encoder or a causal LM.
        data: what to train on.
        output: the model's folder.
        settings: how.
        progress: told of each step.

    Raises:
        ConfigError, DataError, EngineError: a setting, the data or the base is no good.
        StoreError: `output` holds something else, or cannot be written.
    """
    settings.check()
    check_reports(settings.report_to)
    with _quiet_transformers():
        return _train(Path(base).resolve(), data, Path(output), settings, progress or NoProgress())


def _train(
    base: Path, data: TrainData, output: Path, settings: TrainSettings, steps: Progress
) -> Trained:
    processes = join_processes()
    steps.begin("read the data", 0, 0)
    corpus = open_corpus(data.corpus)
    fingerprint = _fingerprint(base, corpus, data, settings, processes)
    record = read_record(output, fingerprint)
    if record is not None:
        return Trained(output, record, did_nothing=True)
    model = open_base(base, settings)
    corpus.check()
    rows, evaluator, facts = _read(corpus.table(), data, settings)
    with _held(output, fingerprint, processes) as work:
        steps.begin("measure the base", 0, 0)
        before = evaluator(model)
        fitted = fit(model, rows.dataset, settings, work / CHECKPOINTS, _Watch(steps))
        if processes.first:
            if settings.lora_rank:
                adapter = work / "adapter"
                remove(adapter)
                merge_lora(model, base, settings, adapter)
            steps.begin("measure the trained model", 0, 0)
            record = {
                "fingerprint": fingerprint,
                "base": base.name,
                "data": rows.counts,
                "results": {**facts, "base": before, "trained": evaluator(model)},
                "steps": fitted.steps,
                "temperature": fitted.temperature,
                "curve": fitted.curve,
            }
            _write(model, output, record, work)
    processes.wait()
    record = read_record(output, fingerprint)
    assert record is not None
    return Trained(output, record, did_nothing=False)


def _read(
    documents: pa.Table, data: TrainData, settings: TrainSettings
) -> tuple[TrainingRows, GradedEvaluator, dict[str, Any]]:
    """What to train on, and what to measure with."""
    judged = read_judgments(data.judgments, data.grades, doc_ids=documents["doc_id"])
    rows = read_training_rows(
        documents,
        judged,
        data.grades,
        settings,
        synthetic=data.synthetic,
        negatives=data.negatives,
    )
    return rows, *_evaluator(documents, judged, settings)


@contextmanager
def _held(output: Path, fingerprint: Mapping[str, Any], processes: Processes) -> Iterator[Path]:
    """`training_folder` of all processes, which the first one holds for them."""
    if not processes.first:
        processes.wait()
        yield training_beside(output)
        return
    with training_folder(output, fingerprint) as work:
        processes.wait()
        yield work


def _write(model: Any, output: Path, record: Mapping[str, Any], work: Path) -> None:
    card = model_card(output.name, int(model.get_embedding_dimension() or 0), record)

    def fill(folder: Path) -> None:
        model.save_pretrained(str(folder), create_model_card=False)
        (folder / "README.md").write_text(card, encoding="utf-8")
        reports = work / CHECKPOINTS / REPORTS
        if reports.is_dir():
            shutil.copytree(reports, folder / REPORTS)

    put_model(output, record, work, fill)


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No bars for weights that are read and written."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


class _Watch:
    """Tells steps of the optimiser as progress."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._begun = False

    def __call__(self, done: int, steps: int) -> None:
        if self._begun:
            self._progress.update(done)
        else:
            self._progress.begin("train, in steps", steps, done)
            self._begun = True


def _evaluator(
    documents: pa.Table, judgments: pa.Table, settings: TrainSettings
) -> tuple[GradedEvaluator, dict[str, Any]]:
    """Of the split dev, whose lists may be shorter than those that `evaluate model` asks for."""
    dev = judgments.filter(pc.equal(judgments["split"], "dev"))
    if not len(dev) or not pc.any(pc.greater(dev["grade"], 0)).as_py():
        raise DataError(
            "no judgment of the split dev has a grade above 0", mend="Give dev some that match"
        )
    wanted = pc.is_in(documents["doc_id"], value_set=pc.unique(dev["doc_id"]))
    judged = judged_texts(documents.filter(wanted), dev, "dev")
    least = min(_MIN_LIST, int(np.bincount(judged.pairs.query).max()))
    evaluator = GradedEvaluator(judged, dims=sorted(settings.dims, reverse=True), min_list=least)
    facts = {
        "split": "dev",
        "queries": judged.pairs.queries,
        "pairs": len(judged.pairs.grade),
        "min_list": least,
    }
    return evaluator, facts


def _fingerprint(
    base: Path, corpus: Corpus, data: TrainData, settings: TrainSettings, processes: Processes
) -> dict[str, Any]:
    return {
        "version": __version__,
        "base": content_key(base),
        "corpus": corpus.fingerprint(),
        "judgments": files_key(data.judgments),
        "synthetic": files_key(
            [] if data.synthetic is None else [synthetic_folder(data.synthetic)]
        ),
        "negatives": files_key(data.negatives),
        "grades": list(data.grades),
        "settings": settings.deciding(),
        **({"processes": processes.count} if processes.count > 1 else {}),
    }
