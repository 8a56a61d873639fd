"""Supervised training of a causal LM on packed questions, through the transformers `Trainer`."""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.nn.functional import cross_entropy, linear
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainingArguments,
)
from transformers.trainer_pt_utils import LengthGroupedSampler

from ssra_engine.calibration import fit_temperature
from ssra_engine.config import ScheduleConfig, TrainConfig
from ssra_engine.models.packing import IGNORED, PackedSequence, collate
from ssra_engine.models.quiet import quiet_transformers

__all__ = ["target_logits", "train", "trainer_settings", "within_steps"]

_Schedule = TypeVar("_Schedule", bound=ScheduleConfig)


def target_logits(
    model: Any, inputs: dict[str, torch.Tensor], label_ids: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits at the positions that carry a target, and the mask of those positions.

    The head is computed for these positions only and, where `label_ids` is given, for the label
    rows only: for a 4,096-token vocabulary and four labels that is a thousandth of the head.

    Returns:
        float32[P, vocabulary or len(label_ids)] and bool[B, T] with P true entries.
    """
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    hidden = causal.get_decoder()(
        input_ids=inputs["input_ids"],
        position_ids=inputs["position_ids"],
        attention_mask=inputs["attention_mask"],
        use_cache=False,
    ).last_hidden_state
    chosen = inputs["targets"] != IGNORED
    head = causal.get_output_embeddings()
    if label_ids is None:
        logits = head(hidden[chosen])
    else:
        bias = None if head.bias is None else head.bias[label_ids]
        logits = linear(hidden[chosen], head.weight[label_ids], bias)
    cap = getattr(causal.config.get_text_config(), "final_logit_softcapping", None)
    logits = logits.float()
    return (logits if cap is None else cap * torch.tanh(logits / cap)), chosen


def _labels_among_labels(
    logits: torch.Tensor, text: torch.Tensor, label_ids: torch.Tensor
) -> torch.Tensor:
    """Logits [P, vocabulary] in which no other token can be chosen where the target is no text."""
    others = torch.ones(logits.shape[1], dtype=torch.bool, device=logits.device)
    others[label_ids] = False
    return logits.masked_fill(~text[:, None] & others, -torch.inf)


class _PackedTrainer(Trainer):  # type: ignore[misc]  # transformers is seen as untyped
    """Weighted cross-entropy over packed sequences, optionally over label tokens only."""

    control: Any

    def __init__(
        self, *args: Any, label_ids: torch.Tensor | None, attention_rate: float, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._label_ids = label_ids
        self._attention_rate = attention_rate
        self.model_accepts_loss_kwargs = False

    def compute_loss(
        self, model: Any, inputs: dict[str, torch.Tensor], return_outputs: bool = False, **_: Any
    ) -> Any:
        labels, mixed = self._label_ids, bool(inputs["text"].any())
        logits, chosen = target_logits(model, inputs, None if mixed else labels)
        targets, weights = inputs["targets"][chosen], inputs["weights"][chosen]
        if labels is not None and mixed:
            logits = _labels_among_labels(logits, inputs["text"][chosen], labels)
        elif labels is not None:
            targets = (targets[:, None] == labels).int().argmax(1)
        losses = cross_entropy(logits, targets, reduction="none")
        loss = (losses * weights).sum() / weights.sum()
        return (loss, {"logits": logits}) if return_outputs else loss

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        factor = self._attention_rate
        named = [(n, w) for n, w in self.model.named_parameters() if w.requires_grad]
        slow = [w for n, w in named if factor != 1 and "self_attn" in n]
        fast = [w for n, w in named if factor == 1 or "self_attn" not in n]
        rate, decay = self.args.learning_rate, self.args.weight_decay
        groups = [{"params": fast, "lr": rate}, {"params": slow, "lr": rate * factor}]
        self.optimizer = torch.optim.AdamW(
            [group for group in groups if group["params"]], lr=rate, weight_decay=decay
        )
        return self.optimizer

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Weighted loss of the held-out data, that of label tokens at its best temperature.

        Calibration takes back what a longer training gains in confidence, so confidence alone must
        not end it.
        """
        metrics = {"eval_loss": self._held_out_loss()}
        self.control = self.callback_handler.on_evaluate(
            self.args,
            self.state,
            self.control,
            metrics,
        )
        return metrics

    def _held_out_loss(self) -> float:
        self.model.eval()
        parts = []
        for batch in self.get_eval_dataloader():
            inputs = self._prepare_inputs(batch)
            with torch.no_grad():
                logits, chosen = target_logits(self.model, inputs, self._label_ids)
            parts.append((logits, inputs["targets"][chosen], inputs["weights"][chosen]))
        logits, targets, weights = (torch.cat(column).cpu() for column in zip(*parts, strict=True))
        if self._label_ids is not None:
            targets = (targets[:, None] == self._label_ids.cpu()).int().argmax(1)
            logits /= fit_temperature(logits.double().numpy(), targets.numpy())
        losses = cross_entropy(logits, targets, reduction="none")
        return float((losses * weights).sum() / weights.sum())

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        rows = self.train_dataset if train_dataset is None else train_dataset
        return LengthGroupedSampler(self.args.train_batch_size, lengths=[len(row) for row in rows])


def train(
    model: PreTrainedModel,
    sequences: Sequence[PackedSequence],
    config: TrainConfig,
    *,
    pad_id: int,
    seed: int,
    label_ids: Sequence[int] | None = None,
    held_out: Sequence[PackedSequence] = (),
) -> dict[str, float]:
    """Train `model` in place; with `held_out`, stop early and end with the best weights.

    Args:
        model: a causal LM, or a peft model around one.
        sequences: training data; see `packing.pack`.
        config: epochs, rate and schedule.
        pad_id: token that fills short rows.
        seed: of data order and dropout.
        label_ids: restrict the softmax to these tokens, of which every target must be one, except
            in examples whose target is text.
        held_out: data whose loss decides when to stop.

    Returns:
        ``train_loss`` and, with `held_out`, ``held_out_loss`` of the kept weights.
    """
    config = within_steps(config, len(sequences))
    with tempfile.TemporaryDirectory(prefix="ssra-train-") as scratch, _embeddings(model, config):
        trainer = _PackedTrainer(
            model=model,
            args=_arguments(Path(scratch), config, seed, early_stop=bool(held_out)),
            train_dataset=list(sequences),
            eval_dataset=list(held_out) or None,
            data_collator=lambda rows: collate(rows, pad_id),
            callbacks=[EarlyStoppingCallback(config.patience)] if held_out else None,
            label_ids=None if label_ids is None else torch.tensor(label_ids),
            attention_rate=config.attention_rate,
        )
        trainer.remove_callback(PrinterCallback)
        with quiet_transformers():
            outcome = trainer.train()
        figures = {"train_loss": float(outcome.training_loss)}
        if held_out:
            figures["held_out_loss"] = float(trainer.state.best_metric)
    model.eval()
    return figures


@contextlib.contextmanager
def _embeddings(model: PreTrainedModel, config: TrainConfig) -> Iterator[None]:
    """Keep the embeddings (and a head tied to them) as they are where the settings say so."""
    weights = model.get_input_embeddings().weight
    trainable = weights.requires_grad
    weights.requires_grad_(trainable and config.train_embeddings)
    try:
        yield
    finally:
        weights.requires_grad_(trainable)


def within_steps(config: _Schedule, rows: int) -> _Schedule:
    """The same settings, with fewer epochs where `rows` would take more than `max_steps`."""
    steps = math.ceil(rows / config.batch_rows) * config.epochs
    if config.max_steps is None or steps <= config.max_steps:
        return config
    return config.model_copy(update={"epochs": config.epochs * config.max_steps / steps})


def trainer_settings(folder: Path, config: ScheduleConfig, seed: int) -> dict[str, Any]:
    """What every training tells the transformers `Trainer`; nothing is saved or printed."""
    return {
        "output_dir": str(folder),
        "num_train_epochs": config.epochs,
        "per_device_train_batch_size": config.batch_rows,
        "per_device_eval_batch_size": config.batch_rows,
        "learning_rate": config.rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": config.warmup,
        "weight_decay": config.weight_decay,
        "max_grad_norm": 1.0,
        "seed": seed % 2**32,
        "data_seed": seed % 2**32,
        "use_cpu": not torch.cuda.is_available(),
        "remove_unused_columns": False,
        "prediction_loss_only": True,
        "disable_tqdm": True,
        "logging_strategy": "no",
        "report_to": "none",
        "dataloader_pin_memory": False,
        "save_strategy": "no",
    }


def _arguments(
    folder: Path, config: TrainConfig, seed: int, *, early_stop: bool
) -> TrainingArguments:
    watch: dict[str, Any] = {}
    if early_stop:
        watch = {
            "eval_strategy": "epoch",
            "save_strategy": "epoch",
            "save_total_limit": 1,
            "save_only_model": True,
            "load_best_model_at_end": True,
            "metric_for_best_model": "eval_loss",
            "greater_is_better": False,
        }
    return TrainingArguments(**trainer_settings(folder, config, seed) | watch)
