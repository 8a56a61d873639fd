from __future__ import annotations

import numpy as np
import pyarrow as pa

from ssra_engine.schema import REASONS, STAGED
from ssra_engine.tally import count_samples, describe


def test_counts_by_target_and_fate() -> None:
    rows = [
        {"target": 1, "reason": None},
        {"target": 1, "reason": "empty"},
        {"target": 3, "reason": "duplicate"},
        {"target": 3, "reason": None},
        {"target": 3, "reason": None},
        {"target": None, "reason": "error"},
    ]
    for row in rows:
        row["key"] = 0
    table = pa.Table.from_pylist(rows, schema=STAGED)
    counts, failed = count_samples(table, (1, 3))
    assert failed == 1
    expected = np.zeros((2, 1 + len(REASONS)), int)
    expected[0, 0] = expected[0, 1 + REASONS.index("empty")] = 1
    expected[1, 0], expected[1, 1 + REASONS.index("duplicate")] = 2, 1
    assert counts.tolist() == expected.tolist()
    told = describe(counts, (1, 3))
    assert told["grades"]["1"] == {
        "generated": 2,
        "kept": 1,
        "rejected": dict.fromkeys(REASONS, 0) | {"empty": 1},
        "duplicate_rate": 0.0,
    }
    assert told["grades"]["3"]["duplicate_rate"] == round(1 / 3, 6)
    assert told["total"]["kept"] == 3


def test_nothing_at_all() -> None:
    counts, failed = count_samples(STAGED.empty_table(), (0,))
    assert (counts.sum(), failed) == (0, 0)
    assert describe(counts, (0,))["total"]["duplicate_rate"] == 0.0
