from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from ssra_engine.keys import hash_strings, mix, normalise, splitmix64


def _splitmix64(value: int) -> int:
    mask = 2**64 - 1
    z = (value + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), min_size=1))
def test_splitmix64_is_that_of_plain_integers(values: list[int]) -> None:
    got = splitmix64(np.array(values, np.uint64))
    assert got.tolist() == [_splitmix64(value) for value in values]


def test_splitmix64_of_zero_is_the_published_first_output() -> None:
    assert splitmix64(np.zeros(1, np.uint64))[0] == 0xE220A8397B1DCDAF


@settings(deadline=None)
@given(st.lists(st.text()), st.integers(0, 2**64 - 1))
def test_hash_strings_is_xxh3(texts: list[str], seed: int) -> None:
    got = hash_strings(pa.array(texts, pa.string()), seed)
    assert got.tolist() == [xxhash.xxh3_64_intdigest(text.encode(), seed) for text in texts]


def test_hash_strings_of_a_slice() -> None:
    texts = pa.array(["a", "b", "c"])
    assert hash_strings(texts.slice(1)).tolist() == hash_strings(texts).tolist()[1:]


def test_mix_depends_on_every_number_and_on_their_order() -> None:
    keys = np.arange(3, dtype=np.uint64)
    seen = {tuple(mix(keys, *numbers)) for numbers in [(), (0,), (1,), (0, 1), (1, 0)]}
    assert len(seen) == 5
    assert mix(keys, np.array([4, 5, 6], np.int16))[1] == mix(keys[1:2], 5)[0]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Red  Panda", " red panda"),
        ("ﬁne", "FINE"),
        ("ＡＢＣ　１", "abc 1"),
        ("e\u0301te\u0301", "été"),
        ("a\u00a0b", "a b"),
    ],
)
def test_normalise_makes_equal(one: str, other: str) -> None:
    left, right = normalise(pa.array([one, other])).to_pylist()
    assert left == right


@settings(deadline=None)
@given(st.lists(st.text()))
def test_normalise_leaves_no_loose_space(texts: list[str]) -> None:
    for text in normalise(pa.array(texts, pa.string())).to_pylist():
        assert text == text.strip()
        assert "  " not in text
