"""The models of an engines folder, trained one after the other.

    judgments -> score model -> grades for the unlabelled pairs -> query model

What another build of the same folder made of the same data and settings is taken over from it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ssra_engine.building.annotation import grade_pairs
from ssra_engine.building.data import BuildData, template_name
from ssra_engine.building.fingerprint import score_model_parts, training_data_parts
from ssra_engine.calibration import Calibration
from ssra_engine.config import Config
from ssra_engine.durable import remove, writing
from ssra_engine.engine_folder import MANIFEST, Engines, read_d2q
from ssra_engine.prompts import TEMPLATES
from ssra_engine.schema import D2Q
from ssra_engine.steps import Progress

if TYPE_CHECKING:
    from ssra_engine.models.questions import QuestionEncoder

__all__ = ["Task", "train_models"]


@dataclass(frozen=True)
class Task:
    """What is to be built.

    Attributes:
        config: the tree.
        data: checked input.
        folder: an empty folder for the models.
        fingerprint: of what they are made from.
        there: an engines folder to take over from, or None.
        steps: told of each step.
    """

    config: Config
    data: BuildData
    folder: Path
    fingerprint: dict[str, Any]
    there: Engines | None
    steps: Progress

    def keeps(self, parts: Callable[[dict[str, Any]], dict[str, Any]]) -> bool:
        """Whether the engines that are there were made from the same, as far as `parts` tells."""
        if self.there is None:
            return False
        return parts(self.there.manifest["fingerprint"]) == parts(self.fingerprint)


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
    model = config.model
    backbone = folder / "backbone" if model.preset else Path(str(model.backbone))
    figures = _sizes(task.data, len(config.grades))
    if model.preset:
        task.steps.begin("train the tiny backbone", 0, 0)
        figures["backbone"] = _train_tiny(config, task.data, backbone)
    figures["score"] = _score_model(task, backbone)
    d2q = _training_data(task, figures["score"])
    figures["d2q"] = _counts(d2q, len(config.grades))
    task.steps.begin("train the query model", 0, 0)
    network, tokenizer = load_backbone(backbone)
    network, figures["query"] = train_query_model(
        network,
        _encoder(config, tokenizer),
        d2q,
        model.query,
        lora=None if model.preset else model.lora,
        seed=config.seed,
    )
    save_backbone(network, tokenizer, folder / "query")
    if model.preset:
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
        },
        "pairs": len(data.pairs),
        "pairs_of_held_out_queries": data.pairs_of_held_out_queries,
    }


def _train_tiny(config: Config, data: BuildData, folder: Path) -> dict[str, float]:
    from ssra_engine.models.backbone import save_backbone
    from ssra_engine.models.tiny import new_backbone, pretrain, train_tokenizer

    model = config.model
    documents = data.documents["document"].to_pylist()
    queries = pc.unique(
        pa.chunked_array([*data.train["query"].chunks, *data.pairs["query"].chunks])
    )
    asked = (f"Q: {query}\n" for query in queries.to_pylist())
    tokenizer = train_tokenizer([*documents, *asked], model.tiny.vocabulary)
    encoder = _encoder(config, tokenizer)
    context = model.max_document_tokens + 4 * model.max_query_tokens + 64
    network = new_backbone(tokenizer, model.tiny, context, config.seed)
    figures = pretrain(network, encoder, documents, model.tiny, seed=config.seed)
    save_backbone(network, tokenizer, folder)
    return figures


def _score_model(task: Task, backbone: Path) -> dict[str, Any]:
    """Train the score model and save it, or take it over; its card."""
    from ssra_engine.models.backbone import load_backbone, save_backbone
    from ssra_engine.models.role_models import train_score_model

    model = task.config.model
    if task.there is not None and task.keeps(score_model_parts):
        task.steps.begin("keep the score model", 0, 0)
        with writing(task.folder):
            shutil.copytree(task.there.folder / "score", task.folder / "score")
        kept: dict[str, Any] = task.there.manifest["figures"]["score"]
        return kept
    task.steps.begin("train the score model", 0, 0)
    network, tokenizer = load_backbone(backbone)
    network, card = train_score_model(
        network,
        _encoder(task.config, tokenizer),
        task.data.train,
        task.data.held_out,
        model.score,
        lora=None if model.preset else model.lora,
        evenness=model.evenness,
        seed=task.config.seed,
    )
    save_backbone(network, tokenizer, task.folder / "score")
    return card


def _training_data(task: Task, card: dict[str, Any]) -> pa.Table:
    """What the query model learns from, `schema.D2Q`; `card` is that of the score model."""
    if task.there is not None and task.keeps(training_data_parts):
        return read_d2q(task.there.folder)
    calibration = Calibration(card["temperature"], tuple(card["bias"]))
    return grade_pairs(task.config, task.data, task.folder, calibration, task.steps)


def _encoder(config: Config, tokenizer: Any) -> QuestionEncoder:
    from ssra_engine.models.questions import QuestionEncoder

    return QuestionEncoder(
        tokenizer,
        TEMPLATES[template_name(config)],
        len(config.grades),
        max_document_tokens=config.model.max_document_tokens,
        max_query_tokens=config.model.max_query_tokens,
    )


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
