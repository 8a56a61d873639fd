"""Cross-encoders: encoders that read a query and a document side by side, one logit a grade.

They are sentence-transformers' `CrossEncoder`, and their folders are plain ones that it opens.
Weights come from safetensors only, and no code of a folder is run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import CrossEncoder
from sentence_transformers.base.modules import Transformer

from ssra_engine.errors import EngineError
from ssra_engine.models.backbone import model_source
from ssra_engine.models.quiet import quiet_transformers

__all__ = ["open_cross_encoder", "pair_logits", "save_cross_encoder"]


def open_cross_encoder(
    folder: str | Path,
    *,
    grades: int | None = None,
    max_tokens: int | None = None,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> CrossEncoder:
    """Open a cross-encoder, or put a new head on an encoder.

    Text that spells a special token ("[SEP]") stays text, so a document cannot forge one.

    Args:
        folder: with config.json, safetensors weights and a tokenizer.
        grades: size of the scale; None where the folder is a trained cross-encoder.
        max_tokens: a longer pair is cut at the end of its longer text; by default what the folder
            says. Never more than the encoder has positions for.
        dtype: of the weights in memory.
        seed: of a new head.

    Raises:
        EngineError: the folder is not a model that can be opened, or it cannot pad.
    """
    folder = Path(folder)
    if folder.is_file():
        raise EngineError(f"{folder}: a cross-encoder is a model folder, not a file.")
    model_source(folder)
    own: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    scale = {} if grades is None else {"num_labels": grades}
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(seed)
        try:
            body = Transformer(
                str(folder),
                transformer_task="sequence-classification",
                model_kwargs={**own, "use_safetensors": True, "dtype": dtype},
                processor_kwargs=dict(own),
                config_kwargs={**own, **scale},
            )
            model = CrossEncoder(modules=[body], device="cpu")
        except Exception as error:  # readers of broken files raise a dozen kinds
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            raise EngineError(f"{folder}: cannot be read as a cross-encoder: {reason}") from error
    if getattr(model.tokenizer, "pad_token_id", None) is None:
        raise EngineError(f"{folder}: its tokenizer has no padding token; give an encoder.")
    model.tokenizer.split_special_tokens = True
    most = [number for number in (max_tokens, model.max_seq_length, _positions(model)) if number]
    if most:
        model.max_seq_length = min(most)
    return model.eval()


def save_cross_encoder(model: CrossEncoder, folder: str | Path) -> None:
    """Write a plain safetensors folder that `open_cross_encoder` and sentence-transformers open.

    Raises:
        EngineError: the folder cannot be written.
    """
    with quiet_transformers():
        try:
            model.save_pretrained(str(folder), create_model_card=False)
        except OSError as error:
            raise EngineError(f"{folder}: the model cannot be written: {error}.") from error


def pair_logits(
    model: CrossEncoder, queries: Sequence[str], documents: Sequence[str], batch_tokens: int
) -> tuple[np.ndarray, int]:
    """Logits of N pairs, which depend on each pair alone (up to float rounding).

    Args:
        model: on any device.
        queries: N of them.
        documents: N of them.
        batch_tokens: most tokens of a batch, padding included; a longer pair is a batch of its own.

    Returns:
        float32[N, G], and the number of tokens read.
    """
    if not queries:
        return np.empty((0, model.num_labels), np.float32), 0
    # Without tensors nothing is padded yet: pairs of like length are to share a batch.
    encoded = model.tokenizer(list(queries), list(documents), truncation=True, verbose=False)
    lengths = np.fromiter(map(len, encoded["input_ids"]), np.int64, len(queries))
    logits = np.empty((len(queries), model.num_labels), np.float32)
    with torch.inference_mode():
        for rows in _batches(lengths, batch_tokens):
            inputs = _padded(encoded, rows, int(lengths[rows].max()), model.tokenizer)
            inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}
            logits[rows] = model.model(**inputs).logits.float().cpu().numpy()
    return logits, int(lengths.sum())


def _positions(model: CrossEncoder) -> int | None:
    """Positions of the encoder, None where it says none; RoBERTa's begin behind the padding's."""
    for name, module in model.model.named_modules():
        if name.endswith("embeddings.position_embeddings") and isinstance(
            module, torch.nn.Embedding
        ):
            first = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - first
    return None


def _batches(lengths: np.ndarray, batch_tokens: int) -> Iterator[np.ndarray]:
    """Rows of each batch, longest first, so that a batch too large for the memory comes first."""
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        fitting = max(1, batch_tokens // int(lengths[order[start]]))
        yield order[start : start + fitting]
        start += fitting


def _padded(encoded: Any, rows: np.ndarray, width: int, tokenizer: Any) -> dict[str, torch.Tensor]:
    """Features int64[len(rows), width] of some rows, padded on the right."""
    fill = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
    features = {}
    for name in encoded:
        padded = np.full((len(rows), width), fill.get(name, 0), np.int64)
        for place, row in enumerate(rows):
            ids = encoded[name][row]
            padded[place, : len(ids)] = ids
        features[name] = torch.from_numpy(padded)
    return features
