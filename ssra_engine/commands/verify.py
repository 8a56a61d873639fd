"""`ssra-engine verify`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from ssra_engine.commands.options import json_option

__all__ = ["verify"]

_DAMAGED = 4


@click.command(short_help="Check every file of a run against its records.")
@click.argument("out", type=click.Path(path_type=Path))
@json_option
def verify(out: Path, as_json: bool) -> None:
    """Read everything in OUT, the output folder of a run, and say what is wrong with it.

    Checksums, columns and numbers of rows; parts that are missing or not of this run; samples that
    are there twice or were not asked for; documents without rows; the counts of summary.json. A run
    that has not ended is checked as far as it came. Nothing is written. Exit code 4 says that
    something is wrong.

    \b
    Example:
      ssra-engine verify out
    """
    from ssra_engine.verify import verify_output

    verdict = verify_output(out)
    if as_json:
        facts = {**asdict(verdict), "folder": str(out), "sound": not verdict.findings}
        click.echo(json.dumps(facts, ensure_ascii=False, indent=1))
    else:
        for finding in verdict.findings:
            click.echo(f"{finding.file}: {finding.problem}")
        state = "the run has ended" if verdict.finished else "the run has not ended"
        looked = f"{verdict.files:,} files, {verdict.rows:,} rows, {verdict.bytes:,} bytes read"
        found = f"{len(verdict.findings):,} findings" if verdict.findings else "all is well"
        click.echo(f"{out}: {looked}; {state}; {found}")
    if verdict.findings:
        click.get_current_context().exit(_DAMAGED)
