"""`ssra-engine report`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ssra_engine.commands.options import json_option, seed_option

__all__ = ["report"]


@click.command(short_help="One HTML file that says what a run made.")
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--engines",
    type=click.Path(path_type=Path),
    help="What made the run. [default: engines, where that is so]",
)
@click.option(
    "--corpus", multiple=True, help="Documents of the run. [default: the files it recorded]"
)
@click.option(
    "--embedder",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A report of `evaluate model --output` or of `compare`; repeats.",
)
@click.option(
    "--audit",
    type=click.Path(path_type=Path),
    help="Labelled file or folder of `audit`. [default: audit or audit.csv, where it is of OUT]",
)
@click.option(
    "--accepted",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Folder of `accept`; repeats. [default: accepted, where it is of OUT]",
)
@click.option(
    "--documents",
    type=click.IntRange(min=1),
    default=20_000,
    show_default=True,
    help="Diversity looks at the queries of about this many.",
)
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    default=40,
    show_default=True,
    help="Kept queries shown per grade; a quarter as many for each reason of rejection.",
)
@seed_option
@click.option(
    "--output", type=click.Path(path_type=Path), help="The file. [default: OUT/report.html]"
)
@json_option
def report(out: Path, output: Path | None, seed: int | None, as_json: bool, **options: Any) -> None:
    """Write a report of the run in OUT, what `ssra-engine run` wrote: one HTML file.

    It holds the funnel and the balance of the grades, the quality of the score model, what was
    asked for beside what was predicted, the labels of an audit and the thresholds of `accept`,
    diversity, duplicates, throughput, a searchable sample of queries, embedding models, settings
    and provenance. The file needs no network and can be sent to anyone who may see the queries and
    documents in it.

    \b
    Example:
      ssra-engine report out --engines engines --embedder results
    """
    from ssra_engine.report.collect import collect
    from ssra_engine.report.write import write_report

    options["seed"] = seed or 0
    if as_json:
        click.echo(json.dumps(collect(out, **options), ensure_ascii=False, indent=1))
        return
    click.echo(write_report(out, output, **options))
