from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssra_engine.engines.engine import scored_schema
from ssra_engine.engines.fake import FakeEngine
from ssra_engine.prompts import COMPARATOR_TEMPLATE
from ssra_engine.stages import compare as comparing
from ssra_engine.stages.compare import contradictions, expected_grade, prefer, preferences


def _by(strength: np.ndarray) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    return lambda low, high: ~(strength[low] < strength[high])


def test_expected_grade() -> None:
    probs = np.array([[0.5, 0.0, 0.5], [0.0, 0.0, 1.0]], np.float32)
    assert expected_grade(probs).tolist() == [1.0, 2.0]


def _dropped_by_the_rule(target: list[int], strength: list[float]) -> set[int]:
    alive = set(range(len(target)))
    dropped: set[int] = set()
    while True:
        against = dict.fromkeys(alive, 0)
        for i, j in itertools.combinations(sorted(alive), 2):
            low, high = (i, j) if target[i] < target[j] else (j, i)
            if target[low] != target[high] and not strength[low] < strength[high]:
                against[i] += 1
                against[j] += 1
        worst = max(against.values(), default=0)
        if worst == 0:
            return dropped
        gone = {i for i, count in against.items() if count == worst}
        dropped |= gone
        alive -= gone


_DOCUMENTS = st.lists(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4).map(float)), max_size=6), max_size=6
)


@settings(deadline=None)
@given(_DOCUMENTS, st.sampled_from([1, 40, 1 << 22]), st.randoms(use_true_random=False))
def test_contradictions_follow_the_rule(documents, pairs_at_once, shuffle) -> None:  # type: ignore[no-untyped-def]
    rows = [(d, *sample) for d, samples in enumerate(documents) for sample in samples]
    shuffle.shuffle(rows)
    document, target, strength = (
        np.array([row[column] for row in rows], kind)
        for column, kind in enumerate((np.int32, np.int8, float))
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparing, "_PAIRS_AT_ONCE", pairs_at_once)
        drop = contradictions(document, target, _by(strength))
    for number in range(len(documents)):
        mine = np.flatnonzero(document == number)
        expected = _dropped_by_the_rule(target[mine].tolist(), strength[mine].tolist())
        assert set(np.flatnonzero(drop[mine]).tolist()) == expected
        kept = mine[~drop[mine]]
        for i, j in itertools.permutations(kept, 2):
            assert target[i] >= target[j] or strength[i] < strength[j]


def test_a_lone_outlier_goes_alone_and_a_lone_pair_goes_together() -> None:
    document = np.array([0, 0, 0, 0, 1, 1], np.int32)
    target = np.array([0, 1, 2, 3, 1, 2], np.int8)
    strength = np.array([2.9, 1.0, 2.0, 3.0, 1.5, 1.5])
    assert contradictions(document, target, _by(strength)).tolist() == [1, 0, 0, 0, 1, 1]


class _Reader(FakeEngine):
    """Prefers the longer query, by its characters, and the letter A by `bias`."""

    def __init__(self, bias: float) -> None:
        super().__init__()
        self.bias = bias
        self.asked: list[tuple[str, str]] = []

    def score_batches(self, batches, labels):  # type: ignore[no-untyped-def]
        assert labels == ("A", "B")
        for batch in batches:
            logits = []
            for row in batch.to_pylist():
                first, second = (line[3:] for line in row["suffix"].split("\n")[:2])
                self.asked.append((row["prefix"], row["suffix"]))
                logits.append([len(first) + self.bias, len(second)])
            flat = pa.array(np.array(logits, np.float32).ravel())
            column = pa.FixedSizeListArray.from_arrays(flat, 2)
            yield pa.RecordBatch.from_arrays([column], schema=scored_schema(2))


@pytest.mark.parametrize(("bias", "flips"), [(0.0, [0, 0, 0]), (2.0, [0, 1, 0])])
def test_a_model_is_asked_in_both_orders(bias: float, flips: list[int]) -> None:
    engine = _Reader(bias)
    first, second = pa.array(["abcd", "ab", "abcdefgh"]), pa.array(["a", "abc", "abc"])
    document = np.array([0, 0, 2], np.int32)
    prefixes = pa.array(["zero", "one", "two"])
    found = prefer(engine, COMPARATOR_TEMPLATE, prefixes, document, first, second)
    assert found.second.tolist() == [-3, 1, -5]  # the favour for one letter cancels
    assert found.flipped.tolist() == flips
    assert [prefix for prefix, _ in engine.asked] == ["zero"] * 4 + ["two"] * 2
    assert "A: abcd\nB: a\n" in engine.asked[0][1]
    assert "A: a\nB: abcd\n" in engine.asked[1][1]


def test_preferences_of_known_logits() -> None:
    # First as A, then as B: prefers the second query twice, the first twice, always A, always B.
    logits = np.array(
        [[[0, 2], [1, 0]], [[3, 0], [0, 1]], [[5, 0], [4, 0]], [[0, 1], [0, 3]]], np.float32
    )
    found = preferences(logits)
    assert found.second.tolist() == [1.5, -2, -0.5, -1]
    assert found.flipped.tolist() == [False, False, True, True]


def test_nothing_to_compare() -> None:
    none = pa.array([], pa.string())
    found = prefer(_Reader(0), COMPARATOR_TEMPLATE, none, np.empty(0, np.int32), none, none)
    assert len(found.second) == len(found.flipped) == 0
