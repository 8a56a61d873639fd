"""`ssra-engine candidates`."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["candidates"]


@click.command(short_help="Pairs to annotate where there is no click log, by BM25.")
@click.option("--corpus", multiple=True, required=True, help="Documents; repeats.")
@click.option(
    "--queries",
    multiple=True,
    required=True,
    help="Tables with a column query, such as judgments; repeats.",
)
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Documents of each query.",
)
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("pairs.arrow"), show_default=True
)
def candidates(corpus: tuple[str, ...], queries: tuple[str, ...], top: int, output: Path) -> None:
    """Let known queries retrieve documents, and write the pairs for `build --pairs`.

    Chinese and Japanese text is searched by pairs of neighbouring characters.

    \b
    Example:
      ssra-engine candidates --corpus world/corpus.arrow --queries world/judgments.arrow \\
          --output candidates.arrow
    """
    from ssra_engine.candidates import find_candidates
    from ssra_engine.commands.printing import print_facts, print_note_if_simulated

    facts = find_candidates(corpus, queries, output, top)
    print_facts(f"Pairs in {output}", facts)
    print_note_if_simulated(corpus)
    click.echo(f"Next: give --pairs {output} to build.")
