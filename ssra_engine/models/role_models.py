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

from ssra_engine.config import LoraConfig, TrainConfig
from ssra_engine.models.packing import Example, PackedSequence, collate, pack
from ssra_engine.models.questions import QuestionEncoder
from ssra_engine.models.score_card import grade_weights, score_card, unclear_shares
from ssra_engine.models.training import target_logits, train

__all__ = ["fine_tune", "predict", "train_query_model", "train_score_model"]

_PREDICT_ROWS = 64


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
    rationales: Sequence[str | None] | None = None,
    unclear: pa.Table | None = None,
    together: int = 1,
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
        rationales: why each judged row has its grade, where that is known: the model also learns to
            write that, and to grade after it. The grade alone can be asked for all the same.
        unclear: `schema.D2Q` rows whose queries have no grade: the model learns to find all grades
            alike, so that such a query passes for none (see `unclear_shares`).
        together: rows of a document that share one sequence, at most.

    Returns:
        the trained model, and its card (without reasons written); see `score_card`.
    """
    power = evenness / 2
    sequences = _score_sequences(encoder, judged, power, rationales, together)
    if unclear is not None:
        shares = unclear_shares(judged["grade"].to_numpy(), encoder.grades, power)
        sequences += _unclear_sequences(encoder, unclear, shares, together)
    watched = _score_sequences(encoder, held_out, power)
    labels = encoder.label_ids
    model, figures = fine_tune(
        model, sequences, watched, config, encoder, lora=lora, seed=seed, label_ids=labels
    )
    logits = predict(model, watched, encoder.pad_id, labels) if watched else None
    card = score_card(judged, held_out, logits, encoder.grades, evenness, figures)
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
    return fine_tune(model, sequences, [], config, encoder, lora=lora, seed=seed)


def _score_sequences(
    encoder: QuestionEncoder,
    rows: pa.Table,
    power: float,
    rationales: Sequence[str | None] | None = None,
    together: int = 1,
) -> list[PackedSequence]:
    """Rows of a document together; with one in a sequence, in order."""
    grades = rows["grade"].to_numpy().astype(np.int64)
    documents, index = _documents(rows)
    queries = rows["query"].to_pylist()
    weights = grade_weights(grades, encoder.grades, power)
    asked = [[e] for e in encoder.score_examples(index, queries, grades.tolist(), weights)]
    told = [row for row, text in enumerate(rationales or ()) if text is not None]
    more = encoder.rationale_examples(
        [index[row] for row in told],
        [queries[row] for row in told],
        [str((rationales or ())[row]) for row in told],
        grades[told].tolist(),
        [weights[row] for row in told],
    )
    for place, row in enumerate(told):
        asked[row] += more[2 * place : 2 * place + 2]
    return _packed(encoder.prefixes(documents), index, asked, together)


def _unclear_sequences(
    encoder: QuestionEncoder, rows: pa.Table, shares: list[float], together: int
) -> list[PackedSequence]:
    """Each row asks once for each grade; `shares` are the weights of these."""
    documents, index = _documents(rows)
    queries = rows["query"].to_pylist()
    asked = [
        encoder.score_examples(index, queries, [grade] * len(rows), [share] * len(rows))
        for grade, share in enumerate(shares)
    ]
    return _packed(encoder.prefixes(documents), index, list(zip(*asked, strict=True)), together)


def _packed(
    prefixes: list[list[int]],
    documents: list[int],
    asked: Sequence[Sequence[Example]],
    together: int,
) -> list[PackedSequence]:
    """Sequences of at most `together` rows of one document, in first-seen order.

    Args:
        prefixes: of each document.
        documents: index of each row's document.
        asked: examples of each row.
        together: rows in a sequence.
    """
    groups: list[tuple[int, list[Example]]] = []
    open_groups: dict[int, int] = {}
    rows = [0] * len(prefixes)
    for document, examples in zip(documents, asked, strict=True):
        if rows[document] % together == 0:
            open_groups[document] = len(groups)
            groups.append((document, []))
        groups[open_groups[document]][1].extend(examples)
        rows[document] += 1
    return [PackedSequence(tuple(prefixes[document]), tuple(group)) for document, group in groups]


def _documents(rows: pa.Table) -> tuple[list[str], list[int]]:
    """Distinct document texts, and which of them each row has."""
    encoded = rows["document"].combine_chunks().dictionary_encode()
    return encoded.dictionary.to_pylist(), encoded.indices.to_pylist()


def fine_tune(
    model: Any,
    sequences: Sequence[PackedSequence],
    held_out: Sequence[PackedSequence],
    config: TrainConfig,
    encoder: QuestionEncoder,
    *,
    lora: LoraConfig | None,
    seed: int,
    label_ids: Sequence[int] | None = None,
) -> tuple[Any, dict[str, Any]]:
    """Train all weights of a causal LM, or a LoRA that is merged; the arguments of `train`."""
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
        label_ids=label_ids,
        held_out=held_out,
    )
    return (tuned if lora is None else tuned.merge_and_unload()).eval(), figures


def predict(
    model: Any, sequences: Sequence[PackedSequence], pad_id: int, labels: Sequence[int]
) -> np.ndarray:
    """Logits of the labels' tokens float64[N, L], of sequences that hold one example each."""
    parts = []
    label_ids = torch.tensor(labels)
    with torch.inference_mode():
        for start in range(0, len(sequences), _PREDICT_ROWS):
            inputs = collate(sequences[start : start + _PREDICT_ROWS], pad_id)
            inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}
            logits, _ = target_logits(model, inputs, label_ids.to(model.device))
            parts.append(logits.double().cpu().numpy())
    return np.concatenate(parts)
