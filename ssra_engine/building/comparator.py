"""The comparator of a build: trained, where the settings ask for one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ssra_engine.building.backbone import question_encoder
from ssra_engine.building.data import BuildData
from ssra_engine.building.fingerprint import comparator_parts
from ssra_engine.building.task import Task
from ssra_engine.config import Config
from ssra_engine.errors import ConfigError

__all__ = ["check_pairs", "make_comparator"]


def check_pairs(config: Config, data: BuildData) -> None:
    """Refuse to train a comparator on nothing.

    Raises:
        ConfigError: no document has two judged queries of different grades to train on.
    """
    from ssra_engine.models.comparator import judged_pairs

    if config.model.train_comparator and not judged_pairs(data.train, len(config.grades)):
        raise ConfigError(
            "model.train_comparator: no document has two judged queries of different grades in the "
            "train split, so there is nothing to learn from. Leave out --train-comparator."
        )


def make_comparator(task: Task, backbone: Path) -> dict[str, Any]:
    """Train the comparator and save it, or take it over.

    Args:
        task: what is to be built.
        backbone: its start.

    Returns:
        its card; see `train_comparator`.

    Raises:
        EngineError: the backbone cannot be read.
    """
    from ssra_engine.models.backbone import load_backbone, save_backbone
    from ssra_engine.models.comparator import judged_pairs, train_comparator

    if task.keeps(comparator_parts):
        return task.take_over("comparator", "the comparator")
    task.steps.begin("train the comparator", 0, 0)
    config, model = task.config, task.config.model
    network, tokenizer = load_backbone(backbone)
    network, card = train_comparator(
        network,
        question_encoder(config, tokenizer),
        judged_pairs(task.data.train, len(config.grades)),
        judged_pairs(task.data.held_out, len(config.grades)),
        model.compare,
        lora=None if model.preset else model.lora,
        evenness=model.evenness,
        seed=config.seed,
    )
    save_backbone(network, tokenizer, task.folder / "comparator")
    return card
