from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssra_engine.engines.scheduler import Prompts, grow_trees, pack_trees, read_prompts
from ssra_engine.errors import EngineError
from ssra_engine.models.prompt_tokens import PromptTokens


def _prompts(prefix: list[int], suffix: list[int]) -> Prompts:
    prefixes = [[100 + i] * (i + 1) for i in range(6)]
    suffixes = [[200 + i] * (2 * i + 1) for i in range(6)]
    return Prompts(prefixes, suffixes, np.array(prefix, np.int64), np.array(suffix, np.int64))


requests = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=150)


@given(pairs=requests, context=st.one_of(st.none(), st.integers(14, 20)))
@settings(max_examples=60, deadline=None)
def test_every_branch_grows_once_with_its_own_prompt(
    pairs: list[tuple[int, int]], context: int | None
) -> None:
    prompts = _prompts([p for p, _ in pairs], [s for _, s in pairs])
    trees = grow_trees(prompts, np.arange(len(pairs)), context, 2)
    seen = []
    for tree in trees:
        assert len(tree.branch) <= 32
        for leaf, branch in zip(tree.leaf, tree.branch, strict=True):
            prefix, suffix = prompts.prefixes[pairs[branch][0]], prompts.suffixes[pairs[branch][1]]
            assert tree.suffixes[leaf] == suffix
            room = len(prefix) if context is None else context - 2 - len(suffix)
            assert tree.prefix == prefix[:room]
            seen.append(branch)
    assert sorted(seen) == list(range(len(pairs)))


@given(pairs=requests, budget=st.integers(1, 300), per_branch=st.sampled_from([0, 3]))
@settings(max_examples=60, deadline=None)
def test_batches_keep_to_the_budget(
    pairs: list[tuple[int, int]], budget: int, per_branch: int
) -> None:
    prompts = _prompts([p for p, _ in pairs], [s for _, s in pairs])
    trees = grow_trees(prompts, np.arange(len(pairs)), None, 0)
    batches = pack_trees(trees, budget, per_branch)
    assert sorted(id(t) for batch in batches for t in batch) == sorted(map(id, trees))
    for batch in batches:
        widest = (
            max(len(tree.prefix) for tree in batch)
            + max(tree.suffix_tokens for tree in batch)
            + per_branch * max(len(tree.branch) for tree in batch)
        )
        assert len(batch) == 1 or widest * len(batch) <= budget


def test_documents_cut_alike_stay_together() -> None:
    """Suffixes of two lengths, in turn, at the context's limit: two trees, not one for each."""
    prompts = Prompts(
        [[1] * 20], [[2] * (1 + i % 2) for i in range(8)], np.zeros(8, np.int64), np.arange(8)
    )
    trees = grow_trees(prompts, np.arange(8), 20, 0)
    assert sorted(len(tree.prefix) for tree in trees) == [18, 19]


def test_a_popular_document_is_split_evenly() -> None:
    prompts = _prompts([0] * 66, [0] * 66)
    assert [len(t.branch) for t in grow_trees(prompts, np.arange(66), None, 0)] == [22, 22, 22]
    many = Prompts([[1]], [[i] * 100 for i in range(12)], np.zeros(12, np.int64), np.arange(12))
    trees = grow_trees(many, np.arange(12), None, 0)
    assert [tree.suffix_tokens for tree in trees] == [400, 400, 400]


def test_documents_of_like_length_go_together() -> None:
    """A long document does not make short ones pay for its padding."""
    lengths = [100 if i % 2 else 10 for i in range(40)]
    prompts = Prompts([[1] * n for n in lengths], [[2]], np.arange(40), np.zeros(40, np.int64))
    batches = pack_trees(grow_trees(prompts, np.arange(40), None, 0), 500, 0)
    padded = sum(max(len(t.prefix) for t in batch) * len(batch) for batch in batches)
    assert padded < 1.25 * sum(lengths)


def test_prompts_without_room() -> None:
    prompts = Prompts([[1, 2], []], [[3] * 9, []], np.array([0, 1]), np.array([0, 0]))
    with pytest.raises(EngineError, match="request 0: the suffix of 9 tokens and 2 new"):
        grow_trees(prompts, np.array([0]), 10, 2)
    with pytest.raises(EngineError, match="request 1: the prompt is empty"):
        grow_trees(Prompts([[]], [[], [1]], np.array([0, 0]), np.array([1, 0])), np.arange(2), 9, 1)
    (tree,) = grow_trees(prompts, np.array([1]), 11, 2)
    assert tree.prefix == []


def test_each_text_is_tokenised_once(tokenizer: Any) -> None:
    tokens = PromptTokens(tokenizer, 4)
    dictionary = pa.DictionaryArray.from_arrays(
        pa.array([2, 0, 1, 2], pa.int32()), pa.array(["fox", "dog", "fox"])
    )
    suffix = pa.array(["Q:", "Q:", "G:", "Q:"])
    batch = pa.RecordBatch.from_arrays([dictionary, suffix], names=["prefix", "suffix"])
    prompts = read_prompts(batch, tokens)
    assert prompts.prefixes == tokens.prefixes(["fox", "dog"])
    assert prompts.prefix.tolist() == [0, 0, 1, 0]
    assert prompts.suffix.tolist() == [0, 0, 1, 0]
    part = read_prompts(batch.slice(2, 2), tokens)
    assert [part.prefixes[i] for i in part.prefix] == tokens.prefixes(["dog", "fox"])
    assert [part.suffixes[i] for i in part.suffix] == tokens.suffixes(["G:", "Q:"])
