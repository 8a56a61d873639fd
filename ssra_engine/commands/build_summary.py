"""What `build` prints at its end: what was learned from, and what the score model gets right."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from ssra_engine.commands.printing import print_table

__all__ = ["print_built"]


def print_built(folder: Path, figures: Mapping[str, Any]) -> None:
    """Print a summary of an engines folder.

    Args:
        folder: where it is.
        figures: of its manifest.
    """
    judgments = figures["judgments"]
    click.echo(
        f"{folder}: {figures['documents']:,} documents, {judgments['train']:,} judgments learned "
        f"from, {judgments['dev']:,} held out, {figures['pairs']:,} pairs graded"
    )
    if judgments.get("of_audits") or judgments.get("unclear"):
        click.echo(
            f"{judgments['of_audits']:,} of the judgments are from audits; they also named "
            f"{judgments['unclear']:,} queries that have no grade."
        )
    held_out = figures["score"].get("held_out")
    if not held_out:
        click.echo("No judgments were held out, so nobody knows how good the score model is.")
        return
    evened = figures["score"]["held_out_evened"]
    print_table(_table(held_out, evened))
    shares = [sum(row) / held_out["rows"] for row in held_out["confusion"]]
    commonest = max(range(len(shares)), key=shares.__getitem__)
    click.echo(
        f"{held_out['accuracy']:.1%} right as judged (always grade {commonest}: "
        f"{shares[commonest]:.1%}), quadratic kappa {held_out['quadratic_kappa']:.2f}; "
        f"{evened['accuracy']:.1%} right with the mix of grades evened out, as the filter uses it."
    )
    if held_out["accuracy"] <= shares[commonest]:
        click.echo(
            "The score model is no better than the commonest grade, and filters little. Give more "
            "judgments, a larger --backbone, or longer training."
        )


def _table(held_out: Mapping[str, Any], evened: Mapping[str, Any]) -> Table:
    """Rows are judged grades; cells count the grades that the filter sees."""
    title = f"Score model on {held_out['rows']:,} held-out judgments"
    table = Table(title=title, title_justify="left")
    table.add_column("judged", justify="right")
    grades = range(len(held_out["f1"]))
    for name in ("pairs", *(f"as {grade}" for grade in grades), "F1", "F1 as judged"):
        table.add_column(name, justify="right")
    for grade in grades:
        row = evened["confusion"][grade]
        cells = (f"{count:,}" for count in (sum(row), *row))
        table.add_row(
            str(grade), *cells, f"{evened['f1'][grade]:.2f}", f"{held_out['f1'][grade]:.2f}"
        )
    return table
