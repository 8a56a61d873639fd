"""`ssra-engine abtest`."""

from __future__ import annotations

import json
from typing import Any

import click

from ssra_engine.commands.options import json_option

__all__ = ["abtest"]

_NAMES = {
    "ctr": "CTR",
    "strong_relevance_ratio": "strong relevance",
    "user_penetration_rate": "user penetration",
}


@click.command(short_help="Compare two arms of an A/B test from their logs.")
@click.option("--control", multiple=True, required=True, help="Log of the control; repeats.")
@click.option("--treatment", multiple=True, required=True, help="Log of the treatment; repeats.")
@click.option(
    "--strong",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Lowest grade of a strongly relevant result.",
)
@click.option(
    "--share",
    type=float,
    default=0.5,
    show_default=True,
    help="Planned share of users in the treatment.",
)
@click.option("--confidence", type=float, default=0.95, show_default=True, help="Of intervals.")
@click.option(
    "--power",
    type=float,
    default=0.8,
    show_default=True,
    help="With which the smallest effect is found.",
)
@json_option
def abtest(
    control: tuple[str, ...], treatment: tuple[str, ...], as_json: bool, **settings: Any
) -> None:
    """Compare the treatment of an A/B test with its control, from Arrow or Parquet logs.

    A row is an impression. Columns: user_id; clicked (0 or 1, or null in a row that only says that
    the user belongs to the arm); optional relevance (grade of the result, null where unknown) and
    used (0 or 1, whether the row shows use of the feature; without it, a click does).

    CTR is clicks over impressions, the strong relevance ratio strongly relevant over graded
    impressions, the user penetration rate the share of the arm's users who use the feature.
    Intervals and tests take the user as the unit (delta method), each metric for itself.

    \b
    Example:
      ssra-engine abtest --control a.parquet --treatment b.parquet
    """
    from ssra_engine.abtest.compare import compare_logs

    report = compare_logs(control, treatment, **settings)
    if as_json:
        click.echo(json.dumps(report, indent=1))
    else:
        _print_report(report)


def _print_report(report: dict[str, Any]) -> None:
    from rich.table import Table

    from ssra_engine.commands.printing import print_table

    for arm in ("control", "treatment"):
        users, impressions = report["users"][arm], report["impressions"][arm]
        click.echo(f"{arm:9}  {users:,} users, {impressions:,} impressions")
    mismatch = report["mismatch"]
    if mismatch["found"]:
        click.echo(
            f"SAMPLE-RATIO MISMATCH: so few or many users in the treatment have p = "
            f"{mismatch['p']:.2g} at a planned share of {mismatch['planned_share']:g}. The "
            "assignment or the log is broken; do not trust the figures below until it is found."
        )
    else:
        click.echo(f"sample ratio as planned (p = {mismatch['p']:.2f})")
    percent = f"{report['confidence']:.0%}"
    table = Table(title="Treatment against control, in percent", title_justify="left")
    table.add_column("metric", no_wrap=True)
    for name in ("control", "treatment", f"difference [{percent}]", f"lift [{percent}]", "p"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("smallest\nlift", justify="right")
    for key, effect in report["metrics"].items():
        cells = ["-"] * 6 if effect is None else _cells(effect)
        table.add_row(_NAMES[key], *cells)
    print_table(table)
    click.echo(
        f"Smallest lift: what a test of this size finds with a chance of {report['power']:.0%}."
    )


def _cells(effect: dict[str, float | None]) -> list[str]:
    def between(low: str, high: str) -> str:
        return f"[{_percent(effect[low], '+.3f')} {_percent(effect[high], '+.3f')}]"

    return [
        _percent(effect["control"], ".3f"),
        _percent(effect["treatment"], ".3f"),
        f"{_percent(effect['difference'], '+.3f')} {between('low', 'high')}",
        f"{_percent(effect['lift'], '+.3f')} {between('lift_low', 'lift_high')}",
        "-" if effect["p"] is None else f"{effect['p']:.4f}",
        _percent(effect["smallest_lift"], ".3f"),
    ]


def _percent(value: float | None, form: str) -> str:
    return "-" if value is None else format(100 * value, form)
