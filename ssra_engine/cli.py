"""The command line: `ssra-engine`. Commands are in `commands`; how they fail is decided here.

Exit codes: 0 done, 1 a fault of the program, 2 a mistake in what was given, 3 a run that ended with
failed documents, 4 a damaged output folder, 130 or 143 interrupted (SIGINT, SIGTERM).
"""

from __future__ import annotations

import tempfile
import traceback
from pathlib import Path
from typing import Any

import click

from ssra_engine import __version__
from ssra_engine.commands.abtest import abtest
from ssra_engine.commands.accept import accept
from ssra_engine.commands.audit import audit
from ssra_engine.commands.build import build
from ssra_engine.commands.candidates import candidates
from ssra_engine.commands.compare import compare
from ssra_engine.commands.config import config
from ssra_engine.commands.doctor import doctor
from ssra_engine.commands.evaluate import evaluate
from ssra_engine.commands.export import export
from ssra_engine.commands.inspect import inspect
from ssra_engine.commands.mine import mine
from ssra_engine.commands.notices import told_once
from ssra_engine.commands.options import ARGUMENTS, LOG
from ssra_engine.commands.rationale import rationale
from ssra_engine.commands.report import report
from ssra_engine.commands.rewrite import rewrite
from ssra_engine.commands.run import run
from ssra_engine.commands.simulate import simulate
from ssra_engine.commands.train import train
from ssra_engine.commands.verify import verify
from ssra_engine.errors import SsraError

__all__ = ["main"]

_INTERRUPTED = 130


class _Mistake(click.ClickException):
    """A mistake in what was given: one message and nothing else."""

    exit_code = 2


class _Commands(click.Group):
    """Commands in the order in which they are used; no traceback reaches the terminal."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """As registered, which is the order of use."""
        return list(self.commands)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does; the arguments as typed are kept for a command that prints them."""
        ctx.meta[ARGUMENTS] = tuple(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; what it raises becomes a message and an exit code."""
        try:
            with told_once():
                return super().invoke(ctx)
        except (click.ClickException, click.Abort, click.exceptions.Exit, BrokenPipeError):
            raise
        except SsraError as error:
            raise _Mistake(str(error)) from error
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(_INTERRUPTED)
        except Exception as error:
            log = _write_traceback(ctx.meta.get(LOG))
            told = traceback.format_exception_only(error)[-1].strip()
            click.echo(f"Error: a fault of ssra-engine: {told} (traceback in {log})", err=True)
            ctx.exit(1)


def _write_traceback(log: Path | None) -> str:
    """Append the traceback to the log of a run that has begun one, or to a temporary file."""
    if log is not None and log.is_file():
        try:
            with log.open("a", encoding="utf-8") as file:
                traceback.print_exc(file=file)
        except OSError:
            pass  # a full or lost disk may be the fault itself
        else:
            return str(log)
    with tempfile.NamedTemporaryFile(
        "w", prefix="ssra-engine-", suffix=".log", delete=False, encoding="utf-8"
    ) as kept:
        traceback.print_exc(file=kept)
    return kept.name


@click.group(
    cls=_Commands,
    no_args_is_help=False,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="ssra-engine")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Graded synthetic queries for search, from graded judgments and a pile of documents.

    \b
    The path, on a simulated world:
      ssra-engine simulate --documents 2000 --seed 0 --output world
      ssra-engine build --corpus world/corpus.arrow --judgments world/judgments.arrow \\
          --pairs world/pairs.arrow --preset tiny --output engines
      ssra-engine run --input world/corpus.arrow --engines engines --output out
      ssra-engine evaluate samples out

    \b
    Exit codes: 0 done; 1 a fault of the program; 2 a mistake in what was given;
    3 the run ended, but documents failed; 4 verify found damage; 130 or 143 interrupted.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


for _command in (
    simulate,
    rewrite,
    rationale,
    candidates,
    build,
    run,
    verify,
    audit,
    accept,
    mine,
    train,
    compare,
    evaluate,
    report,
    export,
    abtest,
    inspect,
    config,
    doctor,
):
    main.add_command(_command)

if __name__ == "__main__":
    main(prog_name="ssra-engine")
