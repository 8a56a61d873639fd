"""One training of an embedder through the trainer of sentence-transformers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from transformers import PrinterCallback, TrainerCallback
from transformers.integrations import get_reporting_integration_callbacks

from ssra_engine.embedder.base import add_lora, checkpoint_activations, prompts_of
from ssra_engine.embedder.batches import distinct_batches
from ssra_engine.embedder.checkpoints import KeepLoss, last_checkpoint, restore_loss
from ssra_engine.embedder.losses import CachedGradedMatryoshkaLoss, GradedMatryoshkaLoss
from ssra_engine.embedder.processes import started
from ssra_engine.embedder.queue import DocumentQueue
from ssra_engine.embedder.settings import TrainSettings
from ssra_engine.errors import ConfigError

__all__ = ["REPORTS", "Fitted", "check_reports", "fit"]

#: Below the folder of checkpoints: what TensorBoard reads.
REPORTS = "runs"

#: Share of a batch below which what conflicts left over at the end of an epoch is left out of it.
_LEAST = 0.5

#: Steps taken so far, and in all.
Watch = Callable[[int, int], None]


@dataclass(frozen=True)
class Fitted:
    """How a training went.

    Attributes:
        curve: the loss every `log_steps` steps: step, epoch, loss, learning_rate, grad_norm.
        steps: of the optimiser.
        temperature: of the loss, at the end.
    """

    curve: list[dict[str, float]]
    steps: int
    temperature: float


def fit(
    model: SentenceTransformer,
    rows: Dataset,
    settings: TrainSettings,
    checkpoints: Path,
    watch: Watch | None = None,
) -> Fitted:
    """Train a model in place, going on from the last whole checkpoint where there is one.

    With a LoRA, the model has it when this returns; see `base.merge_lora`.

    Args:
        model: of `base.open_base`.
        rows: of `rows.read_training_rows`.
        settings: checked.
        checkpoints: a folder for checkpoints of this training and no other.
        watch: told of each step.

    Raises:
        ConfigError: a LoRA or checkpointing of activations is asked for, and the model has no
            transformer.
    """
    torch.manual_seed(settings.seed % 2**32)
    if settings.lora_rank:
        add_lora(model, settings)
    if settings.gradient_checkpointing:
        checkpoint_activations(model)
    loss = _loss(model, settings, _queue(model, rows, settings))
    trainer = _Trainer(
        model=model,
        args=_arguments(checkpoints, model, settings),
        train_dataset=rows,
        loss=loss,
        callbacks=[KeepLoss(loss), _Watching(watch or (lambda _done, _steps: None))],
    )
    trainer.remove_callback(PrinterCallback)
    last = last_checkpoint(checkpoints)
    if last is not None:
        restore_loss(loss, last)
    trainer.train(resume_from_checkpoint=None if last is None else str(last))
    names = ("step", "epoch", "loss", "learning_rate", "grad_norm")
    curve = [
        {name: entry[name] for name in names if name in entry}
        for entry in trainer.state.log_history
        if "loss" in entry
    ]
    model.eval()
    return Fitted(curve, int(trainer.state.global_step), loss.temperature)


def check_reports(names: Sequence[str]) -> None:
    """See that the trainer can report to all of these.

    Raises:
        ConfigError: it does not know one, or what that one needs is not installed.
    """
    for name in names:
        try:
            for callback in get_reporting_integration_callbacks(name):
                callback()
        except (ImportError, RuntimeError, ValueError) as error:
            raise ConfigError(f"--report-to {name}: {str(error).splitlines()[0]}") from error


def _queue(model: Any, rows: Dataset, settings: TrainSettings) -> DocumentQueue | None:
    """A queue that knows the positives of all rows."""
    if not settings.queue:
        return None
    queue = DocumentQueue(model, size=settings.queue)
    positive = rows.select(np.flatnonzero(np.asarray(rows["label"]) > 0))
    prompts = prompts_of(model)
    queue.know(
        list(positive["query"]),
        list(positive["document"]),
        query_prompt=prompts["query"] or None,
        document_prompt=prompts["document"] or None,
    )
    return queue


def _loss(model: Any, settings: TrainSettings, queue: DocumentQueue | None) -> GradedMatryoshkaLoss:
    told: dict[str, Any] = {
        "dims": sorted(settings.dims) or None,
        "temperature": settings.temperature,
        "learn_temperature": settings.learn_temperature,
        "self_contrast": settings.self_contrast,
        "false_negative_margin": settings.false_negative_margin,
        "cosent_weight": settings.cosent_weight,
        "queue": queue,
    }
    if settings.mini_batch_rows is None:
        return GradedMatryoshkaLoss(model, **told)
    return CachedGradedMatryoshkaLoss(model, mini_batch_size=settings.mini_batch_rows, **told)


def _arguments(
    folder: Path, model: SentenceTransformer, settings: TrainSettings
) -> SentenceTransformerTrainingArguments:
    prompts = prompts_of(model)
    most = settings.negatives + settings.judged_negatives
    negatives = (f"negative_{number + 1}" for number in range(most))
    by_column = {**prompts, **dict.fromkeys(negatives, prompts["document"])}
    return SentenceTransformerTrainingArguments(
        output_dir=str(folder),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_rows,
        learning_rate=settings.rate,
        lr_scheduler_type="cosine",
        warmup_steps=settings.warmup,
        weight_decay=settings.weight_decay,
        bf16=settings.bf16,
        use_cpu=model.device.type == "cpu",
        batch_sampler=distinct_batches(settings.recipe, _LEAST),
        # What sentence-transformers would set itself, with a warning; our batches need it not.
        dataloader_drop_last=started().count > 1,
        prompts=by_column if any(prompts.values()) else None,
        save_strategy="steps",
        save_steps=settings.checkpoint_steps,
        # The one before the last stays until the last is whole.
        save_total_limit=2,
        logging_steps=settings.log_steps,
        report_to=list(settings.report_to) or "none",
        seed=settings.seed % 2**32,
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
    )


class _Trainer(SentenceTransformerTrainer):  # type: ignore[misc]  # untyped
    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Leave it out: the model card is ours (`card`)."""


class _Watching(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Tell where training begins or goes on."""
        self._watch(state.global_step, state.max_steps)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Tell of a step."""
        self._watch(state.global_step, state.max_steps)
