"""The engine protocol: what every inference backend does, and nothing else.

An engine works on batches of requests. A request is a *prefix* (the document) and a *suffix* (what
is asked of it), kept apart so that a backend can compute the prefix once. Prefix and suffix are
tokenised apart, special tokens before the prefix only.

The Arrow forms (`generate_batches`, `score_batches`) are what the pipeline uses. The forms over
lists of `Request` are a convenience over them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import xxhash

__all__ = [
    "GENERATED",
    "REQUESTS",
    "Completion",
    "Engine",
    "EngineStats",
    "Request",
    "Sampling",
    "scored_schema",
]

_TOKENS = pa.list_(pa.int32())

#: One row a request. `prefix` is dictionary-encoded: rows of one document share an index. Text
#: columns hold strings, or lists of token ids. `seed` is read by generation only.
REQUESTS = pa.schema(
    [
        pa.field("prefix", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("suffix", pa.string(), nullable=False),
        pa.field("seed", pa.uint64(), nullable=False),
    ]
)

#: One row a completion, ordered by (request, sample); `request` is the row in the request batch.
GENERATED = pa.schema(
    [
        pa.field("request", pa.int32(), nullable=False),
        pa.field("sample", pa.int16(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("token_ids", _TOKENS, nullable=False),
        pa.field("logprob", pa.float32(), nullable=False),
        pa.field("finish_reason", pa.string(), nullable=False),
    ]
)


def scored_schema(labels: int) -> pa.Schema:
    """Schema of scores: one row a request, `logits` float32[labels]."""
    return pa.schema([pa.field("logits", pa.list_(pa.float32(), labels), nullable=False)])


@dataclass(frozen=True)
class Request:
    """One prompt: the document, then what is asked of it. Each part is text or token ids."""

    prefix: str | Sequence[int]
    suffix: str | Sequence[int]


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn.

    Attributes:
        n: completions per request; the j-th is drawn with a seed derived from (request seed, j).
        max_new_tokens: upper limit of generated tokens.
        min_new_tokens: no stop before this many tokens.
        temperature: 0 is greedy.
        top_p: nucleus sampling (arXiv 1904.09751).
        stop: strings that end a completion; they are not part of its text.
    """

    n: int = 1
    max_new_tokens: int = 32
    min_new_tokens: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Completion:
    """One generated text. `logprob` is the sum over its tokens; `finish_reason` stop or length."""

    text: str
    token_ids: tuple[int, ...]
    logprob: float
    finish_reason: str


@dataclass
class EngineStats:
    """Counters since the engine was loaded."""

    requests: int = 0
    prompt_tokens: int = 0
    shared_tokens: int = 0
    generated_tokens: int = 0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)


class Engine(ABC):
    """A loaded model that generates text and scores labels."""

    #: Name of the backend.
    name: str

    def __init__(self) -> None:
        self.stats = EngineStats()

    @abstractmethod
    def generate_batches(
        self, batches: Iterable[pa.RecordBatch], sampling: Sampling
    ) -> Iterator[pa.RecordBatch]:
        """Complete each batch of `REQUESTS`; yields one `GENERATED` batch for each, in order.

        A request's completions depend on its prefix, suffix and seed and on `sampling` only, not on
        its neighbours (up to float rounding).
        """

    @abstractmethod
    def score_batches(
        self, batches: Iterable[pa.RecordBatch], labels: Sequence[str | int]
    ) -> Iterator[pa.RecordBatch]:
        """Logits of `labels` as the next token after each prompt.

        Args:
            batches: `REQUESTS` batches.
            labels: strings of one token each, or token ids.

        Yields:
            for each batch, a batch of ``scored_schema(len(labels))`` with one row per request.

        Raises:
            EngineError: a label is not exactly one token.
        """

    def limits(self) -> tuple[str, ...]:
        """What this engine cannot do, one sentence each."""
        return ()

    def close(self) -> None:  # noqa: B027 - most engines hold nothing to release
        """Release the model."""

    def generate(
        self,
        requests: Sequence[Request],
        n: int = 1,
        max_new_tokens: int = 32,
        min_new_tokens: int = 0,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int = 0,
        stop: Sequence[str] = (),
    ) -> list[list[Completion]]:
        """For each request, `n` completions. See `Sampling` for the arguments."""
        if not requests:
            return []
        sampling = Sampling(n, max_new_tokens, min_new_tokens, temperature, top_p, tuple(stop))
        batch = _to_batch(requests, seed)
        (rows,) = self.generate_batches([batch], sampling)
        completions: list[list[Completion]] = [[] for _ in requests]
        for row in rows.to_pylist():
            completions[row["request"]].append(
                Completion(
                    row["text"], tuple(row["token_ids"]), row["logprob"], row["finish_reason"]
                )
            )
        return completions

    def label_logits(self, requests: Sequence[Request], labels: Sequence[str | int]) -> np.ndarray:
        """Logits of `labels` after each prompt, float32[len(requests), len(labels)]."""
        if not requests:
            return np.empty((0, len(labels)), np.float32)
        (rows,) = self.score_batches([_to_batch(requests, 0)], labels)
        flat = rows.column("logits").flatten().to_numpy(zero_copy_only=False)
        return np.asarray(flat, np.float32).reshape(len(requests), len(labels))


def _to_batch(requests: Sequence[Request], seed: int) -> pa.RecordBatch:
    def column(parts: Sequence[str | Sequence[int]]) -> pa.Array:
        if all(isinstance(part, str) for part in parts):
            return pa.array(parts, pa.string())
        if any(isinstance(part, str) for part in parts):
            raise TypeError("prefixes must be all text or all token ids, and so must suffixes")
        return pa.array([list(part) for part in parts], _TOKENS)

    prefixes = column([request.prefix for request in requests])
    if pa.types.is_string(prefixes.type):
        prefixes = prefixes.dictionary_encode()
    else:
        keys = [tuple(ids) for ids in prefixes.to_pylist()]
        unique = list(dict.fromkeys(keys))
        index = {key: i for i, key in enumerate(unique)}
        prefixes = pa.DictionaryArray.from_arrays(
            pa.array([index[key] for key in keys], pa.int32()), pa.array(unique, _TOKENS)
        )
    seeds = [
        xxhash.xxh3_64_intdigest(repr((request.prefix, request.suffix)).encode(), seed=seed % 2**64)
        for request in requests
    ]
    return pa.RecordBatch.from_arrays(
        [prefixes, column([request.suffix for request in requests]), pa.array(seeds, pa.uint64())],
        names=["prefix", "suffix", "seed"],
    )
