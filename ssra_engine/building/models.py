"""The models of an engines folder, trained one after the other.

    judgments -> score model -> grades for the unlabelled pairs -> query model

What another build of the same folder made of the same data and settings is taken over from it.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ssra_engine.building.annotation import grade_pairs
from ssra_engine.building.backbone import prepare_backbone, question_encoder
from ssra_engine.building.comparator import make_comparator
from ssra_engine.building.data import BuildData, template_name
from ssra_engine.building.fingerprint import training_data_parts
from ssra_engine.building.score_model import make_score_model
from ssra_engine.building.task import Task
from ssra_engine.calibration import Calibration
from ssra_engine.durable import remove
from ssra_engine.engine_folder import MANIFEST, read_d2q
from ssra_engine.schema import D2Q

__all__ = ["train_models"]


def train_models(task: Task) -> dict[str, Any]:
    """Fill the folder of a task: models, training data, settings and manifest.

    Returns:
        the figures of the manifest: sizes of the data, the score model's quality, the training.

    Raises:
        EngineError: the backbone cannot be read, or the score model cannot grade the pairs.
    """
    from ssra_engine.models.backbone import load_backbone, save_backbone
    from ssra_engine.models.role_models import train_query_model

    config, folder = task.config, task.folder
    figures = _sizes(task.data, len(config.grades))
    backbone, training = prepare_backbone(task)
    if training is not None:
        figures["backbone"] = training
    figures["score"] = make_score_model(task, backbone)
    d2q = _training_data(task, figures["score"])
    figures["d2q"] = _counts(d2q, len(config.grades))
    task.steps.begin("train the query model", 0, 0)
    network, tokenizer = load_backbone(backbone)
    network, figures["query"] = train_query_model(
        network,
        question_encoder(config, tokenizer),
        d2q,
        config.model.query,
        lora=None if config.model.preset else config.model.lora,
        seed=config.seed,
    )
    save_backbone(network, tokenizer, folder / "query")
    if config.model.train_comparator:
        figures["comparator"] = make_comparator(task, backbone)
    if config.model.preset:
        remove(backbone)
    _write_papers(task, d2q, figures)
    return figures


def _sizes(data: BuildData, grades: int) -> dict[str, Any]:
    return {
        "documents": len(data.documents),
        "judgments": {
            "train": len(data.train),
            "dev": len(data.held_out),
            "train_grades": _per_grade(data.train["grade"], grades),
            "of_audits": data.audited,
            "unclear": len(data.unclear),
        },
        "pairs": len(data.pairs),
        "pairs_of_held_out_queries": data.pairs_of_held_out_queries,
    }


def _training_data(task: Task, card: dict[str, Any]) -> pa.Table:
    """What the query model learns from, `schema.D2Q`; `card` is that of the score model."""
    if task.there is not None and task.keeps(training_data_parts):
        return read_d2q(task.there.folder)
    calibration = Calibration(card["temperature"], tuple(card["bias"]))
    return grade_pairs(task.config, task.data, task.folder, calibration, task.steps)


def _write_papers(task: Task, d2q: pa.Table, figures: dict[str, Any]) -> None:
    """All but the models."""
    config, folder = task.config, task.folder
    with pa.OSFile(str(folder / "d2q.arrow"), "wb") as sink, pa.ipc.new_file(sink, D2Q) as writer:
        writer.write_table(d2q)
    (folder / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
    manifest = {
        "version": 2,
        "fingerprint": task.fingerprint,
        "grades": list(config.grades),
        "template": template_name(config),
        "figures": figures,
    }
    (folder / MANIFEST).write_text(
        json.dumps(manifest, indent=1, ensure_ascii=False), encoding="utf-8"
    )


def _counts(d2q: pa.Table, grades: int) -> dict[str, list[int]]:
    """Rows of each grade, by source."""
    return {
        source: _per_grade(d2q.filter(pc.equal(d2q["source"], source))["grade"], grades)
        for source in ("judgment", "score")
    }


def _per_grade(column: pa.ChunkedArray, grades: int) -> list[int]:
    counts: list[int] = np.bincount(column.to_numpy(), minlength=grades).tolist()
    return counts
