from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssra_engine.keys import normalise
from ssra_engine.stages.near_duplicates import find_near_repeats, near_repeats


def _grams(query: str) -> set[str]:
    kept = "".join(c for c in query if c.isalnum()) or query
    padded = f"\0\0{kept}\0\0"
    return {padded[i : i + 3] for i in range(len(padded) - 2)}


def _by_hand(queries: list[str], group: list[int], alive: list[bool], least: float) -> list[bool]:
    grams = [_grams(query) for query in queries]
    again: list[bool] = []
    for i, mine in enumerate(grams):
        near = (
            len(mine & grams[j]) / len(mine | grams[j]) >= least
            for j in range(i)
            if alive[j] and not again[j] and group[j] == group[i]
        )
        again.append(alive[i] and any(near))
    return again


def _near(*queries: str, least: float = 0.8) -> list[bool]:
    rows = normalise(pa.array(queries, pa.string()))
    zeros = np.zeros(len(queries), int)
    return near_repeats(rows, zeros, np.ones(len(queries), bool), least).tolist()


def test_what_is_near_and_what_is_not() -> None:
    assert _near("how to wash a cat", "How to wash a cat?", "how-to wash  a cat") == [0, 1, 1]
    assert _near("猫 洗澡", "猫洗澡", "狗洗澡") == [0, 1, 0]
    assert _near("red panda playing in snow", "red pandas playing in snow") == [0, 1]
    assert _near("scarecrow king skills", "scarecrow king skills hd") == [0, 0]
    assert _near("凉拌黄瓜的做法", "凉拌木耳的做法") == [0, 0]
    assert _near("😀", "😀!", "?") == [0, 0, 0], "without letters the text itself is compared"
    assert _near("a", "b", "") == [0, 0, 0]


def test_a_row_that_goes_takes_no_other_with_it() -> None:
    one, two, three = "abcdefghijklmnop", "abcdefghijklmnopqr", "abcdefghijklmnopqrst"
    assert _near(one, two, three, least=0.7) == [0, 1, 0]
    assert _near(two, one, three, least=0.7) == [0, 1, 1]


_QUERIES = st.lists(
    st.tuples(st.text("ab 猫", max_size=8), st.integers(0, 2), st.booleans()), max_size=30
)


@settings(deadline=None)
@given(_QUERIES, st.sampled_from([0.3, 0.5, 0.8, 1.0]))
def test_as_by_hand(rows: list[tuple[str, int, bool]], least: float) -> None:
    queries, group, alive = ([row[i] for row in rows] for i in range(3))
    got = near_repeats(
        pa.array(queries, pa.string()), np.array(group, int), np.array(alive, bool), least
    )
    assert got.tolist() == _by_hand(queries, group, alive, least)


def _many(count: int) -> tuple[list[str], list[int], list[bool]]:
    draw = random.Random(5)
    words = ["cat", "wash", "how", "to", "猫", "洗澡", "教程", "review", "hd", "2025", "best"]
    queries = [
        " ".join(draw.choices(words, k=draw.randint(1, 5))) + draw.choice(["", "!", " ?", "s"])
        for _ in range(count)
    ]
    return queries, draw.choices(range(3), k=count), [draw.random() < 0.9 for _ in range(count)]


@pytest.mark.parametrize(("chunk", "held"), [(7, 1 << 18), (1000, 1 << 18), (150, 900)])
@pytest.mark.parametrize("least", [0.6, 1.0])
def test_on_disk_as_in_memory(tmp_path: Path, chunk: int, held: int, least: float) -> None:
    queries, group, alive = _many(400)
    rows, groups, living = pa.array(queries), np.array(group, np.uint64), np.array(alive)
    chunks = [
        (rows.slice(i, chunk), groups[i : i + chunk], living[i : i + chunk])
        for i in range(0, len(rows), chunk)
    ]
    got = find_near_repeats(chunks, len(rows), least, tmp_path, held)
    expected = _by_hand(queries, group, alive, least)
    assert got.astype(bool).tolist() == expected
    assert 20 < sum(expected) < 200
    assert not list(tmp_path.glob("bands-*")) + list(tmp_path.glob("pairs-*"))


def test_a_crowd_of_near_duplicates_leaves_the_first(tmp_path: Path) -> None:
    queries = pa.array(
        [f"one long query about how to wash a cat in a small tub {n}" for n in range(300)]
    )
    chunks = [(queries, np.zeros(300, np.uint64), np.ones(300, bool))]
    got = find_near_repeats(chunks, 300, 0.8, tmp_path)
    assert got.tolist() == [0] + [1] * 299


def test_nothing_to_look_at(tmp_path: Path) -> None:
    assert len(find_near_repeats([], 0, 0.8, tmp_path)) == 0
    dead = [(pa.array(["a", "a"]), np.zeros(2, np.uint64), np.zeros(2, bool))]
    (tmp_path / "second").mkdir()
    assert find_near_repeats(dead, 2, 0.8, tmp_path / "second").tolist() == [0, 0]
