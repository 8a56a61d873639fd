"""The steps of the method as Python functions: build, run, mine, train, evaluate.

Each does what the command of its name does, with the same defaults, and returns what a program
needs of it. `from ssra_engine import api`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssra_engine.build import BuildReport
from ssra_engine.build import build as build_engines
from ssra_engine.config import Config, load_config
from ssra_engine.embedder.settings import TrainSettings
from ssra_engine.embedder.train import TrainData, Trained, train_embedder
from ssra_engine.engine_folder import open_roles, read_engines
from ssra_engine.evaluation.measuring import Settings as EvaluationSettings
from ssra_engine.evaluation.retrieval import Evaluation, evaluate_model, read_judged
from ssra_engine.hard_negatives import MineReport, MineTask, mine_to_file
from ssra_engine.negatives.settings import Settings as MiningSettings
from ssra_engine.roles import Roles
from ssra_engine.run import RunResult
from ssra_engine.run import run as run_method
from ssra_engine.steps import Progress

__all__ = ["Files", "build", "evaluate", "mine", "run", "train"]

#: A file, folder, glob or URI, or several.
Files = str | Path | Sequence[str | Path]

_FOUR = (0, 1, 2, 3)


def build(
    corpus: Files,
    judgments: Files,
    output: str | Path = "engines",
    *,
    pairs: Files = (),
    audits: Files = (),
    settings: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> BuildReport:
    """Train the score model and the query model from graded judgments (stage 1).

    Args:
        corpus: documents: doc_id, title, text; optional ocr, asr.
        judgments: query, doc_id, grade; optional split.
        output: the engines folder. With the same data and settings, nothing is done again.
        pairs: query, doc_id without grades, as of a click log.
        audits: labelled audits of earlier runs, to learn from as well.
        settings: of `config.Config` by dotted name; ``model.backbone``, a folder or a GGUF file, or
            ``model.preset`` has to be among them.
        progress: told of each step, such as `progress.ProgressBar`.

    Returns:
        output, figures (what the score model got right on held-out judgments, and more), and
        whether all was there already.

    Raises:
        ConfigError, DataError, EngineError, StoreError: as `build.build`.
    """
    return build_engines(
        load_config(None, dict(settings or {})),
        corpus=_files(corpus),
        judgments=_files(judgments),
        pairs=_files(pairs),
        audits=_files(audits),
        output=output,
        progress=progress,
    )


def run(
    corpus: Files,
    engines: str | Path = "engines",
    output: str | Path = "out",
    *,
    settings: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> RunResult:
    """Make graded synthetic queries for documents (stage 2 and the final synthesis).

    Stopped or killed and called again with the same arguments, it goes on.

    Args:
        corpus: documents, those of `build` or others.
        engines: what `build` wrote; its scale of grades is the run's.
        output: gets ``synthetic/``, ``rejected/`` and ``summary.json``.
        settings: of `config.Config` by dotted name, such as ``{"synthesize.per_grade": 2}``.
        progress: told of each step.

    Returns:
        output, and the summary: documents, and queries generated, kept and rejected by reason, for
        each grade.

    Raises:
        ConfigError, DataError, EngineError, StoreError: as `run.run`.
    """
    config, roles = _open(engines, settings)
    return run_method(config, _files(corpus), roles, output, progress)


def mine(
    corpus: Files,
    judgments: Files,
    model: str | Path,
    output: str | Path = "negatives.parquet",
    *,
    synthetic: str | Path | None = None,
    engines: str | Path | None = None,
    relevant: str | Path | None = None,
    split: str = "train",
    choice: MiningSettings | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> MineReport:
    """Mine hard negatives of every pair of grade 1 or higher.

    Args:
        corpus: documents.
        judgments: query, doc_id, grade; optional split.
        model: folder of a sentence-transformers model.
        output: Parquet or Arrow file that gets `schema.NEGATIVES`.
        synthetic: output of a run, whose queries are pairs too.
        engines: their score model grades each candidate, and one that is relevant gives way; they
            also tell the scale, else 0 to 3.
        relevant: file for those candidates, as judgments; needs `engines`.
        split: of the judgments, or "all".
        choice: which candidates become negatives; by default those of the command.
        seed: of draws.
        progress: told of each step.

    Returns:
        counts, and whether the file was there already.

    Raises:
        ConfigError, DataError, EngineError, StoreError: as `hard_negatives.mine_to_file`.
    """
    grades: tuple[int, ...] = _FOUR
    roles: Roles | None = None
    if engines is not None:
        config, roles = _open(engines, None)
        grades = config.grades
    task = MineTask(
        corpus=[str(file) for file in _files(corpus)],
        judgments=[str(file) for file in _files(judgments)],
        model=Path(model),
        output=Path(output),
        settings=choice or MiningSettings(),
        synthetic=None if synthetic is None else Path(synthetic),
        relevant=None if relevant is None else Path(relevant),
        split=split,
        grades=grades,
        seed=seed,
    )
    return mine_to_file(task, roles, progress)


def train(
    corpus: Files,
    judgments: Files,
    base: str | Path,
    output: str | Path,
    *,
    synthetic: str | Path | None = None,
    negatives: Files = (),
    grades: Sequence[int] = _FOUR,
    settings: TrainSettings | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Train an embedding model on judgments, synthetic queries and hard negatives.

    Killed and called again with the same arguments, it goes on from its last checkpoint.

    Args:
        corpus: documents.
        judgments: query, doc_id, grade; optional split. Those of dev measure, and teach nothing.
        base: folder of an encoder, a causal language model or a sentence-transformers model.
        output: the folder of the model, a sentence-transformers one.
        synthetic: output of a run or of `accept`.
        negatives: what `mine` wrote.
        grades: the scale.
        settings: loss, batches, epochs.
        progress: told of each step.

    Returns:
        output, record (data, settings, and results of model and base on dev), and whether the
        folder was there already.

    Raises:
        ConfigError, DataError, EngineError, StoreError: as `embedder.train.train_embedder`.
    """
    folder = None if synthetic is None else Path(synthetic)
    data = TrainData(_files(corpus), _files(judgments), grades, folder, _files(negatives))
    return train_embedder(base, data, output, settings or TrainSettings(), progress)


def evaluate(
    corpus: Files,
    judgments: Files,
    model: str | Path,
    *,
    against: str | Path | None = None,
    split: str = "dev",
    grades: Sequence[int] = _FOUR,
    settings: EvaluationSettings | None = None,
) -> Evaluation:
    """Measure an embedding model on graded judgments, and test its difference to another.

    Args:
        corpus: documents.
        judgments: query, doc_id, grade; optional split.
        model: folder of a sentence-transformers model.
        against: another one.
        split: of the judgments, or "all".
        grades: the scale.
        settings: dims, precisions, lists, intervals.

    Returns:
        the report, plain JSON values, and the figures of each query.

    Raises:
        ConfigError, DataError, EngineError: as `evaluation.retrieval.evaluate_model`.
    """
    settings = settings or EvaluationSettings()
    judged = read_judged(_files(corpus), _files(judgments), grades, split, settings)
    return evaluate_model(model, judged, settings, against=against)


def _files(given: Files) -> list[str | Path]:
    return [given] if isinstance(given, str | Path) else list(given)


def _open(engines: str | Path, settings: Mapping[str, Any] | None) -> tuple[Config, Roles]:
    """Settings on the scale of the engines, and their models."""
    built = read_engines(Path(engines))
    of_engines = {"grades": built.grades, "model.preset": built.config.model.preset}
    config = load_config(None, {**dict(settings or {}), **of_engines})
    return config, open_roles(engines, config)
