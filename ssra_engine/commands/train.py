"""`ssra-engine train`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from ssra_engine.commands.options import GRADES, NUMBERS, seed_option

__all__ = ["train"]


class _Recipe(click.ParamType["dict[int, float]"]):
    """Shares of labels as typed: `0:1,1:1,2:1,3:2`."""

    name = "label:share,.."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> dict[int, float]:
        if isinstance(value, dict):
            return value
        try:
            pairs = [part.split(":") for part in str(value).split(",")]
            return {int(label): float(share) for label, share in pairs}
        except ValueError:
            self.fail(f"{value!r} is not a list of shares such as 0:1,1:1,3:2", param, ctx)


_POSITIVE = click.FloatRange(min=0, min_open=True)
_COUNT = click.IntRange(min=1)


def _data_options(command: Callable[..., None]) -> Callable[..., None]:
    path = click.Path(path_type=Path)
    options = (
        click.option("--corpus", multiple=True, required=True, help="Documents; repeats."),
        click.option("--judgments", multiple=True, required=True, help="Graded pairs; repeats."),
        click.option("--synthetic", type=path, help="Samples that `run` or `accept` wrote."),
        click.option("--negatives", multiple=True, help="Tables that `mine` wrote; repeats."),
        click.option(
            "--negatives-per-pair", type=_COUNT, help="Of those, the most similar. [default: 1]"
        ),
        click.option(
            "--judged-negatives",
            type=click.IntRange(min=0),
            help="Documents judged lower for a pair's query, as its negatives. [default: 0]",
        ),
        click.option(
            "--queue",
            type=click.IntRange(min=0),
            help="Recent documents to mine negatives from; the paper: 65,536. [default: 0]",
        ),
        click.option(
            "--base",
            type=path,
            required=True,
            help="Folder of an embedding model, an encoder or a causal language model.",
        ),
        click.option("--output", type=path, required=True, help="Folder that gets the model."),
        click.option(
            "--grades", type=GRADES, default=(0, 1, 2, 3), help="The scale. [default: 0,1,2,3]"
        ),
    )
    return _with_options(command, options)


def _model_options(command: Callable[..., None]) -> Callable[..., None]:
    options = (
        click.option(
            "--pooling",
            type=click.Choice(["mean", "cls", "lasttoken"]),
            help="Of a folder without one. [default: lasttoken of a causal LM, else mean]",
        ),
        click.option("--query-prompt", help="Before each query. [default: the model's own]"),
        click.option("--document-prompt", help="Before each document. [default: the model's own]"),
        click.option(
            "--max-tokens",
            type=_COUNT,
            help="Of a text. [default: the model's own; 512 of a folder without pooling]",
        ),
        click.option("--lora", type=click.IntRange(min=0), help="Rank; 0 trains all. [default: 0]"),
        click.option("--lora-alpha", type=_POSITIVE, help="[default: twice the rank]"),
        click.option(
            "--lora-dropout", type=click.FloatRange(0, 1, max_open=True), help="[default: 0.1]"
        ),
    )
    return _with_options(command, options)


def _loss_options(command: Callable[..., None]) -> Callable[..., None]:
    options = (
        click.option("--dims", type=NUMBERS, help="Matryoshka dims. [default: the whole vector]"),
        click.option(
            "--self-contrast/--no-self-contrast",
            default=None,
            help="Hold queries against queries and documents against documents too. [default: yes]",
        ),
        click.option(
            "--margin",
            type=float,
            help="Leave out a negative more similar than the positive by this. [default: 0.1]",
        ),
        click.option("--no-margin", is_flag=True, help="Leave out no negative."),
        click.option("--temperature", type=_POSITIVE, help="At the start. [default: 0.03]"),
        click.option("--fixed-temperature", is_flag=True, help="Do not learn it."),
        click.option(
            "--cosent", type=click.FloatRange(min=0), help="Weight of a CoSENT term. [default: 0]"
        ),
        click.option(
            "--cached", type=_COUNT, help="Texts embedded at a time, for batches beyond memory."
        ),
        click.option("--binary-labels", is_flag=True, help="Grades become 1 and 0."),
        click.option(
            "--relevant",
            type=_COUNT,
            help="Lowest grade that becomes 1. [default: upper half of the scale]",
        ),
        click.option(
            "--recipe",
            type=_Recipe(),
            help="Share of each label in a batch. [default: as they are]",
        ),
    )
    return _with_options(command, options)


def _trainer_options(command: Callable[..., None]) -> Callable[..., None]:
    options = (
        click.option("--epochs", type=_POSITIVE, help="[default: 1]"),
        click.option("--rate", type=_POSITIVE, help="Highest learning rate. [default: 2e-5]"),
        click.option(
            "--warmup",
            type=click.FloatRange(min=0),
            help="Share of the steps, or from 1 on their number. [default: 0.05]",
        ),
        click.option("--weight-decay", type=click.FloatRange(min=0), help="[default: 0.001]"),
        click.option("--batch-size", type=_COUNT, help="Pairs in a batch. [default: 64]"),
        click.option("--bf16", is_flag=True, help="Compute in bfloat16."),
        click.option("--gradient-checkpointing", is_flag=True, help="Less memory, more time."),
        click.option(
            "--report-to",
            multiple=True,
            help="tensorboard (to OUTPUT/runs), wandb or another that transformers knows; repeats.",
        ),
        click.option("--log-steps", type=_COUNT, help="Of the loss curve. [default: 10]"),
        click.option("--checkpoint-steps", type=_COUNT, help="[default: 100]"),
        seed_option,
    )
    return _with_options(command, options)


def _with_options(
    command: Callable[..., None], options: tuple[Callable[..., Any], ...]
) -> Callable[..., None]:
    for option in reversed(options):
        command = option(command)
    return command


#: Option and the setting that it is, where they differ in name.
_SETTINGS = {
    "negatives_per_pair": "negatives",
    "lora": "lora_rank",
    "margin": "false_negative_margin",
    "cosent": "cosent_weight",
    "cached": "mini_batch_rows",
    "batch_size": "batch_rows",
}


@click.command(short_help="Train an embedding model on graded pairs.")
@_data_options
@_model_options
@_loss_options
@_trainer_options
def train(
    corpus: tuple[str, ...],
    judgments: tuple[str, ...],
    synthetic: Path | None,
    negatives: tuple[str, ...],
    base: Path,
    output: Path,
    grades: tuple[int, ...],
    no_margin: bool,
    fixed_temperature: bool,
    **options: Any,
) -> None:
    """Train an embedding model on judgments, synthetic queries and hard negatives.

    Only judgments of the split train are learned from; the model and its base are measured on dev.
    The output is a sentence-transformers folder. The same command after an interruption goes on
    from the last checkpoint; when all is done, it does nothing. Under torchrun, the batch is that
    of each process, and one of them writes.

    \b
    Example:
      ssra-engine train --corpus world/corpus.arrow --judgments world/judgments.arrow \\
          --synthetic out --base all-MiniLM-L6-v2 --output my-embedder
    """
    from ssra_engine.commands.printing import print_facts, print_note_if_simulated
    from ssra_engine.embedder.processes import started
    from ssra_engine.embedder.settings import TrainSettings
    from ssra_engine.embedder.train import TrainData, train_embedder
    from ssra_engine.progress import ProgressBar

    if no_margin and options["margin"] is not None:
        raise click.UsageError("Give --margin or --no-margin, not both.")
    told = {_SETTINGS.get(name, name): value for name, value in options.items()}
    told = {name: value for name, value in told.items() if value is not None}
    told["learn_temperature"] = not fixed_temperature
    if no_margin:
        told["false_negative_margin"] = None
    settings = TrainSettings(**told)
    data = TrainData(corpus, judgments, grades, synthetic, negatives)
    first = started().first
    with ProgressBar(quiet=not first) as progress:
        trained = train_embedder(base, data, output, settings, progress)
    if not first:
        return
    if trained.did_nothing:
        click.echo(f"Nothing has changed: {output} is up to date, nothing was done.")
    _print_results(trained.record["results"])
    print_facts(f"Model in {output}", {"data": trained.record["data"]})
    print_note_if_simulated(judgments)


def _print_results(results: Mapping[str, Any]) -> None:
    from rich.table import Table

    from ssra_engine.commands.printing import print_table

    title = f"{results['queries']:,} queries of the split {results['split']}, x 100"
    table = Table(title=title, title_justify="left")
    for name in ("figure", "base", "trained"):
        table.add_column(name, justify="left" if name == "figure" else "right")
    for name, value in results["trained"].items():
        before = results["base"].get(name)
        table.add_row(name, "-" if before is None else f"{100 * before:.2f}", f"{100 * value:.2f}")
    print_table(table)
