"""The backbone of the causal roles: a folder or file that is given, or a tiny one made here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from ssra_engine.building.data import BuildData, template_name
from ssra_engine.building.task import Task
from ssra_engine.config import Config
from ssra_engine.prompts import TEMPLATES

if TYPE_CHECKING:
    from ssra_engine.models.questions import QuestionEncoder

__all__ = ["prepare_backbone", "question_encoder"]


def prepare_backbone(task: Task) -> tuple[Path, dict[str, float] | None]:
    """Where the backbone is; a preset's is trained into the folder of the task first.

    Returns:
        its folder or file, and the figures of its training.
    """
    model = task.config.model
    if not model.preset:
        return Path(str(model.backbone)), None
    task.steps.begin("train the tiny backbone", 0, 0)
    folder = task.folder / "backbone"
    return folder, _train_tiny(task.config, task.data, folder)


def question_encoder(config: Config, tokenizer: Any) -> QuestionEncoder:
    """Prompts as tokens of a backbone's tokenizer.

    Raises:
        EngineError: a grade's digit is not one token of it.
    """
    from ssra_engine.models.questions import QuestionEncoder

    return QuestionEncoder(
        tokenizer,
        TEMPLATES[template_name(config)],
        len(config.grades),
        max_document_tokens=config.model.max_document_tokens,
        max_query_tokens=config.model.max_query_tokens,
        max_rationale_tokens=config.model.max_rationale_tokens,
    )


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
    encoder = question_encoder(config, tokenizer)
    context = model.max_document_tokens + 4 * model.max_query_tokens + 64
    if model.rationales != "none":
        context += model.max_rationale_tokens
    network = new_backbone(tokenizer, model.tiny, context, config.seed)
    figures = pretrain(network, encoder, documents, model.tiny, seed=config.seed)
    save_backbone(network, tokenizer, folder)
    return figures
