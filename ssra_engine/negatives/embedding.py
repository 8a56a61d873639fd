"""Vectors of queries and corpus: prompts, worker processes, and a cache on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ssra_engine.durable import TEMPORARY, remove, writing
from ssra_engine.errors import EngineError, StoreError

__all__ = ["Embedding", "embed", "worker_pool"]

Floats = npt.NDArray[np.floating[Any]]
Say = Callable[[str], None]

# Rows checked for NaN at a time: the check needs memory of its own for each value.
_CHECKED_ROWS = 8192


@dataclass(frozen=True)
class Embedding:
    """How texts become vectors; see `mine_hard_negatives`."""

    batch_size: int = 32
    query_prompt_name: str | None = None
    query_prompt: str | None = None
    corpus_prompt_name: str | None = None
    corpus_prompt: str | None = None
    use_multi_process: bool | list[str] = False
    cache_folder: str | None = None
    progress: bool = False


def embed(
    model: Any, queries: list[str], corpus: list[str], how: Embedding, say: Say
) -> tuple[Floats, Floats]:
    """Unit vectors of queries and corpus.

    Args:
        model: a SentenceTransformer.
        queries: Q texts.
        corpus: N texts.
        how: prompts, batches, processes, cache.
        say: told of what the cache did.

    Returns:
        floats [Q, d] and [N, d]; memory maps where they came from the cache.

    Raises:
        EngineError: the model's vectors do not fit the texts, or hold NaN or infinity.
        StoreError: a file of the cache cannot be read or written, or holds other vectors.
    """
    sides = {
        "query": (queries, how.query_prompt, how.query_prompt_name, "encode_query"),
        "corpus": (corpus, how.corpus_prompt, how.corpus_prompt_name, "encode_document"),
    }
    files = {
        side: _cache_file(how.cache_folder, model, side, prompt, name, texts)
        for side, (texts, prompt, name, _) in sides.items()
    }
    vectors = {
        side: _load(file, len(sides[side][0]), say)
        for side, file in files.items()
        if file is not None and file.exists()
    }
    missing = [side for side in ("corpus", "query") if side not in vectors]
    with worker_pool(model, how.use_multi_process if missing else False) as pool:
        for side in missing:
            texts, prompt, name, encode = sides[side]
            vectors[side] = getattr(model, encode)(
                texts,
                pool=pool,
                batch_size=how.batch_size,
                normalize_embeddings=True,
                convert_to_numpy=True,
                show_progress_bar=how.progress,
                prompt_name=name,
                prompt=prompt,
            )
            _check(vectors[side], texts)
    for side in missing:
        file = files[side]
        if file is not None:
            _save(file, vectors[side])
            say(f"Cache: the vectors of the {side} are now in {file}.")
    return vectors["query"], vectors["corpus"]


@contextmanager
def worker_pool(model: Any, use_multi_process: bool | list[str]) -> Iterator[Any]:
    """The model's worker processes while the block runs; None where none are asked for."""
    if not use_multi_process:
        yield None
        return
    devices = None if isinstance(use_multi_process, bool) else use_multi_process
    pool = model.start_multi_process_pool(target_devices=devices)
    try:
        yield pool
    finally:
        model.stop_multi_process_pool(pool)


def _cache_file(
    folder: str | None,
    model: Any,
    side: str,
    prompt: str | None,
    prompt_name: str | None,
    texts: Sequence[str],
) -> Path | None:
    """Where the vectors of `texts` are kept: the name that sentence-transformers gives the file.

    It depends on the model's name by its card, the prompts and the texts. The text that is hashed,
    a tuple as Python prints it, is never whole in memory.
    """
    if not folder:
        return None
    name = model.model_card_data.base_model or ""
    digest = hashlib.sha256(
        f"({name!r}, {prompt!r}, {prompt_name!r}, [".encode(), usedforsecurity=False
    )
    for number, text in enumerate(texts):
        digest.update(f"{', ' if number else ''}{text!r}".encode())
    digest.update(b"])")
    return Path(folder) / f"{side}_embeddings_{digest.hexdigest()}.npy"


def _load(file: Path, rows: int, say: Say) -> Floats:
    try:
        vectors: Floats = np.load(file, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise StoreError(f"{file}: cannot be read: {error}. Delete it to embed again.") from error
    if vectors.ndim != 2 or len(vectors) != rows or vectors.dtype.kind != "f":
        raise StoreError(
            f"{file}: expected floats [{rows}, d], found {vectors.dtype} {list(vectors.shape)}. "
            "Delete it to embed again."
        )
    say(f"Cache: {len(vectors):,} vectors of {vectors.shape[1]} come from {file}.")
    return vectors


def _save(file: Path, vectors: Floats) -> None:
    temporary = file.with_name(file.name + TEMPORARY)
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as opened:
                np.save(opened, vectors)
            temporary.replace(file)
        except OSError:
            with suppress(OSError):
                remove(temporary)
            raise


def _check(vectors: Floats, texts: Sequence[str]) -> None:
    if vectors.ndim != 2 or len(vectors) != len(texts):
        raise EngineError(
            f"the model gave vectors of shape {list(vectors.shape)} for {len(texts)} texts."
        )
    for start in range(0, len(vectors), _CHECKED_ROWS):
        bad = np.flatnonzero(~np.isfinite(vectors[start : start + _CHECKED_ROWS]).all(axis=1))
        if len(bad):
            shown = texts[start + int(bad[0])][:80]
            raise EngineError(f"the model's vector of {shown!r} holds NaN or infinity.")
