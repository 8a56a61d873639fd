"""What `rewrite` and `rationale` share: the teacher's options, interruption, what is printed."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from ssra_engine.commands.options import print_resumption, remember_log

if TYPE_CHECKING:
    from ssra_engine.config import Config
    from ssra_engine.steps import Progress
    from ssra_engine.teaching.assignment import Outcome
    from ssra_engine.teaching.teacher import Teacher

__all__ = ["run_teacher", "teacher_options"]

_FAILED_ROWS = 3
_SIGNALLED = 128

_Command = TypeVar("_Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--model", help="The teacher: folder of a causal language model, or a GGUF file."),
    click.option(
        "--prompts",
        type=click.Choice(["plain", "instruct"]),
        help="In words, or as a model trained here reads them. [default: instruct]",
    ),
    click.option("--max-new-tokens", type=click.IntRange(min=1), help="A longer text is not used."),
    click.option("--temperature", type=click.FloatRange(min=0), help="[default: 0, greedy]"),
    click.option(
        "--backend", help="auto, torch, openvino, tensorrt-llm, vllm, fake. [default: auto]"
    ),
    click.option("--threads", type=click.IntRange(min=1), help="CPU threads of an engine."),
    click.option(
        "--shard-documents",
        type=click.IntRange(min=1),
        help="Rows per shard, the unit of resuming. [default: 2000]",
    ),
    click.option(
        "--format",
        "file_format",
        type=click.Choice(["parquet", "arrow"]),
        help="Of the outputs. [default: parquet]",
    ),
)

#: Option and its place in the configuration.
_PLACES = {
    "backend": "engine.backend",
    "python": "engine.python",
    "threads": "engine.threads",
    "shard_documents": "output.shard_documents",
    "file_format": "output.format",
    "seed": "seed",
}
_OWN = ("prompts", "max_new_tokens", "temperature")


def teacher_options(command: _Command) -> _Command:
    """The options of every command that asks a teacher."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def run_teacher(
    name: Literal["rewrite", "rationale"],
    overrides: Mapping[str, Any],
    options: Mapping[str, Any],
    work: Callable[[Config, Teacher, Path, Progress], Outcome],
) -> Outcome | None:
    """Read the settings, let the teacher work, and print how that ended.

    Args:
        name: section of the settings.
        overrides: settings by place, of the command's own options.
        options: those of `teacher_options` and the common ones, and ``output``.
        work: the work itself.

    Returns:
        the outcome, or None where nothing more is to be printed.
    """
    from ssra_engine.commands.printing import print_facts, print_json
    from ssra_engine.config import load_config
    from ssra_engine.interruption import Interruption
    from ssra_engine.progress import ProgressBar
    from ssra_engine.teaching.teacher import teacher_of

    places = {**_PLACES, **{option: f"{name}.{option}" for option in _OWN}}
    given = {place: options[option] for option, place in places.items()}
    config = load_config(options["config"], {**overrides, **given})
    teacher = teacher_of(options["model"], config, getattr(config, name))
    output, quiet = options["output"], options["quiet"]
    remember_log(output / "run.log")
    try:
        with Interruption() as interruption, ProgressBar(quiet=quiet) as progress:
            outcome = work(config, teacher, output, interruption.watch(progress))
    except KeyboardInterrupt as error:
        print_resumption(output)
        number = getattr(error, "number", signal.SIGINT)
        click.get_current_context().exit(_SIGNALLED + number)
    facts = {"output": str(output), "table": str(outcome.table), **outcome.summary}
    if options["as_json"]:
        print_json(facts)
    elif not quiet:
        if outcome.already_finished:
            click.echo(f"{output}: this has ended before, nothing was left to do.")
        print_facts(f"Written into {output}", {k: v for k, v in facts.items() if k != "output"})
    if outcome.failed:
        click.get_current_context().exit(_FAILED_ROWS)
    return None if quiet or options["as_json"] else outcome
