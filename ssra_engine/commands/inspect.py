"""`ssra-engine inspect`."""

from __future__ import annotations

import json

import click

from ssra_engine.commands.options import json_option

__all__ = ["inspect"]


@click.command(short_help="Say what a file holds.")
@click.argument("file")
@click.option(
    "--samples", type=click.IntRange(min=0), default=3, show_default=True, help="Rows to show."
)
@json_option
def inspect(file: str, samples: int, as_json: bool) -> None:
    """Read FILE (or a folder, glob or URI) to its end and say what it holds.

    \b
    Example:
      ssra-engine inspect world/judgments.arrow
    """
    from ssra_engine.inspection import inspect_input, inspection_text

    report = inspect_input(file, samples=samples)
    if as_json:
        click.echo(json.dumps(report, ensure_ascii=False, indent=1))
    else:
        click.echo(inspection_text(report))
