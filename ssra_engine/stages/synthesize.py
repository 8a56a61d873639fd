"""Synthesis: ask the query model for queries at each target grade (arXiv 2509.16717, stage 2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ssra_engine.engines.engine import REQUESTS, Engine, Sampling
from ssra_engine.keys import mix

__all__ = ["Asked", "ask", "generate", "request_batches", "sample_seeds"]

# Requests are handed to an engine in batches of whole documents of about this many rows: enough
# for it to sort by length, and few enough that progress can be shown.
_BATCH_REQUESTS = 4096


@dataclass(frozen=True)
class Asked:
    """Requests for one sample each, ordered by (document, target, sample).

    Attributes:
        document: index of the document in its shard, int32[N].
        target: grade, int8[N].
        sample: running number within (document, target), int16[N].
    """

    document: np.ndarray
    target: np.ndarray
    sample: np.ndarray


def ask(short: np.ndarray, asked_before: np.ndarray, targets: tuple[int, ...]) -> Asked:
    """One request for each missing sample.

    Args:
        short: samples to ask for, int64[documents, len(targets)].
        asked_before: samples asked for in earlier waves, same shape; numbering goes on from there.
        targets: target grades, ascending.
    """
    counts = short.ravel()
    cell = np.repeat(np.arange(counts.size), counts)
    first = np.cumsum(counts) - counts
    sample = np.arange(cell.size) - first[cell] + asked_before.ravel()[cell]
    document, column = np.divmod(cell, len(targets))
    grades = np.asarray(targets, np.int8)[column]
    return Asked(document.astype(np.int32), grades, sample.astype(np.int16))


def sample_seeds(document_keys: np.ndarray, asked: Asked, round_number: int) -> np.ndarray:
    """Seed of each request, uint64[N]: mixed from (document, target, round, sample).

    Args:
        document_keys: hash of each doc_id under the run's seed, uint64[documents].
        asked: the requests.
        round_number: version of the query model.
    """
    return mix(document_keys[asked.document], asked.target, round_number, asked.sample)


def request_batches(
    prefixes: pa.Array,
    document: np.ndarray,
    suffixes: pa.Array,
    seeds: np.ndarray,
    most: int = _BATCH_REQUESTS,
) -> Iterator[pa.RecordBatch]:
    """Cut requests into `REQUESTS` batches of whole documents.

    Args:
        prefixes: prompt prefix of each document of the shard, string[D].
        document: index of each request's document, ascending, int32[N].
        suffixes: string[N].
        seeds: uint64[N].
        most: requests of a batch, but for what completes its last document.
    """
    start = 0
    while start < len(document):
        last = document[min(start + most, len(document)) - 1]
        stop = int(np.searchsorted(document, last, side="right"))
        rows = document[start:stop]
        first = int(rows[0])
        used = prefixes.slice(first, int(last) - first + 1)
        column = pa.DictionaryArray.from_arrays(pa.array(rows - first), used)
        yield pa.RecordBatch.from_arrays(
            [column, suffixes.slice(start, stop - start), pa.array(seeds[start:stop])],
            schema=REQUESTS,
        )
        start = stop


def generate(
    engine: Engine,
    batches: Iterator[pa.RecordBatch],
    sampling: Sampling,
    done: Callable[[int], None],
) -> tuple[pa.Array, np.ndarray, np.ndarray]:
    """Complete every request once.

    Args:
        engine: the query model.
        batches: see `request_batches`.
        sampling: with ``n == 1``.
        done: told the number of requests completed, batch by batch.

    Returns:
        the texts, string[N]; whether each ended by itself, bool[N] (else at its length limit); and
        how many tokens each has, int32[N].
    """
    texts, ended, tokens = [], [], []
    for completions in engine.generate_batches(batches, sampling):
        texts.append(completions.column("text"))
        stopped = pc.equal(completions.column("finish_reason"), "stop")
        ended.append(stopped.to_numpy(zero_copy_only=False))
        tokens.append(pc.list_value_length(completions.column("token_ids")).to_numpy())
        done(completions.num_rows)
    return pa.concat_arrays(texts), np.concatenate(ended), np.concatenate(tokens)
