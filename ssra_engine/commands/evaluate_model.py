"""`ssra-engine evaluate model`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ssra_engine.commands.options import GRADES, NUMBERS, json_option, seed_option

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["model"]

_PRECISIONS = ("float32", "int8", "binary")


class _Precisions(click.ParamType["tuple[str, ...]"]):
    """Precisions as typed: `float32,int8`."""

    name = "p,p,.."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        parts = tuple(dict.fromkeys(part.strip() for part in str(value).split(",")))
        if not set(parts) <= set(_PRECISIONS):
            self.fail(f"{value!r} is not a list of {', '.join(_PRECISIONS)}", param, ctx)
        return parts


def _data_options(command: Callable[..., None]) -> Callable[..., None]:
    options = (
        click.option("--corpus", multiple=True, required=True, help="Documents; repeats."),
        click.option("--judgments", multiple=True, required=True, help="Judgments; repeats."),
        click.option("--split", default="dev", show_default=True, help="Its name, or all."),
        click.option(
            "--grades", type=GRADES, default=(0, 1, 2, 3), help="The scale. [default: 0,1,2,3]"
        ),
        click.option("--query-prompt", help="Before each query. [default: the model's own]"),
        click.option("--document-prompt", help="Before each document. [default: the model's own]"),
    )
    return _with_options(command, options)


def _measure_options(command: Callable[..., None]) -> Callable[..., None]:
    options = (
        click.option(
            "--mode",
            type=click.Choice(["judged", "corpus"]),
            default="judged",
            show_default=True,
            help="Rank each query's judged documents, or search the whole corpus exactly.",
        ),
        click.option(
            "--dims",
            type=NUMBERS,
            default=(),
            help="Matryoshka dims. [default: the whole vector]",
        ),
        click.option(
            "--precisions",
            type=_Precisions(),
            default=_PRECISIONS,
            help="Of the document vectors. [default: float32,int8,binary]",
        ),
        click.option(
            "--cutoffs", type=NUMBERS, default=(5, 10), help="Of nDCG, recall. [default: 5,10]"
        ),
        click.option(
            "--min-list",
            type=click.IntRange(min=1),
            default=10,
            show_default=True,
            help="Leave shorter judged lists out of the figures per query (judged mode).",
        ),
        click.option(
            "--relevant",
            type=click.IntRange(min=1),
            help="Lowest grade relevant to recall and MRR. [default: upper half of the grades]",
        ),
        click.option(
            "--resamples",
            type=click.IntRange(min=0),
            default=1000,
            show_default=True,
            help="Of the bootstrap over queries; 0 for no intervals and tests.",
        ),
        seed_option,
    )
    return _with_options(command, options)


def _with_options(
    command: Callable[..., None], options: tuple[Callable[..., Any], ...]
) -> Callable[..., None]:
    for option in reversed(options):
        command = option(command)
    return command


@click.command(short_help="nDCG, average precision and more of an embedding model.")
@click.argument("folder", type=click.Path(path_type=Path))
@_data_options
@click.option(
    "--against", type=click.Path(path_type=Path), help="Another model, to test the difference."
)
@_measure_options
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Folder that gets report.json and queries.parquet.",
)
@json_option
def model(
    folder: Path,
    corpus: tuple[str, ...],
    judgments: tuple[str, ...],
    split: str,
    grades: tuple[int, ...],
    query_prompt: str | None,
    document_prompt: str | None,
    against: Path | None,
    batch_size: int,
    output: Path | None,
    as_json: bool,
    seed: int | None,
    **measured: Any,
) -> None:
    """Measure the sentence-transformers model in FOLDER on graded judgments.

    Figures per query are means over queries: nDCG with linear gains (the grade) and exponential
    ones (2^grade - 1), recall, MRR, and average precision and Spearman's rho within each query.
    Pooled figures are of all pairs together: average precision of the cosine at each grade and
    above, their mean, and rho. Intervals are bootstrapped over queries.

    \b
    Example:
      ssra-engine evaluate model my-embedder --corpus corpus.arrow \\
          --judgments judgments.arrow --dims 128,384 --output results
    """
    from ssra_engine.evaluation.measuring import Settings
    from ssra_engine.evaluation.retrieval import evaluate_model, read_judged, write_evaluation

    settings = Settings(**measured, seed=seed or 0)
    judged = read_judged(corpus, judgments, grades, split, settings)
    evaluation = evaluate_model(
        folder,
        judged,
        settings,
        against=against,
        batch_size=batch_size,
        query_prompt=query_prompt,
        document_prompt=document_prompt,
        progress=sys.stderr.isatty(),
    )
    if output is not None:
        write_evaluation(evaluation, output)
    if as_json:
        click.echo(json.dumps(evaluation.report, ensure_ascii=False, indent=1))
        return
    _print_report(evaluation.report)
    if output is not None:
        click.echo(f"The report and the figures of each query are in {output}")


def _print_report(report: Mapping[str, Any]) -> None:
    from ssra_engine.commands.printing import print_table

    settings = report["settings"]
    click.echo(
        f"{report['pairs']:,} judged pairs of {report['queries']:,} queries, split "
        f"{report['split']}; {report['documents']:,} documents"
    )
    if settings["mode"] == "judged":
        click.echo(
            f"Judged lists of {settings['min_list']} or more: "
            f"{report['queries_with_long_lists']:,} queries"
        )
    click.echo(f"Relevant to recall and MRR: grade {settings['relevant']} and above")
    for rows in _by_dim(report["results"]):
        print_table(_table(rows, rows[0]["model"], settings))
    for rows in _by_dim(report["comparisons"]):
        title = f"{rows[0]['model']} minus {rows[0]['against']}"
        print_table(_table(rows, title, settings, signed=True))
    if report["comparisons"]:
        click.echo("p of the paired randomisation test, for each figure alone; pooled ones: none")


def _by_dim(rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    for key in dict.fromkeys((row["model"], row["dim"]) for row in rows):
        yield [row for row in rows if (row["model"], row["dim"]) == key]


def _table(
    rows: list[dict[str, Any]], title: str, settings: Mapping[str, Any], *, signed: bool = False
) -> Table:
    """A column for each precision, a line for each figure, x 100."""
    from rich.table import Table

    table = Table(title=f"{title}, dim {rows[0]['dim']}", title_justify="left")
    table.add_column(f"x 100 [{settings['confidence']:.0%}]", no_wrap=True)
    for row in rows:
        table.add_column(row["precision"], justify="right", no_wrap=True)
    for kind, label in (("per_query", "mean of queries"), ("pooled", "all pairs together")):
        table.add_section()
        table.add_row(label, style="italic")
        for name in rows[0][kind]:
            cells = [_cell(row[kind][name], signed=signed) for row in rows]
            table.add_row(f"  {name}", *cells)
    return table


def _cell(figure: Mapping[str, Any], *, signed: bool) -> str:
    if figure["value"] is None:
        return "-"
    form = "{:+.2f}" if signed else "{:.2f}"
    told = form.format(100 * figure["value"])
    if figure["low"] is not None:
        told += " [" + " ".join(form.format(100 * figure[end]) for end in ("low", "high")) + "]"
    return told if figure.get("p") is None else f"{told} p={figure['p']:.4f}"
