"""A few seconds of `fuzz.py`, which runs as long as one likes."""

from __future__ import annotations

from fuzz import fuzz


def test_damaged_files_are_read_or_refused() -> None:
    report = fuzz(0, inputs=960)
    assert report.findings == []
    assert report.tried.total() == 960
    assert len(report.tried) == 14
