"""Training of a cross-encoder as score model, through sentence-transformers' trainer."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
from sentence_transformers.cross_encoder.losses import CrossEntropyLoss
from transformers import PrinterCallback, TrainerCallback

from ssra_engine.calibration import fit_temperature, log_softmax
from ssra_engine.config import ScheduleConfig
from ssra_engine.errors import EngineError
from ssra_engine.models.cross_encoder import pair_logits
from ssra_engine.models.quiet import quiet_transformers
from ssra_engine.models.score_card import grade_weights, score_card, unclear_shares
from ssra_engine.models.training import trainer_settings, within_steps

__all__ = ["train_cross_encoder"]

# The activations of larger batches leave the cache.
_HELD_OUT_TOKENS = 4096


def train_cross_encoder(
    model: CrossEncoder,
    judged: pa.Table,
    held_out: pa.Table,
    config: ScheduleConfig,
    *,
    evenness: float,
    seed: int,
    unclear: pa.Table | None = None,
) -> dict[str, Any]:
    """Train all weights of `model` in place, as `train_score_model` trains a causal LM.

    With held-out rows, training stops early, ends with the best weights, and the logits are
    calibrated by one temperature.

    Args:
        model: with one logit a grade.
        judged: `schema.D2Q` rows to train on.
        held_out: `schema.D2Q` rows of other queries; may be empty.
        config: of the training.
        evenness: how far the mix of the judged grades is taken out; see `score_card`.
        seed: of data order and dropout.
        unclear: `schema.D2Q` rows whose queries have no grade; see `train_score_model`.

    Returns:
        its card; see `score_card`.
    """
    scale, power = model.num_labels, evenness / 2
    grades = judged["grade"].to_numpy().astype(np.int64)
    targets = np.eye(scale + 1, scale, dtype=np.float32)
    targets[grades, grades] = grade_weights(grades, scale, power)
    targets[scale] = unclear_shares(grades, scale, power)
    rows = judged if unclear is None else pa.concat_tables([judged, unclear])
    labels = np.append(grades, np.full(len(rows) - len(grades), scale))
    loss = CrossEntropyLoss(model)
    loss.ce_loss = _Targets(torch.from_numpy(targets))
    best = _BestWeights(model, lambda: _held_out_loss(model, held_out, power), config.patience)
    with tempfile.TemporaryDirectory(prefix="ssra-train-") as scratch, quiet_transformers():
        trainer = _Trainer(
            model=model,
            args=CrossEncoderTrainingArguments(
                **trainer_settings(Path(scratch), within_steps(config, len(rows)), seed)
            ),
            train_dataset=Dataset.from_dict(
                {
                    "query": rows["query"].to_pylist(),
                    "document": rows["document"].to_pylist(),
                    "label": labels,
                }
            ),
            loss=loss,
            callbacks=[best] if len(held_out) else [],
        )
        trainer.remove_callback(PrinterCallback)
        figures = {"train_loss": float(trainer.train().training_loss)}
    model.to("cpu").eval()
    logits = None
    if len(held_out):
        figures["held_out_loss"] = best.restore()
        logits = _logits(model, held_out)
    return score_card(judged, held_out, logits, scale, evenness, figures)


def _logits(model: CrossEncoder, rows: pa.Table) -> np.ndarray:
    queries, documents = rows["query"].to_pylist(), rows["document"].to_pylist()
    return pair_logits(model, queries, documents, _HELD_OUT_TOKENS)[0].astype(np.float64)


def _held_out_loss(model: CrossEncoder, rows: pa.Table, power: float) -> float:
    """Weighted loss at its best temperature, as a causal score model is watched by."""
    grades = rows["grade"].to_numpy().astype(np.int64)
    logits = _logits(model.eval(), rows)
    losses = -log_softmax(logits / fit_temperature(logits, grades))[np.arange(len(rows)), grades]
    weights = np.asarray(grade_weights(grades, model.num_labels, power))
    return float((losses * weights).sum() / weights.sum())


class _BestWeights(TrainerCallback):  # type: ignore[misc]  # transformers is seen as untyped
    """Keeps the weights of the epoch with the least loss, and ends training without progress."""

    def __init__(self, model: CrossEncoder, loss: Callable[[], float], patience: int) -> None:
        self._model, self._loss, self._patience = model, loss, patience
        self._least, self._waited = np.inf, 0
        self._weights: dict[str, torch.Tensor] = {}

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Measure."""
        loss = self._loss()
        self._waited += 1
        if loss < self._least:
            self._least, self._waited = loss, 0
            weights = self._model.state_dict()
            self._weights = {name: tensor.cpu().clone() for name, tensor in weights.items()}
        control.should_training_stop |= self._waited >= self._patience

    def restore(self) -> float:
        """Put the best weights back; their loss.

        Raises:
            EngineError: no epoch ended with a loss that is a number.
        """
        if not self._weights:
            raise EngineError(
                "the cross-encoder's training diverged: its loss on held-out judgments is not "
                "a number. Lower model.cross_encoder.rate."
            )
        self._model.load_state_dict(self._weights)
        return float(self._least)


class _Targets(torch.nn.Module):
    """Cross-entropy in which a label names what is to be learned.

    Args:
        targets: of each label its weight, laid out over the grades, float32[L, G].
    """

    _targets: torch.Tensor

    def __init__(self, targets: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("_targets", targets)

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Weighted mean over the rows: logits float32[N, G], labels int64[N]."""
        targets = self._targets[labels]
        return -(targets * logits.log_softmax(1)).sum() / targets.sum()


class _Trainer(CrossEncoderTrainer):  # type: ignore[misc]  # untyped
    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Leave it out: the card is ours (`score_card`)."""
