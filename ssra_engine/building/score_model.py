"""The score model of a build, of either kind."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from ssra_engine.building.backbone import question_encoder
from ssra_engine.building.fingerprint import score_model_parts
from ssra_engine.building.task import Task
from ssra_engine.durable import writing

__all__ = ["make_score_model"]


def make_score_model(task: Task, backbone: Path) -> dict[str, Any]:
    """Train the score model and save it, or take it over.

    Args:
        task: what is to be built.
        backbone: of a causal score model.

    Returns:
        its card; see `score_card`.

    Raises:
        EngineError: the backbone, or the encoder of a cross-encoder, cannot be read.
    """
    if task.there is not None and task.keeps(score_model_parts):
        task.steps.begin("keep the score model", 0, 0)
        with writing(task.folder):
            shutil.copytree(task.there.folder / "score", task.folder / "score")
        kept: dict[str, Any] = task.there.manifest["figures"]["score"]
        return kept
    task.steps.begin("train the score model", 0, 0)
    if task.config.model.score_model == "cross-encoder":
        return _train_cross_encoder(task)
    return _train_causal(task, backbone)


def _train_cross_encoder(task: Task) -> dict[str, Any]:
    from ssra_engine.models.cross_encoder import open_cross_encoder, save_cross_encoder
    from ssra_engine.models.cross_encoder_training import train_cross_encoder

    config, model = task.config, task.config.model
    encoder = open_cross_encoder(
        str(model.cross_encoder.backbone),
        grades=len(config.grades),
        max_tokens=model.max_document_tokens + model.max_query_tokens,
        seed=config.seed,
    )
    card = train_cross_encoder(
        encoder,
        task.data.train,
        task.data.held_out,
        model.cross_encoder,
        evenness=model.evenness,
        seed=config.seed,
    )
    save_cross_encoder(encoder, task.folder / "score")
    return card


def _train_causal(task: Task, backbone: Path) -> dict[str, Any]:
    from ssra_engine.models.backbone import load_backbone, save_backbone
    from ssra_engine.models.role_models import train_score_model

    model = task.config.model
    network, tokenizer = load_backbone(backbone)
    network, card = train_score_model(
        network,
        question_encoder(task.config, tokenizer),
        task.data.train,
        task.data.held_out,
        model.score,
        lora=None if model.preset else model.lora,
        evenness=model.evenness,
        seed=task.config.seed,
    )
    save_backbone(network, tokenizer, task.folder / "score")
    return card
