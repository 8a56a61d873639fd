"""`ssra-engine simulate`."""

from __future__ import annotations

from pathlib import Path

import click

from ssra_engine.commands.options import json_option

__all__ = ["simulate"]


@click.command(short_help="Make a simulated world: corpus, judgments, pairs.")
@click.option("--documents", type=click.IntRange(min=1), default=2000, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--judgments", type=click.IntRange(min=0), help="Judged pairs. [default: 1.8 per document]"
)
@click.option(
    "--pairs", type=click.IntRange(min=0), help="Pairs of the click log. [default: 3 per document]"
)
@json_option
@click.option(
    "--output", required=True, type=click.Path(path_type=Path), help="Folder for the three files."
)
def simulate(
    documents: int, seed: int, judgments: int | None, pairs: int | None, output: Path, as_json: bool
) -> None:
    """Write corpus.arrow, judgments.arrow and pairs.arrow of a simulated world of short videos.

    The true grade of a query can be known there, which `evaluate samples` makes use of. The same
    numbers make the same world.

    \b
    Example:
      ssra-engine simulate --documents 2000 --seed 0 --output world
    """
    from ssra_engine.commands.printing import print_facts, print_json
    from ssra_engine.simulate import describe, write
    from ssra_engine.simulate import simulate as make

    world = make(documents, seed, judgments=judgments, pairs=pairs)
    write(world, output)
    facts = describe(world)
    files = [str(output / f"{name}.arrow") for name in vars(world)]
    if as_json:
        print_json({**facts, "files": files})
        return
    del facts["simulated"]
    print_facts("A simulated world: it stands for no real search engine.", facts)
    click.echo(f"Written: {', '.join(files)}")
    click.echo(
        f"Next: ssra-engine build --corpus {files[0]} --judgments {files[1]} "
        f"--pairs {files[2]} --preset tiny"
    )
