"""Graded synthetic queries for search, and the embedding model they train (arXiv 2509.16717)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ssra_engine.kernels.loss import graded_infonce
    from ssra_engine.kernels.mining import MiningIndex
    from ssra_engine.negatives.mine import mine_hard_negatives

__all__ = ["MiningIndex", "__version__", "graded_infonce", "mine_hard_negatives"]

__version__ = "0.1.0"

# Where public names live; a name is imported when it is first asked for, so that importing the
# package costs nothing.
_HOMES = {
    "MiningIndex": "ssra_engine.kernels.mining",
    "graded_infonce": "ssra_engine.kernels.loss",
    "mine_hard_negatives": "ssra_engine.negatives.mine",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
