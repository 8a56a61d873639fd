"""Stage 1: from judgments to a score model and a query model, in one engines folder.

    judgments -> score model -> grades for the unlabelled pairs -> query model

The folder holds ``score/`` and ``query/`` (plain safetensors folders that any backend opens, LoRA
merged), ``d2q.arrow`` (what the query model learned from, `schema.D2Q`), ``config.yaml`` and
``manifest.json``, and appears whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssra_engine.building.comparator import check_pairs
from ssra_engine.building.data import read_data
from ssra_engine.building.fingerprint import fingerprint
from ssra_engine.building.models import train_models
from ssra_engine.building.task import Task
from ssra_engine.config import Config
from ssra_engine.corpus import open_corpus
from ssra_engine.durable import locked, put_folder, remove, writing
from ssra_engine.engine_folder import MANIFEST, read_engines
from ssra_engine.engines import BACKENDS, check_backend
from ssra_engine.errors import ConfigError, StoreError
from ssra_engine.steps import NoProgress, Progress

__all__ = ["BuildReport", "build"]


@dataclass(frozen=True)
class BuildReport:
    """How a build ended.

    Attributes:
        output: the engines folder.
        figures: what the manifest holds of the data, the score model's quality and the training.
        did_nothing: the folder was there already, made of the same data and settings.
    """

    output: Path
    figures: dict[str, Any]
    did_nothing: bool


def build(
    config: Config,
    *,
    corpus: Sequence[str | Path],
    judgments: Sequence[str | Path],
    pairs: Sequence[str | Path] = (),
    audits: Sequence[str | Path] = (),
    output: str | Path,
    progress: Progress | None = None,
) -> BuildReport:
    """Train the score model, grade the pairs with it, and train the query model.

    Args:
        config: the tree; `model` says which backbone.
        corpus: documents; see `open_corpus`.
        judgments: graded rows; only those of split ``train`` are trained on, ``dev`` stops the
            training and calibrates.
        pairs: unlabelled (query, doc_id) rows, as of a click log; those of queries that the
            judgments hold out are left out.
        audits: labelled audits of earlier runs, to be learned as judgments are, but for queries
            that those hold out. Of a query that has no grade, the score model learns to be sure of
            none.
        output: the engines folder. The same data and settings again: nothing is done. Others: it is
            built anew and replaced when the new one is whole; what does not depend on the
            difference is taken over. Of two builds at once, the second waits for the first.
        progress: told of each step.

    Raises:
        ConfigError: no backbone is given or it is not there, or the engine is the fake one.
        EngineError: the engine cannot run here.
        DataError: an input is bad; see `read_judgments`, `read_pairs`, `audit.read_labels` and
            `open_corpus`.
        StoreError: `output` holds something else, or cannot be written.
    """
    steps = progress or NoProgress()
    _check_settings(config)
    output = Path(output)
    _check_output(output)
    steps.begin("read the data", 0, 0)
    opened = open_corpus(corpus, limit=config.input.limit, on_error=config.input.on_error)
    data = read_data(config, opened, judgments, pairs, audits)
    check_pairs(config, data)
    made_from = fingerprint(config, opened, judgments, pairs, audits)
    with locked(output):
        there = read_engines(output) if (output / MANIFEST).exists() else None
        if there is not None and there.manifest["fingerprint"] == made_from:
            _prepare(config, output)
            return BuildReport(output, there.manifest["figures"], did_nothing=True)
        figures: dict[str, Any] = {}

        def fill(folder: Path) -> None:
            figures.update(train_models(Task(config, data, folder, made_from, there, steps)))

        _replace(output, fill)
        _prepare(config, output)
    return BuildReport(output, figures, did_nothing=False)


def _check_settings(config: Config) -> None:
    backbone = config.model.backbone
    if backbone is None and config.model.preset is None:
        raise ConfigError("No backbone: give --backbone FOLDER_OR_GGUF or --preset tiny.")
    if backbone is not None and not Path(backbone).exists():
        raise ConfigError(
            f"model.backbone: '{backbone}' does not exist. Give the folder of a causal language "
            "model or a GGUF file."
        )
    encoder = config.model.cross_encoder.backbone
    if encoder is not None and not Path(encoder).is_dir():
        raise ConfigError(
            f"model.cross_encoder.backbone: '{encoder}' is no folder. Give that of an encoder."
        )
    if config.engine.backend == "fake":
        raise ConfigError("engine.backend: the fake backend cannot grade pairs; give auto.")
    if config.engine.backend != "auto":
        check_backend(config.engine.backend, config.engine.python)


def _prepare(config: Config, output: Path) -> None:
    """Make the checkpoints of a backend in another interpreter, unless they are there.

    A cross-encoder is not run by any of them.
    """
    backend = config.engine.backend
    if backend in BACKENDS and BACKENDS[backend].own_python:
        from ssra_engine.engines.checkpoint import prepare_checkpoint

        if config.model.score_model == "causal":
            prepare_checkpoint(output / "score")
        prepare_checkpoint(output / "query")
        if config.model.train_comparator:
            prepare_checkpoint(output / "comparator")


def _replace(output: Path, fill: Callable[[Path], None]) -> None:
    """Let `fill` write a folder, which takes the place of `output` when it is whole."""
    replaced = output.with_name(output.name + ".old")
    new = output.with_name(output.name + ".new")
    with writing(output):
        remove(new)
    put_folder(new, fill)
    with writing(output):
        remove(replaced)
        if output.exists():
            output.rename(replaced)
        new.rename(output)
        remove(replaced)


def _check_output(output: Path) -> None:
    if output.exists() and (
        not output.is_dir() or (any(output.iterdir()) and not (output / MANIFEST).exists())
    ):
        raise StoreError(f"{output}: not empty and not an engines folder. Give another --output.")
    with writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
