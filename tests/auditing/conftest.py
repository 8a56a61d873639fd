from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from audited_run import open_book, pairs_of

from ssra_engine.auditing.book import Book


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    """Eight pairs that nobody has labelled yet."""
    with open_book(tmp_path / "audit", pairs_of(8)) as opened:
        yield opened
