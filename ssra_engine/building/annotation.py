"""Stage 1 of a build: the score model grades the pairs, which joins them to the judgments."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from ssra_engine.building.data import BuildData, template_name
from ssra_engine.calibration import Calibration
from ssra_engine.config import Config
from ssra_engine.engine_folder import engine_options, open_score_model, score_template
from ssra_engine.stages.annotate import annotated, d2q_rows, score_requests, training_data
from ssra_engine.stages.filter import score
from ssra_engine.steps import Progress

__all__ = ["grade_pairs"]


def grade_pairs(
    config: Config, data: BuildData, folder: Path, calibration: Calibration, steps: Progress
) -> pa.Table:
    """Grade the pairs with the score model just saved, and merge them with the judgments.

    Returns:
        training data of the query model, `schema.D2Q`.

    Raises:
        EngineError: the score model cannot be loaded.
    """
    documents = data.documents
    labels = [str(grade) for grade in config.grades]
    rows = d2q_rows(
        data.pairs.append_column("grade", pa.array([0] * len(data.pairs), pa.int8())),
        documents,
        "score",
    )
    steps.begin("grade the pairs", len(rows), 0)
    done = 0

    def advance(scored: int) -> None:
        nonlocal done
        done += scored
        steps.update(done)

    template = score_template(config, template_name(config))
    options = engine_options(config, config.engine.backend)
    engine = open_score_model(folder / "score", config, options)
    try:
        requests = score_requests(rows, template, len(config.grades))
        probs = score(engine, requests, labels, calibration, advance)
    finally:
        engine.close()
    graded = annotated(data.pairs, probs)
    return training_data(
        data.train,
        d2q_rows(graded, documents, "score"),
        probs.max(1, initial=0.0),
        most=config.annotate.max_documents_per_query,
        least=config.annotate.min_confidence,
    )
