"""`ssra-engine build`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ssra_engine.commands.options import (
    GRADES,
    config_option,
    json_option,
    python_option,
    quiet_option,
    seed_option,
)

__all__ = ["build"]

#: Option and its place in the configuration.
_PLACES = {
    "backbone": "model.backbone",
    "preset": "model.preset",
    "score_model": "model.score_model",
    "score_backbone": "model.cross_encoder.backbone",
    "rationales": "model.rationales",
    "train_comparator": "model.train_comparator",
    "grades": "grades",
    "seed": "seed",
    "backend": "engine.backend",
    "python": "engine.python",
}


@click.command(short_help="Train the score model and the query model (stage 1).")
@click.option("--corpus", multiple=True, required=True, help="Documents; repeats.")
@click.option("--judgments", multiple=True, required=True, help="Graded pairs; repeats.")
@click.option("--pairs", multiple=True, help="Pairs without grades; repeats.")
@click.option(
    "--audit",
    "audits",
    multiple=True,
    help="Labelled audits of earlier runs, learned too; repeats.",
)
@click.option("--backbone", help="Folder of a Hugging Face causal LM, or a GGUF file.")
@click.option(
    "--preset", type=click.Choice(["tiny"]), help="Train a small backbone from scratch instead."
)
@click.option(
    "--score-model",
    type=click.Choice(["causal", "cross-encoder"]),
    help="Kind of the score model: that language model, or an encoder. [default: causal]",
)
@click.option("--score-backbone", help="Folder of the encoder of a cross-encoder.")
@click.option(
    "--train-comparator",
    is_flag=True,
    default=None,
    help="Train a comparator too, for `run --comparator trained`.",
)
@click.option(
    "--rationales",
    type=click.Choice(["none", "train", "write"]),
    help="Reasons in the judgments: ignore them, train the score model on them, or let it write "
    "one before each grade too. [default: none]",
)
@click.option("--grades", type=GRADES, help="The grade scale. [default: 0,1,2,3]")
@click.option(
    "--backend", help="Grades the pairs: auto, torch, openvino, tensorrt-llm, vllm. [default: auto]"
)
@python_option
@config_option
@seed_option
@quiet_option
@json_option
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("engines"), show_default=True
)
def build(
    corpus: tuple[str, ...],
    judgments: tuple[str, ...],
    pairs: tuple[str, ...],
    audits: tuple[str, ...],
    config: Path | None,
    output: Path,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train the models of a run from graded judgments, and write them into an engines folder.

    The score model learns the judgments, grades the pairs, and the query model learns from both.
    Run again with nothing changed, it does nothing. Checkpoints for tensorrt-llm and vllm are made
    for --backend and kept in a cache.

    \b
    Example:
      ssra-engine build --corpus world/corpus.arrow --judgments world/judgments.arrow \\
          --pairs world/pairs.arrow --preset tiny --output engines
    """
    from ssra_engine.build import build as build_engines
    from ssra_engine.commands.build_summary import print_built
    from ssra_engine.commands.printing import print_json, print_note_if_simulated
    from ssra_engine.config import load_config
    from ssra_engine.progress import ProgressBar

    overrides = {place: options[name] for name, place in _PLACES.items()}
    settings = load_config(config, overrides)
    with ProgressBar(quiet=quiet) as progress:
        report = build_engines(
            settings,
            corpus=corpus,
            judgments=judgments,
            pairs=pairs,
            audits=audits,
            output=output,
            progress=progress,
        )
    if as_json:
        print_json(
            {
                "output": str(output),
                "did_nothing": report.did_nothing,
                "figures": report.figures,
            }
        )
        return
    if quiet:
        return
    if report.did_nothing:
        click.echo(f"Nothing has changed: {output} is up to date, nothing was done.")
    print_built(output, report.figures)
    print_note_if_simulated(judgments)
    click.echo(f"Next: ssra-engine run --input {corpus[0]} --engines {output} --output out")
