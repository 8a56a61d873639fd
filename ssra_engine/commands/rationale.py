"""`ssra-engine rationale`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ssra_engine.commands.options import (
    GRADES,
    config_option,
    json_option,
    python_option,
    quiet_option,
    seed_option,
)
from ssra_engine.commands.teaching import run_teacher, teacher_options

__all__ = ["rationale"]


@click.command(short_help="Let a teacher give a short reason for each judgment.")
@click.option("--corpus", multiple=True, required=True, help="Documents; repeats.")
@click.option("--judgments", multiple=True, required=True, help="Graded pairs; repeats.")
@click.option("--grades", type=GRADES, help="The grade scale. [default: 0,1,2,3]")
@click.option("--split", help="Rows that get a reason, or all. [default: train]")
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("reasoned"), show_default=True
)
@teacher_options
@python_option
@config_option
@seed_option
@quiet_option
@json_option
def rationale(corpus: tuple[str, ...], judgments: tuple[str, ...], **options: Any) -> None:
    """Write why each judged document has its grade, for a score model to learn from.

    OUTPUT is a folder: judgments/ holds every judgment with the column rationale, null where the
    reason is of no use (rejected/ says why) or was not asked for. `build` learns from it with the
    setting model.rationales. The same command after an interruption goes on where it stopped.

    \b
    Example:
      ssra-engine rationale --corpus corpus.arrow --judgments judgments.arrow \\
          --model my-teacher --output reasoned
      ssra-engine build --corpus corpus.arrow --judgments reasoned/judgments \\
          --backbone my-backbone --rationales train
    """
    from ssra_engine.commands.printing import print_note_if_simulated
    from ssra_engine.teaching.rationale import rationale as explain

    places = {"grades": "grades", "split": "rationale.split"}
    outcome = run_teacher(
        "rationale",
        {place: options.pop(name) for name, place in places.items()},
        options,
        lambda config, teacher, output, progress: explain(
            config, corpus, judgments, teacher, output, progress
        ),
    )
    if outcome is not None:
        print_note_if_simulated(judgments)
        click.echo(f"Next: give --judgments {outcome.table} --rationales train to build.")
