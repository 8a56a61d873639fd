from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from ssra_engine.engines.engine import REQUESTS, Sampling
from ssra_engine.engines.fake import FakeEngine
from ssra_engine.stages.synthesize import ask, generate, request_batches, sample_seeds


def test_numbering_goes_on_from_what_was_asked_before() -> None:
    short = np.array([[1, 0], [2, 1]])
    before = np.array([[4, 9], [0, 2]])
    asked = ask(short, before, (1, 3))
    assert asked.document.tolist() == [0, 1, 1, 1]
    assert asked.target.tolist() == [1, 1, 1, 3]
    assert asked.sample.tolist() == [4, 0, 1, 2]


def test_seeds_are_distinct_and_belong_to_the_document() -> None:
    keys = np.arange(50, dtype=np.uint64)
    asked = ask(np.full((50, 4), 3), np.zeros((50, 4), int), (0, 1, 2, 3))
    seeds = sample_seeds(keys, asked, 0)
    assert len(np.unique(np.concatenate([seeds, sample_seeds(keys, asked, 1)]))) == 2 * 600
    alone = ask(np.full((1, 4), 3), np.zeros((1, 4), int), (0, 1, 2, 3))
    assert sample_seeds(keys[7:8], alone, 0).tolist() == seeds[7 * 12 : 8 * 12].tolist()


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1), st.integers(1, 12))
def test_batches_hold_whole_documents_and_only_their_prefixes(
    counts: list[int], limit: int
) -> None:
    document = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    prefixes = pa.array([f"p{n}" for n in range(len(counts))])
    suffixes = pa.array([f"s{n}" for n in range(len(document))], pa.string())
    seeds = np.arange(len(document), dtype=np.uint64)
    batches = list(request_batches(prefixes, document, suffixes, seeds, limit))
    if not len(document):
        assert batches == []
        return
    whole = pa.Table.from_batches(batches, REQUESTS).to_pydict()
    assert whole["prefix"] == [f"p{n}" for n in document]
    assert whole["suffix"] == suffixes.to_pylist()
    assert whole["seed"] == list(range(len(document)))
    ends = [set(batch.column("prefix").to_pylist()) for batch in batches]
    assert sum(map(len, ends)) == len(set.union(*ends)), "a document is in two batches"
    assert all(len(batch) < limit + max(counts) for batch in batches)
    for batch, used in zip(batches, ends, strict=True):
        dictionary = batch.column("prefix").dictionary
        assert len(dictionary) <= max(int(p[1:]) for p in used) - min(int(p[1:]) for p in used) + 1


def test_generate_joins_batches_and_reports_them() -> None:
    prefixes = pa.array(["T:a\n", "T:b\n"])
    document = np.array([0, 1, 1], np.int32)
    seeds = np.arange(3, dtype=np.uint64)
    suffixes = pa.array(["G:0\nQ:"] * 3)
    batches = [
        *request_batches(prefixes, document[:1], suffixes[:1], seeds[:1]),
        *request_batches(prefixes, document[1:], suffixes[1:], seeds[1:]),
    ]
    told: list[int] = []
    texts, ended, tokens = generate(FakeEngine(), iter(batches), Sampling(), told.append)
    assert told == [1, 2]
    assert len(texts) == 3
    assert ended.tolist() == [True] * 3
    assert tokens.tolist() == [1, 1, 1]
