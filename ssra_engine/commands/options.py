"""Options that several commands have, and types of option values."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

__all__ = [
    "ARGUMENTS",
    "GRADES",
    "LOG",
    "NUMBERS",
    "config_option",
    "json_option",
    "print_resumption",
    "python_option",
    "quiet_option",
    "remember_log",
    "seed_option",
]

#: Key, in the context's `meta`, of the log that takes a traceback.
LOG = "ssra_engine.log"


#: Key, in the context's `meta`, of the arguments as typed.
ARGUMENTS = "ssra_engine.arguments"


class _Grades(click.ParamType["tuple[int, ...]"]):
    """Grades as typed: `0,1,2`."""

    name = "0,1,.."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        parts = str(value).split(",")
        if not all(part.strip().isdecimal() for part in parts):
            self.fail(f"{value!r} is not a list of grades such as 0,1,2", param, ctx)
        grades = tuple(int(part) for part in parts)
        if len(set(grades)) != len(grades):
            self.fail(f"{value!r} names a grade twice", param, ctx)
        return grades


#: A comma list of distinct grades, tuple[int, ...].
GRADES = _Grades()


class _Numbers(click.ParamType["tuple[int, ...]"]):
    """Whole numbers from 1 on, as typed: `128,256`."""

    name = "n,n,.."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        parts = [part.strip() for part in str(value).split(",")]
        if not all(part.isdecimal() and int(part) > 0 for part in parts):
            self.fail(f"{value!r} is not a list of numbers such as 128,256", param, ctx)
        return tuple(sorted(set(map(int, parts))))


#: A comma list of whole numbers from 1 on, distinct and rising, tuple[int, ...].
NUMBERS = _Numbers()

config_option = click.option(
    "--config", type=click.Path(path_type=Path), help="YAML file of settings; flags go before it."
)
seed_option = click.option("--seed", type=click.IntRange(min=0), help="[default: 0]")
python_option = click.option(
    "--trt-python",
    "--vllm-python",
    "python",
    help="Python interpreter that has TensorRT-LLM or vLLM, for their backends.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
quiet_option = click.option("--quiet", is_flag=True, help="No progress and no tables; only errors.")


def remember_log(log: Path) -> None:
    """Name the log that takes the traceback, should the command fail unexpectedly."""
    click.get_current_context().meta[LOG] = log


def print_resumption(output: Path) -> None:
    """Say that the command was interrupted, and print the one that goes on."""
    command = shlex.join(["ssra-engine", *click.get_current_context().meta[ARGUMENTS]])
    click.echo(
        f"Interrupted. What is finished is kept in {output}. To go on:\n  {command}", err=True
    )
