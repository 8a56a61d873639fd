from __future__ import annotations

import numpy as np

from ssra_engine.engines.scheduler import Tree
from ssra_engine.engines.token_tree import lay_out

TREES = [
    Tree([11, 12, 13], [[21], [22, 23]], [0, 1, 1], [7, 3, 4]),
    Tree([14], [[24, 25, 26]], [0], [5]),
    Tree([], [[27]], [0], [1]),
]


def test_layout() -> None:
    layout = lay_out(TREES, 0)
    assert layout.prefix_columns == 3
    assert layout.tokens.tolist() == [
        [11, 12, 13, 21, 22, 23],
        [14, 0, 0, 24, 25, 26],
        [0, 0, 0, 27, 0, 0],
    ]
    assert layout.positions[0].tolist() == [0, 1, 2, 3, 3, 4]
    assert layout.positions[1, 3:].tolist() == [1, 2, 3]
    assert layout.branch.tolist() == [[7, 3, 4], [5, -1, -1], [1, -1, -1]]
    assert layout.branch_column[:, 0].tolist() == [3, 5, 3]
    assert layout.branch_column[0].tolist() == [3, 5, 5]
    assert layout.branch_position[0].tolist() == [4, 5, 5]


def test_a_token_sees_its_document_and_its_own_suffix() -> None:
    layout = lay_out(TREES, 0)
    expected = np.zeros((6, 6), bool)
    for column, seen in enumerate([[0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 4]]):
        expected[column, seen] = True
    expected[5, [0, 1, 2, 4, 5]] = True
    visible = layout.visible()
    assert np.array_equal(visible[0], expected)
    assert visible.any(-1).all()
    assert visible[1, 5].tolist() == [True, False, False, True, True, True]
    assert np.array_equal(layout.visible(3), visible[:, 3:])
    assert layout.branch_visible[0].tolist() == [
        [True, True, True, True, False, False],
        [True, True, True, False, True, True],
        [True, True, True, False, True, True],
    ]
