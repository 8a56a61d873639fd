"""`ssra-engine accept`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ssra_engine.commands.options import json_option

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["accept"]

_SHARE = click.FloatRange(0, 1, min_open=True, max_open=True)


@click.command(short_help="Accept pairs of a run at a precision that is promised.")
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--min-precision", type=_SHARE, required=True, help="Least share with the right grade."
)
@click.option(
    "--audit", type=click.Path(path_type=Path), help="Labelled file of `ssra-engine audit`."
)
@click.option(
    "--confidence",
    type=_SHARE,
    default=0.95,
    show_default=True,
    help="Probability with which the promise holds.",
)
@click.option("--jointly", is_flag=True, help="For all grades at once, not for each on its own.")
@click.option(
    "--judgments", multiple=True, help="In place of an audit, for an estimate only; repeats."
)
@click.option("--split", default="dev", show_default=True, help="Of the judgments.")
@click.option(
    "--corpus", multiple=True, help="Documents of the judgments. [default: those of the run]"
)
@click.option(
    "--engines", type=click.Path(path_type=Path), default=Path("engines"), show_default=True
)
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("accepted"), show_default=True
)
@json_option
def accept(
    out: Path,
    min_precision: float,
    audit: Path | None,
    confidence: float,
    jointly: bool,
    judgments: tuple[str, ...],
    split: str,
    corpus: tuple[str, ...],
    engines: Path,
    output: Path,
    as_json: bool,
) -> None:
    """Choose a threshold for each target grade of OUT, and write the pairs that reach it.

    With an audit, at least --min-precision of the accepted pairs of a grade have that grade; this
    fails with a probability of 5 % at most (--confidence), over the draw of the audit. A grade that
    its labels do not support is refused, with the precision that they do support. With judgments
    only, the thresholds are estimates and nothing is promised: judged pairs have another mix of
    grades and queries than generated ones.

    Pairs come from the whole run: also from those that the score filter rejected, but not from
    those whose text failed the checks or that the pairwise filter rejected; of equal queries for a
    grade the surest stays. Pairs that were audited and have another grade are left out.

    \b
    Examples:
      ssra-engine accept out --min-precision 0.9 --audit audit.csv --output accepted
      ssra-engine accept out --min-precision 0.9 --judgments world/judgments.arrow
    """
    from ssra_engine.acceptance import Terms, accept_audited, accept_estimated

    if (audit is None) != bool(judgments):
        raise click.UsageError("Give either --audit, for a promise, or --judgments.")
    terms = Terms(min_precision, confidence, jointly)
    if audit is not None:
        report = accept_audited(out, terms, audit, output)
    else:
        report = accept_estimated(
            out, terms, judgments, output, corpus=corpus, engines=engines, split=split
        )
    if as_json:
        click.echo(json.dumps(report, ensure_ascii=False, indent=1))
    else:
        _print_report(report, out)
        click.echo(f"The accepted pairs and the report are in {output}")


def _print_report(report: Mapping[str, Any], out: Path) -> None:
    from ssra_engine.commands.printing import print_note_if_simulated, print_table
    from ssra_engine.evaluation.outputs import open_outputs

    least = f"{report['min_precision']:.1%}"
    if report["promise"]:
        print_table(_promise_table(report))
        whose = "for all these grades at once" if report["jointly"] else "for each grade on its own"
        click.echo(
            f"Promise: of the accepted pairs of a grade, {least} or more have that grade, by the "
            f"audit's labels.\nIt holds with probability {report['confidence']:.1%} or more over "
            f"the draw of the audit, {whose};\nso does the precision told of a refused grade."
        )
    else:
        print_table(_estimate_table(report))
        click.echo(
            f"An estimate from {report['judged']:,} judged pairs (split {report['split']}), no "
            "promise: generated pairs have another\nmix of grades and queries. For a promise, "
            "label a sample of them: `ssra-engine audit`."
        )
    inputs = [name for name in open_outputs(out).inputs if Path(name).exists()]
    if inputs:
        print_note_if_simulated(inputs)


def _promise_table(report: Mapping[str, Any]) -> Table:
    from rich.table import Table

    table = Table(title="Accepted, with a promise", title_justify="left")
    names = ("scored", "kept by run", "labels", "right", "threshold", "accepted", "verdict")
    table.add_column("target", justify="right")
    for name in names:
        table.add_column(name, justify="right")
    for target, row in report["grades"].items():
        labels = f"{row['of_right']:,} of {row['of_audited']:,}"
        if row["threshold"] is None:
            sure = math.floor(1000 * row["reachable"]) / 10
            cells = ("-", "-", f"refused: {sure:.1f}% can be had ({labels} right)")
        else:
            least = f"{report['min_precision']:.1%} or more ({labels} right)"
            cells = (f"{row['threshold']:.3f}", f"{row['accepted']:,}", least)
        counts = (f"{row[name]:,}" for name in ("population", "kept", "audited", "right"))
        table.add_row(target, *counts, *cells)
    return table


def _estimate_table(report: Mapping[str, Any]) -> Table:
    from rich.table import Table

    table = Table(title="Accepted, by an estimate", title_justify="left")
    for name in ("target", "scored", "kept by run", "threshold", "accepted", "judged pairs"):
        table.add_column(name, justify="right")
    for target, row in report["grades"].items():
        judged = f"{row['right']:,} of {row['judged']:,} right"
        refused = row["threshold"] is None
        threshold = "none" if refused else f"{row['threshold']:.3f}"
        accepted = "-" if refused else f"{row['accepted']:,}"
        counts = (f"{row[name]:,}" for name in ("population", "kept"))
        table.add_row(target, *counts, threshold, accepted, judged)
    return table
