"""`ssra-engine audit`."""

from __future__ import annotations

from pathlib import Path

import click

from ssra_engine.commands.options import seed_option

__all__ = ["audit"]


@click.command(short_help="Draw pairs of a run for blind labelling.")
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--per-grade",
    type=click.IntRange(min=1),
    default=300,
    show_default=True,
    help="Pairs of each target grade.",
)
@click.option(
    "--surest",
    type=click.FloatRange(0, 1, min_open=True),
    default=1.0,
    show_default=True,
    help="Draw from this share of each target, the pairs that the score model is surest of.",
)
@seed_option
@click.option(
    "--corpus", multiple=True, help="Documents of the run. [default: the files it recorded]"
)
@click.option("--oracle", is_flag=True, help="Simulated world: let the oracle label.")
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("audit.csv"), show_default=True
)
def audit(
    out: Path,
    per_grade: int,
    surest: float,
    seed: int | None,
    corpus: tuple[str, ...],
    oracle: bool,
    output: Path,
) -> None:
    """Draw a random sample of the scored pairs of OUT, what `ssra-engine run` wrote, for labelling.

    The pairs were kept or rejected, in shuffled order; the file does not say what grade they were
    written for, nor what the score model thinks. Fill in the column label: a grade, or - where a
    query has none. Then `ssra-engine accept` chooses thresholds with a promise.

    A precision of 90 % takes about a hundred labels among the accepted pairs. Where only the surest
    fifth of a target may be that good, draw from it (--surest 0.2), or draw five times as many.

    \b
    Example:
      ssra-engine audit out --per-grade 300 --seed 0 --output audit.csv
    """
    from ssra_engine.audit import Draw, draw_audit

    report = draw_audit(
        out, Draw(per_grade, seed or 0, surest), output, corpus=corpus, oracle=oracle
    )
    counts = ", ".join(f"{count:,} of target {grade}" for grade, count in report.drawn.items())
    click.echo(f"{report.file}: {sum(report.drawn.values()):,} pairs, {counts}")
    if report.labelled:
        click.echo("The labels are those of the oracle of a simulation, not of people.")
    else:
        click.echo("Fill in the column label: a grade, or - where the query has none.")
