from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssra_engine.stages.deduplicate import find_repeats, repeats, sample_keys


def _by_hand(keys: list[int], alive: list[bool]) -> list[bool]:
    seen: set[int] = set()
    again = []
    for key, living in zip(keys, alive, strict=True):
        again.append(living and key in seen)
        if living:
            seen.add(key)
    return again


_ROWS = st.lists(st.tuples(st.sampled_from([0, 1, 2**63, 2**64 - 1, 7 << 60]), st.booleans()))


@settings(deadline=None)
@given(_ROWS)
def test_the_first_living_row_of_a_key_stays(rows: list[tuple[int, bool]]) -> None:
    keys, alive = [row[0] for row in rows], [row[1] for row in rows]
    got = repeats(np.array(keys, np.uint64), np.array(alive, bool))
    assert got.tolist() == _by_hand(keys, alive)


@pytest.mark.parametrize("held", [1, 100, 1 << 18])
@pytest.mark.parametrize("chunk", [1, 13, 1000])
def test_on_disk_as_in_memory(tmp_path: Path, held: int, chunk: int) -> None:
    random = np.random.default_rng(3)
    keys = random.integers(0, 2**64, 150, dtype=np.uint64)[random.integers(0, 150, 500)]
    alive = random.random(500) < 0.8
    chunks = ((keys[i : i + chunk], alive[i : i + chunk]) for i in range(0, 500, chunk))
    got = find_repeats(chunks, 500, tmp_path, held)
    assert got.astype(bool).tolist() == _by_hand(keys.tolist(), alive.tolist())


def test_nothing_to_look_at(tmp_path: Path) -> None:
    assert len(find_repeats(iter(()), 0, tmp_path)) == 0


def test_the_same_query_at_two_grades_has_two_keys() -> None:
    keys = sample_keys(np.array([5, 5, 5], np.uint64), np.array([0, 1, 1], np.int8))
    assert keys[0] != keys[1] == keys[2]
