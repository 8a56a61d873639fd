"""A cross-encoder as an engine: it scores pairs and writes nothing."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from ssra_engine.engines.completions import distinct_columns
from ssra_engine.engines.engine import Engine, Sampling, scored_schema
from ssra_engine.errors import EngineError
from ssra_engine.models.cross_encoder import open_cross_encoder, pair_logits

__all__ = ["CrossEncoderEngine"]

#: Scoring gains nothing from more tokens at once: their activations only leave the cache.
_SCORING_TOKENS = 4096


class CrossEncoderEngine(Engine):
    """A score model that reads query and document side by side, on the CPU.

    The prefix of a request is the document, its suffix the query and nothing else (see
    `prompts.PairTemplate`); the logit of the label at place g is that of grade g.

    Args:
        folder: of a trained cross-encoder.
        bfloat16: multiply in it; the weights stay in float32 otherwise.
        batch_tokens: most tokens of a batch, padding included.
        threads: threads of torch (of the whole process); None leaves them as they are.

    Raises:
        EngineError: the folder is not a readable model, or an option is out of range.
    """

    name = "cross-encoder"

    def __init__(
        self,
        folder: str | Path,
        *,
        bfloat16: bool = False,
        batch_tokens: int = _SCORING_TOKENS,
        threads: int | None = None,
    ) -> None:
        super().__init__()
        if batch_tokens < 1:
            raise EngineError(f"batch_tokens must be at least 1, got {batch_tokens}.")
        if threads is not None:
            torch.set_num_threads(threads)
        dtype = torch.bfloat16 if bfloat16 else torch.float32
        self._model = open_cross_encoder(folder, dtype=dtype)
        self._batch_tokens = min(batch_tokens, _SCORING_TOKENS)
        size = sum(parameter.numel() for parameter in self._model.parameters())
        self.stats.notes.append(f"cross-encoder of {size / 1e6:.1f} million parameters")

    def limits(self) -> tuple[str, ...]:
        """See `Engine.limits`."""
        return (
            "It grades pairs and writes no text.",
            f"A query and its document take at most {self._model.max_seq_length} tokens.",
        )

    def generate_batches(
        self, batches: Iterable[pa.RecordBatch], sampling: Sampling
    ) -> Iterator[pa.RecordBatch]:
        """It cannot.

        Raises:
            EngineError: always.
        """
        raise EngineError("a cross-encoder grades pairs and writes no text.")

    def score_batches(
        self, batches: Iterable[pa.RecordBatch], labels: Sequence[str | int]
    ) -> Iterator[pa.RecordBatch]:
        """See `Engine.score_batches`.

        Raises:
            EngineError: there are more or fewer labels than the model has logits, or a request is
                in token ids.
        """
        if len(labels) != self._model.num_labels:
            raise EngineError(
                f"this cross-encoder has {self._model.num_labels} grades, asked for {len(labels)}."
            )
        for batch in batches:
            started = time.perf_counter()
            logits = self._score(batch)
            self.stats.requests += batch.num_rows
            self.stats.seconds += time.perf_counter() - started
            values = pa.FixedSizeListArray.from_arrays(pa.array(logits.ravel()), len(labels))
            yield pa.RecordBatch.from_arrays([values], schema=scored_schema(len(labels)))

    def _score(self, batch: pa.RecordBatch) -> np.ndarray:
        """Logits float32[len(batch), G]; a pair that is there twice is read once."""
        prefixes, suffixes = batch.column("prefix"), batch.column("suffix")
        if not all(map(pa.types.is_string, (prefixes.dictionary.type, suffixes.type))):
            raise EngineError("a cross-encoder reads texts, not token ids.")
        suffixes = suffixes.dictionary_encode()
        pairs = np.stack([prefixes.indices.to_numpy(), suffixes.indices.to_numpy()])
        first, again = distinct_columns(pairs)
        logits, tokens = pair_logits(
            self._model,
            suffixes.dictionary.take(pa.array(pairs[1, first])).to_pylist(),
            prefixes.dictionary.take(pa.array(pairs[0, first])).to_pylist(),
            self._batch_tokens,
        )
        self.stats.prompt_tokens += tokens
        scores: np.ndarray = logits[again]
        return scores
