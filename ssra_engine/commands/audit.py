"""`ssra-engine audit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ssra_engine.commands.options import json_option, seed_option

if TYPE_CHECKING:
    from ssra_engine.audit import Draw

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
@click.option("--serve", is_flag=True, help="Grade in the browser, on a page of this machine.")
@click.option("--port", type=click.IntRange(0, 65535), help="Of the page. [default: a free one]")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="The file; with --serve, the folder of the answers. [default: audit.csv, or audit]",
)
@json_option
def audit(
    out: Path,
    per_grade: int,
    surest: float,
    seed: int | None,
    corpus: tuple[str, ...],
    oracle: bool,
    serve: bool,
    port: int | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Draw a random sample of the scored pairs of OUT, what `ssra-engine run` wrote, for labelling.

    The pairs were kept or rejected, in shuffled order; the file does not say what grade they were
    written for, nor what the score model thinks. Fill in the column label: a grade, or - where a
    query has none. Then `ssra-engine accept` chooses thresholds with a promise.

    With --serve the pairs are graded on a web page of this machine, by one person or several, with
    the keyboard. Every answer is on disk at once, and the same command goes on where it stopped.
    At the end the page shows how often the grades are right and how well people agree.

    A precision of 90 % takes about a hundred labels among the accepted pairs. Where only the surest
    fifth of a target may be that good, draw from it (--surest 0.2), or draw five times as many.

    \b
    Examples:
      ssra-engine audit out --per-grade 300 --seed 0 --output audit.csv
      ssra-engine audit out --per-grade 50 --serve --output audit
    """
    from ssra_engine.audit import Draw, draw_audit
    from ssra_engine.commands.printing import print_json

    draw = Draw(per_grade, seed or 0, surest)
    if serve:
        if oracle or as_json:
            raise click.UsageError("--serve goes with neither --oracle nor --json.")
        _serve(out, draw, corpus, output or Path("audit"), port or 0)
        return
    if port is not None:
        raise click.UsageError("--port is of the page; add --serve.")
    report = draw_audit(out, draw, output or Path("audit.csv"), corpus=corpus, oracle=oracle)
    if as_json:
        print_json({"file": str(report.file), "drawn": report.drawn, "labelled": report.labelled})
        return
    counts = ", ".join(f"{count:,} of target {grade}" for grade, count in report.drawn.items())
    click.echo(f"{report.file}: {sum(report.drawn.values()):,} pairs, {counts}")
    if report.labelled:
        click.echo("The labels are those of the oracle of a simulation, not of people.")
    else:
        click.echo("Fill in the column label: a grade, or - where the query has none.")


def _serve(out: Path, draw: Draw, corpus: tuple[str, ...], folder: Path, port: int) -> None:
    try:
        from ssra_engine.auditing.serving import serve
    except ModuleNotFoundError as error:
        raise click.UsageError(
            f"The page needs {error.name}: pip install 'ssra-engine[audit]'."
        ) from error
    from ssra_engine.auditing.book import Book
    from ssra_engine.auditing.pairs import draw_pairs

    with Book(draw_pairs(out, draw, corpus=corpus), folder) as book:
        serve(book, port, _print_url)
        standing, total = len(book.standing()), len(book.pairs)
    click.echo(f"{folder}: {standing:,} of {total:,} pairs have a label.")
    if standing < total:
        click.echo("The same command goes on.")
    else:
        click.echo(
            f"Next: ssra-engine accept {out} --min-precision 0.9 --audit {folder}\n"
            f"  or: ssra-engine build --judgments {folder / 'judgments.parquet'} ..."
        )


def _print_url(url: str) -> None:
    click.echo(f"Open {url}\nWho has this address can grade. Ctrl-C ends it; answers are kept.")
