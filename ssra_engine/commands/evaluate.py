"""`ssra-engine evaluate`."""

from __future__ import annotations

import click

__all__ = ["evaluate"]


@click.group(short_help="Measure what a run made.")
def evaluate() -> None:
    """Measure what a run made.

    \b
    Example:
      ssra-engine evaluate samples out
    """
