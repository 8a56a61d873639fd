"""transformers, without what it prints while it reads and writes models."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from transformers.utils import logging

__all__ = ["quiet_transformers"]


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """No bars, and no word on weights that a checkpoint rightly leaves out or that are new."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
