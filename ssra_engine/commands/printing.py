"""What commands print: facts, tables, and that a simulation is one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from ssra_engine.readers import find_sources, schema_metadata
from ssra_engine.schema import REASONS
from ssra_engine.simulate import SIMULATED

__all__ = [
    "SIMULATION_NOTE",
    "cost_table",
    "funnel_table",
    "print_facts",
    "print_json",
    "print_note_if_simulated",
    "print_table",
]

SIMULATION_NOTE = (
    "These are figures of a simulation (`ssra-engine simulate`), not of a real search engine."
)

# Of a pipe or a file, whose width is not known.
_WIDTH = 120


def print_table(table: Table) -> None:
    """Print a table to standard output; away from a terminal it is not cut to 80 columns."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    console.print(table)


def print_facts(title: str, facts: Mapping[str, Any]) -> None:
    """Print a JSON tree as one line per leaf, `a.b  value`."""
    rows = [(name, _shown(value)) for name, value in _leaves(facts)]
    width = max((len(name) for name, _ in rows), default=0)
    click.echo(title)
    for name, value in rows:
        click.echo(f"  {name.ljust(width)}  {value}")


def print_json(tree: Any) -> None:
    """Print a JSON tree to standard output."""
    click.echo(json.dumps(tree, ensure_ascii=False, indent=1))


def print_note_if_simulated(inputs: Sequence[str]) -> None:
    """Say that the figures are of a simulation where an input is one."""
    if any(SIMULATED in schema_metadata(source) for source in find_sources(inputs)):
        click.echo(SIMULATION_NOTE)


def funnel_table(title: str, counts: Mapping[str, Any]) -> Table:
    """Generated, kept and rejected by reason, for each target grade and in all.

    Args:
        title: above the table.
        counts: what `tally.describe` returns.
    """
    rows = {**counts["grades"], "all": counts["total"]}
    reasons = [name for name in REASONS if counts["total"]["rejected"][name]]
    table = Table(title=title, title_justify="left")
    for name in ("target", "generated", "kept", "share", *reasons):
        table.add_column(name.replace("_", " "), justify="right")
    for target, row in rows.items():
        share = f"{row['kept'] / row['generated']:.1%}" if row["generated"] else "-"
        fates = [f"{row['generated']:,}", f"{row['kept']:,}", share]
        table.add_row(target, *fates, *(f"{row['rejected'][name]:,}" for name in reasons))
    return table


def cost_table(costs: Mapping[str, Any]) -> Table:
    """What each target grade took.

    Args:
        costs: what `tally.describe_costs` returns.
    """
    table = Table(title="What each grade cost", title_justify="left")
    names = ("samples", "scored", "tokens", "samples_per_kept", "tokens_per_kept")
    for name in ("target", *names):
        table.add_column(name.replace("_", " "), justify="right")
    for target, row in costs.items():
        table.add_row(target, *("-" if row[name] is None else f"{row[name]:,}" for name in names))
    return table


def _leaves(tree: Mapping[str, Any], start: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{start}{key}.")
        else:
            yield f"{start}{key}", value


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
