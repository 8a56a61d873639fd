from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssra_engine.repeats import RepeatFinder


@pytest.mark.parametrize("held", [7, 1000])
@given(names=st.lists(st.text("ab", max_size=4), max_size=60), step=st.integers(1, 9))
@settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15
)
def test_repeats_are_those_of_a_dictionary(
    tmp_path: Path, held: int, names: list[str], step: int
) -> None:
    finder = RepeatFinder(tmp_path, held)
    for start in range(0, len(names), step):
        part = names[start : start + step]
        finder.add(
            pa.array(part, pa.string()), np.arange(start, start + len(part), dtype=np.uint64)
        )
    first: dict[str, int] = {}
    expected = []
    for place, name in enumerate(names):
        if first.setdefault(name, place) != place:
            expected.append((place, first[name]))
    later, earlier = finder.repeats()
    assert list(zip(later.tolist(), earlier.tolist(), strict=True)) == expected
    assert list(tmp_path.iterdir()) == []
