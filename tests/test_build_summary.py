"""What `build` prints of a score model: its figures in words, and a warning where they are poor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ssra_engine.commands.build_summary import print_built


def _figures(accuracy: float, confusion: list[list[int]]) -> dict[str, Any]:
    card = {"rows": 100, "accuracy": accuracy, "f1": [0.5, 0.25], "quadratic_kappa": 0.125}
    score = {name: {**card, "confusion": confusion} for name in ("held_out", "held_out_evened")}
    judgments = {"train": 1234, "dev": 100}
    return {"documents": 50, "judgments": judgments, "pairs": 7, "score": score}


def test_it_tells_what_the_score_model_gets_right(capsys: pytest.CaptureFixture[str]) -> None:
    print_built(Path("engines"), _figures(0.75, [[40, 20], [5, 35]]))
    text = capsys.readouterr().out
    assert "engines: 50 documents, 1,234 judgments learned from, 100 held out" in text
    (row,) = [line for line in text.splitlines() if line.startswith("│      0 │")]
    assert [cell.strip() for cell in row.split("│")[1:-1]] == [
        "0",
        "60",
        "40",
        "20",
        "0.50",
        "0.50",
    ]
    assert "75.0% right as judged (always grade 0: 60.0%), quadratic kappa 0.12" in text
    assert "no better" not in text


def test_it_says_when_that_is_no_better_than_one_grade(capsys: pytest.CaptureFixture[str]) -> None:
    print_built(Path("engines"), _figures(0.6, [[60, 0], [40, 0]]))
    assert "no better than the commonest grade" in capsys.readouterr().out
    print_built(Path("engines"), {**_figures(0.6, [[1]]), "score": {"temperature": 1.0}})
    assert "nobody knows how good" in capsys.readouterr().out
