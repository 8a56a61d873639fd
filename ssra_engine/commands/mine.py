"""`ssra-engine mine`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ssra_engine.commands.options import GRADES, config_option, seed_option

if TYPE_CHECKING:
    from ssra_engine.roles import Roles

__all__ = ["mine"]

#: Option and the setting it is.
_SETTINGS = {
    "negatives": "num_negatives",
    "sampling": "sampling_strategy",
    "range_min": "range_min",
    "range_max": "range_max",
    "min_score": "min_score",
    "max_score": "max_score",
    "absolute_margin": "absolute_margin",
    "relative_margin": "relative_margin",
    "simans_a": "simans_a",
    "simans_b": "simans_b",
}

_COUNT, _RANK = click.IntRange(min=1), click.IntRange(min=0)


def _data_options(command: Callable[..., None]) -> Callable[..., None]:
    path = click.Path(path_type=Path)
    options = (
        click.option("--corpus", multiple=True, required=True, help="Documents; repeats."),
        click.option("--judgments", multiple=True, required=True, help="Graded pairs; repeats."),
        click.option("--synthetic", type=path, help="Samples that `run` or `accept` wrote."),
        click.option("--split", default="train", show_default=True, help="Its name, or all."),
        click.option("--model", type=path, required=True, help="A sentence-transformers folder."),
        click.option("--engines", type=path, help="Whose score model grades what is mined."),
        click.option(
            "--grades", type=GRADES, help="The scale, without --engines. [default: 0,1,2,3]"
        ),
        click.option("--query-prompt", help="Before each query. [default: the model's own]"),
        click.option("--document-prompt", help="Before each document. [default: the model's own]"),
    )
    return _with_options(command, options)


def _choice_options(command: Callable[..., None]) -> Callable[..., None]:
    options = (
        click.option(
            "--negatives", type=_COUNT, default=3, show_default=True, help="Of each pair."
        ),
        click.option(
            "--sampling",
            type=click.Choice(["top", "random", "simans"]),
            default="top",
            show_default=True,
            help="The best candidates, any, or those scored about as high as the positive.",
        ),
        click.option("--range-min", type=_RANK, default=0, help="Leave out so many of the best."),
        click.option("--range-max", type=_COUNT, help="Look no further than this rank."),
        click.option("--min-score", type=float, help="No candidate below."),
        click.option("--max-score", type=float, help="No candidate above."),
        click.option("--absolute-margin", type=float, help="None above the positive's less this."),
        click.option(
            "--relative-margin", type=float, help="None above the positive's less this share of it."
        ),
        click.option("--simans-a", type=float, default=50.0, show_default=True, help="Sharpness."),
        click.option("--simans-b", type=float, default=0.0, show_default=True, help="Shift."),
    )
    return _with_options(command, options)


def _with_options(
    command: Callable[..., None], options: tuple[Callable[..., Any], ...]
) -> Callable[..., None]:
    for option in reversed(options):
        command = option(command)
    return command


@click.command(short_help="Hard negatives of every pair, to train an embedder with.")
@_data_options
@_choice_options
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True)
@click.option("--cache", type=click.Path(path_type=Path), help="Keep the model's vectors here.")
@config_option
@seed_option
@click.option(
    "--relevant",
    type=click.Path(path_type=Path),
    help="File for what was mined and is relevant by the score model; judgments to train on.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("negatives.parquet"),
    show_default=True,
    help="Parquet or Arrow, by its suffix.",
)
def mine(
    engines: Path | None,
    grades: tuple[int, ...] | None,
    config: Path | None,
    seed: int | None,
    output: Path,
    **options: Any,
) -> None:
    """Mine the corpus for documents that a model takes for relevant, and that are not.

    Every pair of grade 1 or higher gets the documents nearest to its query that are not known to be
    of its grade or higher. With --engines, the score model grades each before it is chosen; one
    that it calls as relevant as the positive gives way to the next, and goes to --relevant. Without
    one, a margin below the positive's score keeps most of these out; NV-Retriever (arXiv
    2407.15831) takes 5 % (--relative-margin 0.05).

    Run again with nothing changed, it does nothing.

    \b
    Example:
      ssra-engine mine --corpus world/corpus.arrow --judgments world/judgments.arrow \\
          --model my-embedder --engines engines --output negatives.parquet
    """
    from ssra_engine.commands.printing import print_facts, print_note_if_simulated
    from ssra_engine.hard_negatives import MineTask, mine_to_file
    from ssra_engine.negatives.settings import Settings
    from ssra_engine.progress import ProgressBar

    if engines is not None and grades is not None:
        raise click.UsageError("The scale is that of the engines. Leave out --grades.")
    scale, roles = (grades or (0, 1, 2, 3), None) if engines is None else _open(engines, config)
    settings = Settings(**{name: options.pop(option) for option, name in _SETTINGS.items()})
    task = MineTask(settings=settings, grades=scale, output=output, seed=seed or 0, **options)
    with ProgressBar() as progress:
        report = mine_to_file(task, roles, progress)
    if report.did_nothing:
        click.echo(f"Nothing has changed: {output} is up to date, nothing was done.")
    print_facts(f"Hard negatives in {output}", report.figures)
    if task.relevant is not None:
        click.echo(f"Pairs that are relevant by the score model are in {task.relevant}")
    print_note_if_simulated(task.judgments)


def _open(folder: Path, config: Path | None) -> tuple[tuple[int, ...], Roles]:
    """The scale and the models of an engines folder."""
    from ssra_engine.config import load_config
    from ssra_engine.engine_folder import open_roles, read_engines

    built = read_engines(folder)
    of_engines = {"grades": built.grades, "model.preset": built.config.model.preset}
    return built.grades, open_roles(folder, load_config(config, of_engines))
