"""`ssra-engine evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ssra_engine.commands.evaluate_model import model
from ssra_engine.commands.options import json_option

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["evaluate"]


@click.group(short_help="Measure what a run made, or an embedding model.")
def evaluate() -> None:
    """Measure what a run made, or an embedding model.

    \b
    Example:
      ssra-engine evaluate samples out
    """


evaluate.add_command(model)


@evaluate.command(short_help="Alignment and diversity of the samples of a run.")
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--corpus", multiple=True, help="Documents of the run. [default: the files it recorded]"
)
@click.option(
    "--documents",
    type=click.IntRange(min=1),
    default=20_000,
    show_default=True,
    help="Look at the queries and the truth of about this many documents.",
)
@json_option
def samples(out: Path, corpus: tuple[str, ...], documents: int, as_json: bool) -> None:
    """Measure the samples in OUT, what `ssra-engine run` wrote.

    Prints how many samples of each target grade passed the filters, how varied they are and, where
    the documents are simulated, how often the oracle gives a query the grade it was written for:
    before the filters and after each of them, for the first query model and the last.

    \b
    Example:
      ssra-engine evaluate samples out
    """
    from ssra_engine.evaluation.samples import evaluate_samples

    report = evaluate_samples(out, corpus, documents=documents)
    if as_json:
        click.echo(json.dumps(report, ensure_ascii=False, indent=1))
    else:
        _print_report(report)


def _print_report(report: dict[str, Any]) -> None:
    from ssra_engine.commands.printing import SIMULATION_NOTE, funnel_table, print_table

    if report["simulated"]:
        click.echo(SIMULATION_NOTE)
    for part in report["funnel"]:
        print_table(funnel_table(f"{part['part']}, query model v{part['model']}", part))
    print_table(_diversity_table(report))
    if report["oracle"] is not None:
        print_table(_oracle_table(report["oracle"]))
        click.echo(
            "Grades come from the oracle of the simulation, which parses the query and compares it "
            "with the document's facets;\na query that it cannot parse counts as wrong. Percent "
            "[Wilson 95 % interval] samples. The first and the last query\nmodel are compared "
            "on the same documents."
        )
    elif report["simulated"]:
        click.echo("The oracle grades 0 to 3; the grades of this run are others.")


def _diversity_table(report: dict[str, Any]) -> Table:
    from rich.table import Table

    table = Table(title=f"Diversity, on {report['documents']:,} documents", title_justify="left")
    figures = {
        "repeated": ("duplicate_rate", "{:.2%}"),
        "nearly": ("near_duplicate_rate", "{:.2%}"),
        "distinct-1": ("distinct_1", "{:.3f}"),
        "distinct-2": ("distinct_2", "{:.3f}"),
        "zlib": ("compression", "{:.2f}"),
        "chars": ("mean_characters", "{:.1f}"),
        "words": ("mean_words", "{:.1f}"),
        "in doc": ("overlap", "{:.1%}"),
    }
    table.add_column("part")
    table.add_column("queries")
    for name in ("samples", *figures):
        table.add_column(name, justify="right")
    for row in report["diversity"]:
        if row["target"] is not None and row["part"] != "final":
            continue
        which = row["set"] if row["target"] is None else f"{row['set']}, grade {row['target']}"
        cells = [
            "-" if row[key] is None else form.format(row[key]) for key, form in figures.values()
        ]
        table.add_row(row["part"], which, f"{row['samples']:,}", *cells)
    return table


def _oracle_table(rows: list[dict[str, Any]]) -> Table:
    from rich.table import Table

    targets = sorted({row["target"] for row in rows})
    table = Table(
        title="The oracle agrees with the target grade (a simulation), on "
        f"{max(row['documents'] for row in rows):,} documents",
        title_justify="left",
    )
    table.add_column("query model")
    table.add_column("samples")
    for target in targets:
        table.add_column(f"target {target}", justify="right")
    lines: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        name = f"v{row['model']} ({row['part']})"
        lines.setdefault((name, row["step"]), []).append(_share(row))
    before = None
    for (name, step), cells in lines.items():
        if before not in (None, name):
            table.add_section()
        table.add_row("" if name == before else name, step, *cells)
        before = name
    return table


def _share(row: dict[str, Any]) -> str:
    if row["rate"] is None:
        return "- 0"
    share, low, high = (100 * row[name] for name in ("rate", "low", "high"))
    return f"{share:.1f} [{low:.0f}-{high:.0f}] {row['samples']:,}"
