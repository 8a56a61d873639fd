"""Batches without false negatives by text, and grades by a recipe."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from accelerate.data_loader import BatchSamplerShard
from datasets import Dataset

from ssra_engine.embedder import batches as batches_module
from ssra_engine.embedder.batches import distinct_batches, plan_batches, row_keys, row_sides

NEAR = "how to cook garlic noodles at home quickly"


def rows() -> tuple[list[str], list[str], np.ndarray]:
    queries = [f"{word} {number}" for number, word in enumerate(["piano", "tram", "otter"] * 20)]
    documents = [f"document {number // 2}" for number in range(len(queries))]
    queries[5], queries[40] = NEAR, NEAR.upper() + "?"
    queries[7] = queries[50]
    return queries, documents, np.arange(len(queries)) % 4


def test_every_row_comes_once_and_no_two_of_a_batch_conflict() -> None:
    queries, documents, grades = rows()
    batches = list(plan_batches(row_keys(queries, documents), grades, 8, seed=3))
    assert sorted(row for batch in batches for row in batch) == list(range(len(queries)))
    for batch in batches:
        assert len({documents[row] for row in batch}) == len(batch)
        assert len({queries[row] for row in batch}) == len(batch)
        assert not {5, 40} <= set(batch)


def test_queries_with_nothing_in_common_share_no_key() -> None:
    keys = row_keys(["tram to the sea", "garlic noodles", "小猫钓鱼视频"], ["a", "b", "c"])
    assert len(np.unique(keys)) == keys.size


def test_a_recipe_mixes_grades() -> None:
    queries = [f"{number * 7919:x} {number}" for number in range(200)]
    grades = np.asarray([0] * 120 + [1] * 10 + [2] * 10 + [3] * 60)
    keys = np.arange(200, dtype=np.uint64)[:, None]
    batches = list(plan_batches(keys, grades, 10, recipe={0: 3, 1: 1, 2: 1, 3: 5}))
    assert len(batches) == len(queries) // 10
    assert all(Counter(grades[batch].tolist()) == {0: 3, 1: 1, 2: 1, 3: 5} for batch in batches)


@pytest.mark.parametrize("recipe", [{3: 1.0}, {0: 0.0}])
def test_a_recipe_that_cannot_be_followed_is_refused(recipe: dict[int, float]) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        list(plan_batches(np.zeros((4, 1), np.uint64), np.zeros(4), 2, recipe=recipe))


def test_an_epoch_has_a_plan_of_its_own_that_its_seed_repeats() -> None:
    queries, documents, grades = rows()
    data = Dataset.from_dict({"query": queries, "document": documents, "label": grades})
    make = distinct_batches()
    samplers = [
        make(data, batch_size=8, drop_last=False, valid_label_columns=["label"], seed=1)
        for _ in range(2)
    ]
    first = list(samplers[0])
    assert first == list(samplers[1])
    assert len(samplers[0]) == len(first)
    samplers[0].set_epoch(1)
    assert list(samplers[0]) != first


def test_no_row_brings_what_is_relevant_to_another() -> None:
    queries = [f"{number * 7919:x}" for number in range(8)] * 6
    documents = [f"document {number * 5 % 37}" for number in range(48)]
    negatives = [f"document {(number * 11 + 3) % 37}" for number in range(48)]
    grades = np.arange(48) % 4
    relevant = {
        (query, document)
        for query, document, grade in zip(queries, documents, grades, strict=True)
        if grade > 0
    }

    def clashes(batches: list[list[int]]) -> int:
        return sum(
            (queries[one], text) in relevant
            for batch in batches
            for one in batch
            for other in batch
            if one != other and grades[one] > 0
            for text in (documents[other], negatives[other])
        )

    keys = row_keys(queries, documents)
    assert clashes(list(plan_batches(keys, grades, 8))) > 0
    sides = row_sides(queries, [documents, negatives], grades)
    batches = list(plan_batches(keys, grades, 8, sides=sides))
    assert clashes(batches) == 0
    assert sorted(row for batch in batches for row in batch) == list(range(48))


def test_every_epoch_has_as_many_batches_and_short_ones_can_be_left_out() -> None:
    # Half of the rows are of one query, so that half of the batches cannot be full.
    queries = ["the same"] * 40 + [f"{number * 7919:x}" for number in range(40)]
    texts = [f"document {number}" for number in range(80)]
    data = Dataset.from_dict({"query": queries, "document": texts, "label": [1] * 80})
    lengths = []
    for least in (0.0, 0.5):
        sampler = distinct_batches(least=least)(data, 8, False, ["label"])
        for epoch in range(6):
            sampler.set_epoch(epoch)
            sizes = [len(batch) for batch in sampler]
            assert len(sizes) == len(sampler)
            assert least == 0 or min(sizes) >= 4
        lengths.append(len(sampler))
    assert lengths == [40, 6]


def test_processes_share_the_batches_that_one_would_have(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, documents, grades = rows()
    data = Dataset.from_dict({"query": queries, "document": documents, "label": grades})
    one = list(distinct_batches()(data, 9, False, ["label"], seed=1))
    monkeypatch.setattr(batches_module, "_processes", lambda: 3)
    sampler = distinct_batches()(data, 3, True, ["label"], seed=1)
    shards = [list(BatchSamplerShard(sampler, 3, rank, even_batches=False)) for rank in range(3)]
    joint = [[*a, *b, *c] for a, b, c in zip(*shards, strict=True)]
    assert joint == [batch for batch in one if len(batch) >= 3]
    assert len(joint) == len(sampler) // 3 == len(BatchSamplerShard(sampler, 3, 0))
    assert all(0 <= len(a) - len(c) <= 1 for a, _, c in zip(*shards, strict=True))
