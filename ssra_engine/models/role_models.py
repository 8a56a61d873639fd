"""The score model and the query model: one backbone, fine-tuned for two roles."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from peft import LoraConfig as PeftLoraConfig
from peft import get_peft_model
from sklearn.metrics import cohen_kappa_score, confusion_matrix, f1_score

from ssra_engine.calibration import evening_bias, fit_temperature, log_softmax
from ssra_engine.config import LoraConfig, TrainConfig
from ssra_engine.models.packing import PackedSequence, collate, pack
from ssra_engine.models.questions import QuestionEncoder
from ssra_engine.models.training import target_logits, train

__all__ = ["grade_weights", "quality", "train_query_model", "train_score_model"]

_PREDICT_ROWS = 64
_BINS = 10


def train_score_model(
    model: Any,
    encoder: QuestionEncoder,
    judged: pa.Table,
    held_out: pa.Table,
    config: TrainConfig,
    *,
    lora: LoraConfig | None,
    evenness: float,
    seed: int,
) -> tuple[Any, dict[str, Any]]:
    """(query, document) -> distribution over grades, as the logits of the label tokens.

    With held-out rows, training stops early and the logits are calibrated by one temperature.

    Args:
        model: the backbone; it is changed.
        encoder: of this backbone's tokenizer.
        judged: `schema.D2Q` rows to train on.
        held_out: `schema.D2Q` rows of other queries; may be empty.
        config: of the training.
        lora: train a LoRA and merge it; None trains all weights.
        evenness: how far the mix of the judged grades is taken out, 0 to 1: one half by the weights
            of the rows, the other by a bias (see `grade_weights` and `evening_bias`). Weights alone
            do less and less as the rare rows are learned by heart.
        seed: of data order, dropout and the adapter's weights.

    Returns:
        the trained model, and its card: ``temperature``, ``bias`` and, with held-out rows, the
        quality on them without the bias (``held_out``) and with it (``held_out_evened``).
    """
    power = evenness / 2
    sequences, watched = (_score_sequences(encoder, rows, power) for rows in (judged, held_out))
    model, figures = _fine_tune(
        model, sequences, watched, config, encoder, lora=lora, seed=seed, labels_only=True
    )
    bias = evening_bias(judged["grade"].to_numpy(), encoder.grades, power)
    card: dict[str, Any] = {"temperature": 1.0, "bias": list(bias), "training": figures}
    if watched:
        logits = _predict(model, watched, encoder)
        grades = held_out["grade"].to_numpy().astype(np.int64)
        card["temperature"] = fit_temperature(logits, grades)
        logits /= card["temperature"]
        card["held_out"] = quality(logits, grades)
        card["held_out_evened"] = quality(logits + np.asarray(bias), grades)
    return model, card


def train_query_model(
    model: Any,
    encoder: QuestionEncoder,
    d2q: pa.Table,
    config: TrainConfig,
    *,
    lora: LoraConfig | None,
    seed: int,
) -> tuple[Any, dict[str, Any]]:
    """(document, target grade) -> query, from `schema.D2Q`; the arguments of `train_score_model`.

    Returns:
        the trained model, and the figures of its training.
    """
    grades = d2q["grade"].to_numpy().astype(np.int64)
    documents, index = _documents(d2q)
    examples = encoder.query_examples(
        index, d2q["query"].to_pylist(), grades.tolist(), grade_weights(grades, encoder.grades)
    )
    sequences = pack(encoder.prefixes(documents), examples)
    return _fine_tune(
        model, sequences, [], config, encoder, lora=lora, seed=seed, labels_only=False
    )


def grade_weights(grades: np.ndarray, scale: int, power: float = 0.5) -> list[float]:
    """Weight of each row: its grade's share to the power of -`power`, with mean 1.

    One half lies between the natural mix, in which rare grades are never learned, and equal grades,
    in which a handful of rows would outweigh the rest.
    """
    share = np.bincount(grades, minlength=scale) / max(len(grades), 1)
    weights = share[grades] ** -power
    return [float(weight) for weight in weights / weights.mean()]


def quality(logits: np.ndarray, grades: np.ndarray) -> dict[str, Any]:
    """How good a score model is: calibrated logits float[N, G] against grades int[N].

    Returns:
        ``rows``, ``accuracy``, ``f1`` per grade, ``quadratic_kappa``, ``calibration_error``
        (expected, ten bins of confidence), ``reliability`` (rows, mean confidence and accuracy of
        each of those bins that holds rows) and the ``confusion`` matrix (rows: judged grade).
    """
    probs = np.exp(log_softmax(logits))
    scale = list(range(logits.shape[1]))
    predicted, confidence = probs.argmax(1), probs.max(1)
    right = predicted == grades
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    reliability = [
        [int(mine.sum()), float(confidence[mine].mean()), float(right[mine].mean())]
        for mine in (bins == b for b in np.unique(bins))
    ]
    gaps = [rows * abs(share - sure) / len(grades) for rows, sure, share in reliability]
    scores = f1_score(grades, predicted, labels=scale, average=None, zero_division=0.0)
    varied = len({*grades.tolist(), *predicted.tolist()}) > 1
    return {
        "rows": len(grades),
        "accuracy": float(right.mean()),
        "f1": [float(score) for score in scores],
        "quadratic_kappa": float(cohen_kappa_score(grades, predicted, weights="quadratic"))
        if varied
        else 0.0,
        "calibration_error": float(sum(gaps)),
        "reliability": reliability,
        "confusion": confusion_matrix(grades, predicted, labels=scale).tolist(),
    }


def _score_sequences(
    encoder: QuestionEncoder, rows: pa.Table, power: float
) -> list[PackedSequence]:
    """One sequence a row, in order."""
    grades = rows["grade"].to_numpy().astype(np.int64)
    documents, index = _documents(rows)
    examples = encoder.score_examples(
        index,
        rows["query"].to_pylist(),
        grades.tolist(),
        grade_weights(grades, encoder.grades, power),
    )
    prefixes = encoder.prefixes(documents)
    return [PackedSequence(tuple(prefixes[e.document]), (e,)) for e in examples]


def _documents(rows: pa.Table) -> tuple[list[str], list[int]]:
    """Distinct document texts, and which of them each row has."""
    encoded = rows["document"].combine_chunks().dictionary_encode()
    return encoded.dictionary.to_pylist(), encoded.indices.to_pylist()


def _fine_tune(
    model: Any,
    sequences: Sequence[PackedSequence],
    held_out: Sequence[PackedSequence],
    config: TrainConfig,
    encoder: QuestionEncoder,
    *,
    lora: LoraConfig | None,
    seed: int,
    labels_only: bool,
) -> tuple[Any, dict[str, Any]]:
    tuned = model
    if lora is not None:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # peft 0.21 asks transformers 5 by an old name.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            torch.manual_seed(seed)
            tuned = get_peft_model(
                model,
                PeftLoraConfig(
                    r=lora.rank,
                    lora_alpha=lora.alpha,
                    lora_dropout=lora.dropout,
                    target_modules="all-linear",
                    task_type="CAUSAL_LM",
                ),
            )
    figures = train(
        tuned,
        sequences,
        config,
        pad_id=encoder.pad_id,
        seed=seed,
        label_ids=encoder.label_ids if labels_only else None,
        held_out=held_out,
    )
    return (tuned if lora is None else tuned.merge_and_unload()).eval(), figures


def _predict(
    model: Any, sequences: Sequence[PackedSequence], encoder: QuestionEncoder
) -> np.ndarray:
    """Label logits float64[N, G] of sequences that hold one example each."""
    parts = []
    label_ids = torch.tensor(encoder.label_ids)
    with torch.inference_mode():
        for start in range(0, len(sequences), _PREDICT_ROWS):
            inputs = collate(sequences[start : start + _PREDICT_ROWS], encoder.pad_id)
            inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}
            logits, _ = target_logits(model, inputs, label_ids.to(model.device))
            parts.append(logits.double().cpu().numpy())
    return np.concatenate(parts)
