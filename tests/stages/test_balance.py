from __future__ import annotations

import numpy as np

from ssra_engine.stages.balance import count_accepted, shortfall


def test_counts_and_what_is_short() -> None:
    document = np.array([0, 0, 2, 2, 2], np.int32)
    target = np.array([1, 3, 3, 3, 3], np.int8)
    accepted = count_accepted(document, target, 3, (1, 3))
    assert accepted.tolist() == [[1, 1], [0, 0], [0, 3]]
    assert shortfall(accepted, 2).tolist() == [[1, 1], [2, 2], [2, 0]]
