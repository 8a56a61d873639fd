"""`ssra-engine compare`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ssra_engine.commands.options import json_option

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["compare"]


@click.command(short_help="The method beside its baselines, in the paper's two tables.")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    required=True,
    help="YAML file: data, methods, seeds and settings; comparing/settings.py has every key.",
)
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("compare"), show_default=True
)
@json_option
def compare(config: Path, output: Path, as_json: bool) -> None:
    """Train the same embedder on judgments alone and on what each method adds to them.

    Methods: judgments, prompt, vanilla, ssra-without-stage-1, ssra-without-stage-2, ssra,
    judgments-binary and ssra-binary. Each asks for equally many queries. What was made before,
    under the same settings, is not made again.

    \b
    Example of a file:
      corpus: [world/corpus.arrow]
      judgments: [world/judgments.arrow]
      pairs: [world/pairs.arrow]
      base: all-MiniLM-L6-v2
      methods: [judgments, vanilla, ssra]
      seeds: [0, 1, 2]
      split: test
      pairs_seen: 20000
      settings: {model: {preset: tiny}}
      embedder: {batch_rows: 32, rate: 1.0e-4}
    """
    from ssra_engine.commands.printing import print_note_if_simulated, print_table
    from ssra_engine.comparing.compare import compare_methods
    from ssra_engine.comparing.settings import read_settings
    from ssra_engine.progress import ProgressBar

    settings = read_settings(config)
    with ProgressBar() as progress:
        report = compare_methods(settings, output, progress)
    if as_json:
        click.echo(json.dumps(report, ensure_ascii=False, indent=1))
        return
    click.echo(
        f"{report['pairs']:,} judged pairs of {report['queries']:,} queries, split "
        f"{report['split']}; mean of {len(settings.seeds)} seeds, x 100 [95 % of the queries]"
    )
    names = ("ndcg_exp@5", "ndcg_exp@10")
    print_table(_table(report, "ranking", names, "Ranking of the judged lists"))
    names = tuple(report["methods"][report["reference"]]["pooled"])
    print_table(_table(report, "pooled", names, "Average precision of all pairs together"))
    for line in _score_models(report):
        click.echo(line)
    click.echo(f"The whole report is in {output / 'report.json'}")
    print_note_if_simulated(settings.judgments)


def _table(report: Mapping[str, Any], kind: str, names: tuple[str, ...], title: str) -> Table:
    """A line for each method; the last column is how far the reference is above it."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column("method")
    for name in names:
        table.add_column(name, justify="right")
    reference = report["methods"][report["reference"]]["title"]
    table.add_column(f"{reference} minus it, {names[-1]}", justify="right")
    for method in report["methods"].values():
        cells = [_cell(method[kind][name]) for name in names]
        difference = method.get(f"{kind}_difference")
        last = "" if difference is None else _cell(difference[names[-1]], "{:+.2f}")
        table.add_row(method["title"], *cells, last)
    return table


def _score_models(report: Mapping[str, Any]) -> list[str]:
    """How good each score model that graded or filtered is; methods share those of a seed."""
    lines = []
    for method in report["methods"].values():
        for seed, held_out in zip(report["settings"]["seeds"], method["score_model"], strict=True):
            if held_out is None:
                continue
            shares = [sum(row) / held_out["rows"] for row in held_out["confusion"]]
            line = (
                f"Score model of seed {seed}, on {held_out['rows']:,} held-out judgments: "
                f"{held_out['accuracy']:.1%} right (always grade "
                f"{max(range(len(shares)), key=shares.__getitem__)}: {max(shares):.1%}), "
                f"quadratic kappa {held_out['quadratic_kappa']:.2f}"
            )
            if line not in lines:
                lines.append(line)
    return lines


def _cell(figure: Mapping[str, Any], form: str = "{:.2f}") -> str:
    if figure["value"] is None:
        return "-"
    told = form.format(100 * figure["value"])
    if figure["low"] is not None:
        told += " [" + " ".join(form.format(100 * figure[end]) for end in ("low", "high")) + "]"
    return told if figure.get("p") is None else f"{told} p={figure['p']:.4f}"
