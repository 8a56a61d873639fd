"""The comparison: every method and seed, the figures, and the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ssra_engine.comparing.methods import METHODS
from ssra_engine.comparing.pipeline import Pipeline, Trial
from ssra_engine.comparing.settings import CompareSettings
from ssra_engine.comparing.tables import compare_figures, reference_of
from ssra_engine.durable import put_file
from ssra_engine.evaluation.embedding import truncate
from ssra_engine.evaluation.measuring import Figures, Settings, measure
from ssra_engine.evaluation.retrieval import Judged, read_judged
from ssra_engine.steps import Progress

__all__ = ["compare_methods"]


def compare_methods(
    settings: CompareSettings, folder: Path, progress: Progress | None = None
) -> dict[str, Any]:
    """Make what is missing, measure every embedder, and write report.json.

    Args:
        settings: what is compared.
        folder: holds everything that is made.
        progress: told of each step.

    Returns:
        plain JSON values: settings, split, queries, pairs, reference, and methods, by name: title,
        data and score_model (of each seed, see `Trial`) and `tables.compare_figures`.

    Raises:
        SsraError: as `build`, `run` and `train_embedder` do.
    """
    measuring = Settings(
        precisions=("float32",), min_list=settings.min_list, resamples=settings.resamples
    )
    grades = settings.config().grades
    judged = read_judged(settings.corpus, settings.judgments, grades, settings.split, measuring)
    pipeline = Pipeline(settings, folder, judged, progress)
    figures: dict[str, list[Figures]] = {}
    made: dict[str, dict[str, Any]] = {}
    for name in settings.methods:
        trials = [pipeline.trial(name, seed) for seed in settings.seeds]
        figures[name] = [_measure(judged, trial, measuring) for trial in trials]
        made[name] = {
            "data": [trial.data for trial in trials],
            "score_model": [trial.score_model for trial in trials],
        }
    compared = compare_figures(figures, judged.pairs, measuring)
    report = {
        "settings": settings.model_dump(mode="json"),
        "split": settings.split,
        "queries": judged.pairs.queries,
        "pairs": len(judged.pairs.grade),
        "reference": reference_of(settings.methods),
        "methods": {
            name: {"title": METHODS[name].title, **made[name], **compared[name]}
            for name in settings.methods
        },
    }
    text = json.dumps(report, ensure_ascii=False, indent=1)
    put_file(folder / "report.json", f"{text}\n".encode())
    return report


def _measure(judged: Judged, trial: Trial, settings: Settings) -> Figures:
    """Of the whole vectors, at unit length."""
    width = trial.queries.shape[1]
    queries, documents = (truncate(matrix, width) for matrix in (trial.queries, trial.documents))
    return measure(judged.pairs, queries, documents, settings)
