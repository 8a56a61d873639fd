"""`ssra-engine export`."""

from __future__ import annotations

from pathlib import Path

import click

from ssra_engine.commands.options import seed_option

__all__ = ["export"]

_FORMATS = ("triplets", "pairs", "beir", "mteb", "hf", "dataset")


@click.command(short_help="Kept queries in the layouts of other tools.")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--format", "layout", type=click.Choice(_FORMATS), required=True)
@click.option("--output", type=click.Path(path_type=Path), required=True, help="A new folder.")
@click.option(
    "--corpus", multiple=True, help="Documents of the run. [default: the files it recorded]"
)
@click.option(
    "--audit",
    type=click.Path(path_type=Path),
    help="Labelled file or folder of `audit`, for the card of dataset. [default: audit or "
    "audit.csv, where it is of OUT]",
)
@click.option(
    "--dev", type=float, default=0.1, show_default=True, help="Share of queries in the split dev."
)
@click.option(
    "--test", type=float, default=0.1, show_default=True, help="Share of queries in test."
)
@seed_option
def export(
    out: Path,
    layout: str,
    output: Path,
    corpus: tuple[str, ...],
    audit: Path | None,
    dev: float,
    test: float,
    seed: int | None,
) -> None:
    """Write the kept queries of OUT, what `ssra-engine run` wrote, for another tool.

    \b
    triplets  anchor (a document), positive and negative: its queries, the positive graded higher
    pairs     sentence1, sentence2, score from 0 to 1
    beir      corpus.jsonl, queries.jsonl, qrels/<split>.tsv
    mteb      configurations corpus, queries and default, as MTEB's retrieval tasks read them
    hf        queries with documents and grades, for datasets.load_dataset
    dataset   the same in train, dev and test, with the corpus, a grading guideline and a card,
              which tells the agreement of an audit where there is one

    A query is in one split only. beir, mteb and dataset have splits.

    \b
    Example:
      ssra-engine export out --format dataset --output graded-queries
    """
    from ssra_engine.export.write import export_run

    names = export_run(
        out, layout, output, corpus=corpus, audit=audit, dev=dev, test=test, seed=seed or 0
    )
    for name in names:
        click.echo(output / name)
