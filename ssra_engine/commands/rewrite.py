"""`ssra-engine rewrite`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ssra_engine.commands.options import (
    config_option,
    json_option,
    python_option,
    quiet_option,
    seed_option,
)
from ssra_engine.commands.teaching import run_teacher, teacher_options

__all__ = ["rewrite"]


@click.command(short_help="Let a teacher describe documents: title, OCR and ASR in one (stage 0).")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    required=True,
    help="Documents: Arrow, Parquet, JSONL or CSV; a folder, glob or URI of them; repeats.",
)
@click.option(
    "--keep-ocr-asr/--drop-ocr-asr",
    default=None,
    help="Keep ocr and asr beside the description made of them. [default: drop]",
)
@click.option(
    "--min-overlap",
    type=click.FloatRange(0, 1),
    help="A description is not used when less of its pieces of words stands in its document; 0 "
    "lets all pass. [default: 0.1]",
)
@click.option(
    "--on-error",
    type=click.Choice(["stop", "reject"]),
    help="End at a bad document, or send it to rejected. [default: stop]",
)
@click.option("--limit", type=click.IntRange(min=1), help="Read at most this many documents.")
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("rewritten"), show_default=True
)
@teacher_options
@python_option
@config_option
@seed_option
@quiet_option
@json_option
def rewrite(inputs: tuple[str, ...], **options: Any) -> None:
    """Write one description for each document from its title, text, OCR and ASR.

    OUTPUT is a folder: corpus/ holds every document with its title and, as text, the description;
    give it to build and run. A document without OCR and ASR stays as it is, and so does one whose
    description is of no use: rejected/ says why. The same command after an interruption goes on
    where it stopped.

    \b
    Example:
      ssra-engine rewrite --input corpus.arrow --model my-teacher --output rewritten
      ssra-engine run --input rewritten/corpus --engines engines --output out
    """
    from ssra_engine.commands.printing import print_note_if_simulated
    from ssra_engine.teaching.rewrite import rewrite as describe

    places = {
        "keep_ocr_asr": "rewrite.keep_ocr_asr",
        "min_overlap": "rewrite.min_overlap",
        "on_error": "input.on_error",
        "limit": "input.limit",
    }
    outcome = run_teacher(
        "rewrite",
        {place: options.pop(name) for name, place in places.items()},
        options,
        lambda config, teacher, output, progress: describe(
            config, inputs, teacher, output, progress
        ),
    )
    if outcome is not None:
        print_note_if_simulated(inputs)
        click.echo(f"Next: give --corpus {outcome.table} to build, and --input to run.")
