"""`ssra-engine doctor`."""

from __future__ import annotations

import json

import click

from ssra_engine.commands.options import json_option

__all__ = ["doctor"]


@click.command(short_help="Say what this machine can run.")
@json_option
def doctor(as_json: bool) -> None:
    """Print versions, CPU features, and which engines can run here and why the others cannot.

    \b
    Example:
      ssra-engine doctor
    """
    from ssra_engine.doctor import diagnose, diagnosis_text

    report = diagnose()
    if as_json:
        click.echo(json.dumps(report, ensure_ascii=False, indent=1))
    else:
        click.echo(diagnosis_text(report))
