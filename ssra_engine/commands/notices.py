"""What the library logs, told once: a command may read the same file for several purposes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["told_once"]

_LOGGER = "ssra_engine.judgments"


@contextmanager
def told_once() -> Iterator[None]:
    """While this lasts, a notice about judgments that was told is not told again."""
    seen: set[str] = set()

    def unseen(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        fresh = message not in seen
        seen.add(message)
        return fresh

    logger = logging.getLogger(_LOGGER)
    logger.addFilter(unseen)
    try:
        yield
    finally:
        logger.removeFilter(unseen)
