"""Texts as vectors of a sentence-transformers model: at every dim and precision to be measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ssra_engine.errors import ConfigError, EngineError
from ssra_engine.prompts import collapse_whitespace
from ssra_engine.schema import DOCUMENT_TEXT_COLUMNS

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = [
    "PRECISIONS",
    "Precision",
    "at_precision",
    "check_dims",
    "document_texts",
    "embed",
    "load_model",
    "truncate",
]

Precision = Literal["float32", "int8", "binary"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

Floats = npt.NDArray[np.float32]


def load_model(folder: str | Path) -> SentenceTransformer:
    """Open a sentence-transformers folder, or one of a transformers encoder (mean pooling).

    Raises:
        EngineError: it is no folder, or no model that can be opened.
    """
    path = Path(folder)
    mend = "Give the folder of a sentence-transformers model."
    if not path.is_dir():
        raise EngineError(f"{folder}: there is no such folder. {mend}")
    if not any((path / name).is_file() for name in ("modules.json", "config.json")):
        raise EngineError(f"{folder}: neither modules.json nor config.json is there. {mend}")
    from sentence_transformers import SentenceTransformer

    try:
        return SentenceTransformer(str(path), local_files_only=True)
    except Exception as error:  # whatever a damaged folder makes its many readers raise
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise EngineError(f"{folder}: the model cannot be opened: {first_line}. {mend}") from error


def document_texts(documents: pa.Table) -> pa.Array:
    """What an embedder reads of each document: the texts that are not blank, a line each.

    Args:
        documents: `schema.CORPUS`.
    """
    lines = []
    for name in DOCUMENT_TEXT_COLUMNS:
        text = collapse_whitespace(documents[name].combine_chunks())
        lines.append(pc.if_else(pc.equal(text, ""), None, text))
    return pc.binary_join_element_wise(*lines, "\n", null_handling="skip")


def embed(
    model: SentenceTransformer,
    queries: Sequence[str],
    documents: Sequence[str],
    *,
    batch_size: int = 32,
    query_prompt: str | None = None,
    document_prompt: str | None = None,
    progress: bool = False,
) -> tuple[Floats, Floats]:
    """Vectors of queries and documents, with the model's own prompts unless others are given.

    Returns:
        float32[Q, D] and float32[N, D], as the model gives them.

    Raises:
        EngineError: a vector holds NaN or infinity.
    """
    options = {
        "batch_size": batch_size,
        "show_progress_bar": progress,
        "convert_to_numpy": True,
        "truncate_dim": None,
    }
    vectors = (
        model.encode_query(list(queries), prompt=query_prompt, **options),
        model.encode_document(list(documents), prompt=document_prompt, **options),
    )
    found = tuple(np.asarray(matrix, np.float32) for matrix in vectors)
    for texts, matrix in zip((queries, documents), found, strict=True):
        bad = np.flatnonzero(~np.isfinite(matrix).all(1))
        if len(bad):
            shown = texts[int(bad[0])][:80]
            raise EngineError(f"the model's vector of {shown!r} holds NaN or infinity.")
    return found[0], found[1]


def check_dims(dims: Sequence[int], width: int, what: str) -> tuple[int, ...]:
    """The dims to measure; none given means the whole vector.

    Raises:
        ConfigError: a dim is below 1 or larger than the vector.
    """
    for dim in dims:
        if not 1 <= dim <= width:
            raise ConfigError(
                f"dim {dim} is not one of {what}, whose vectors have {width}. "
                f"Give --dims between 1 and {width}."
            )
    return tuple(dims) or (width,)


def truncate(vectors: Floats, dim: int) -> Floats:
    """The first `dim` components, to unit length again; a zero vector stays zero."""
    head = vectors[:, :dim]
    norm = np.linalg.norm(head, axis=1, keepdims=True)
    return np.asarray(head / np.maximum(norm, np.finfo(np.float32).tiny), np.float32)


def at_precision(queries: Floats, documents: Floats, precision: Precision) -> tuple[Floats, Floats]:
    """Vectors whose inner product is the score that a store of that precision gives.

    Quantised by `sentence_transformers.util.quantize_embeddings`. int8: the documents, on the range
    of each dimension over these documents, each code read as the middle of its step; the query
    stays float32. binary: the signs of both, so the inner product is 1 - 2 x Hamming / dim.

    Args:
        queries: float32[Q, d], unit.
        documents: float32[N, d], unit.
        precision: of the documents.

    Returns:
        float32[Q, d] and float32[N, d].
    """
    if precision == "float32":
        return queries, documents
    if precision == "binary":
        return _signs(queries), _signs(documents)
    from sentence_transformers.util import quantize_embeddings

    low, high = documents.min(0), documents.max(0)
    codes = quantize_embeddings(documents, "int8", ranges=np.stack([low, high]))
    decoded = low + (codes.astype(np.float32) + np.float32(128.5)) * ((high - low) / 255)
    return queries, np.asarray(decoded, np.float32)


def _signs(vectors: Floats) -> Floats:
    from sentence_transformers.util import quantize_embeddings

    dim = vectors.shape[1]
    bits = np.unpackbits(quantize_embeddings(vectors, "ubinary"), axis=1, count=dim)
    return np.asarray((bits.astype(np.float32) * 2 - 1) / np.sqrt(np.float32(dim)), np.float32)
