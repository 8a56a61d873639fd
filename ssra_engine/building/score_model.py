"""The score model of a build, of either kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ssra_engine.building.backbone import question_encoder
from ssra_engine.building.data import template_name
from ssra_engine.building.fingerprint import score_model_parts
from ssra_engine.building.task import Task
from ssra_engine.engine_folder import engine_options, open_score_model
from ssra_engine.prompts import TEMPLATES
from ssra_engine.stages.annotate import score_requests

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
    if task.keeps(score_model_parts):
        return task.take_over("score", "the score model")
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
        unclear=task.data.unclear,
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
        rationales=task.data.rationales,
        unclear=task.data.unclear,
        together=model.score_together,
    )
    save_backbone(network, tokenizer, task.folder / "score")
    if model.rationales == "write" and len(task.data.held_out):
        return _card_with_reasons(task, card)
    return card


def _card_with_reasons(task: Task, card: dict[str, Any]) -> dict[str, Any]:
    """The card of a score model that writes a reason before each grade, calibrated so."""
    from ssra_engine.models.score_card import score_card

    config, held_out = task.config, task.data.held_out
    options = engine_options(config, config.engine.backend)
    engine = open_score_model(task.folder / "score", config, options)
    try:
        requests = score_requests(held_out, TEMPLATES[template_name(config)], len(config.grades))
        labels = [str(grade) for grade in config.grades]
        parts = [batch.column("logits") for batch in engine.score_batches(requests, labels)]
    finally:
        engine.close()
    flat = np.concatenate([part.flatten().to_numpy(zero_copy_only=False) for part in parts])
    logits = flat.astype(np.float64).reshape(len(held_out), len(labels))
    evenness = config.model.evenness
    return score_card(task.data.train, held_out, logits, len(labels), evenness, card["training"])
