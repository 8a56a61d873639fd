"""What a published dataset says of itself: its card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from ssra_engine import __version__
from ssra_engine.export.guideline import grade_table
from ssra_engine.export.rows import Export
from ssra_engine.readers import find_sources, schema_metadata
from ssra_engine.simulate import SIMULATED

__all__ = ["Counts", "card"]

#: Rows of each split by grade.
Counts = dict[str, dict[int, int]]

_TEXT = """
# Graded synthetic queries

Queries written by a language model for documents, each for a target grade of relevance, and kept
only where a score model predicts that grade{how}.
Made by ssra-engine {version} (the method is SSRA, arXiv 2509.16717).

{simulated}## Grades

{grades}

## Columns

| column | meaning |
| --- | --- |
| `query_id` | one for queries that say the same |
| `query` | the query |
| `doc_id` | the document it was written for |
| `document` | its text |
| `grade` | the target grade, which the score model predicts too |
| `confidence` | the score model's probability of that grade |

{counts}{agreement}## What to know before use

- {graded}
- A query is in one split only; a document may be in several.
- Of a query, only the document that it was written for has a grade. Other documents may be relevant
  to it too.
- The documents' licence and any personal data in them are yours to check before publishing.

## Where it comes from

| what | fingerprint |
| --- | --- |
| documents | `{documents}` |
| models | `{engines}` |
| seed of the run | `{seed}` |
| seed of the splits | `{split_seed}` |
"""

_UNGRADED = """No person graded these pairs. How often the grade is right depends on the models that
  made it: judge a sample before you rely on it (`ssra-engine audit`)."""

_SAMPLED = """The grades are those of models. A sample was labelled ("Agreement"); the other pairs
  were not looked at."""

_AGREEMENT = """## Agreement

{labelled:,} scored pairs of the run that made this, kept here or rejected, were drawn at random for
each grade{surest} and labelled blindly. {no_grade:,} of these queries got no grade and count as
wrong. Intervals are Wilson's, of 95 %.

| written for | label is that grade, kept pairs | label is that grade, rejected pairs | label is \
the score model's grade |
| --- | --- | --- | --- |
{rows}

"""


def card(export: Export, counts: Counts | None, configs: Mapping[str, Mapping[str, str]]) -> str:
    """README.md of a dataset, with the header by which the Hugging Face hub and `datasets` read it.

    Args:
        export: what is exported.
        counts: rows of each split by grade, where they are to be told.
        configs: file of each split, by configuration; the first is the default one.
    """
    grades = export.outputs.config.grades
    header = {
        "pretty_name": "Graded synthetic queries",
        "task_categories": ["text-retrieval", "sentence-similarity"],
        "tags": ["synthetic", "relevance", "ssra"],
        "configs": [
            {
                "config_name": name,
                "data_files": [{"split": split, "path": path} for split, path in files.items()],
            }
            for name, files in configs.items()
        ],
    }
    comparator = export.outputs.config.filter.comparator
    simulated = any(SIMULATED in schema_metadata(one) for one in find_sources(export.inputs))
    body = _TEXT.format(
        how=""
        if comparator == "none"
        else ", and the queries of a document are in the right order",
        version=__version__,
        simulated="**The documents are simulated.**\n\n" if simulated else "",
        grades=grade_table(grades),
        counts="" if counts is None else _count_table(counts, grades),
        agreement="" if export.audit is None else _agreement(export.audit),
        graded=_UNGRADED if export.audit is None else _SAMPLED,
        documents=export.outputs.fingerprint,
        engines=export.outputs.engines,
        seed=export.outputs.config.seed,
        split_seed=export.seed,
    )
    top = yaml.safe_dump(header, sort_keys=False, allow_unicode=True)
    return f"---\n{top}---\n{body}"


def _agreement(found: Mapping[str, Any]) -> str:
    """Agreement of an audit; annotators are numbered, since a card is published."""
    rows = [
        f"| {row['target']} | "
        + " | ".join(_share(row[name]) for name in ("kept", "rejected", "predicted"))
        + " |"
        for row in found["targets"]
    ]
    surest = "" if found["surest"] == 1 else f", from the surest {found['surest']:.0%} of it,"
    text = _AGREEMENT.format(
        labelled=found["labelled"], no_grade=found["no_grade"], surest=surest, rows="\n".join(rows)
    )
    if not found["kappa"]:
        return text
    numbers = {name: number for number, name in enumerate(found["annotators"], 1)}
    lines = [
        "| annotators | both labelled | agree | Cohen's kappa | quadratic |",
        "| --- " * 5 + "|",
    ]
    for row in found["kappa"]:
        first, second = (numbers[name] for name in row["annotators"])
        cells = [_told(row["agree"], ".0%"), *(_told(row[n], ".2f") for n in ("kappa", "weighted"))]
        lines.append(f"| {first} and {second} | {row['pairs']:,} | {' | '.join(cells)} |")
    return text + "\n".join(lines) + "\n\n"


def _share(one: Mapping[str, Any]) -> str:
    if not one["of"]:
        return "-"
    interval = f"[{one['low']:.0%}, {one['high']:.0%}]"
    return f"{one['right'] / one['of']:.0%} {interval}, {one['right']:,} of {one['of']:,}"


def _told(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _count_table(counts: Counts, grades: Sequence[int]) -> str:
    head = " | ".join(["split", *(f"grade {grade}" for grade in grades), "all"])
    lines = [f"| {head} |", "| --- " * (len(grades) + 2) + "|"]
    for split, of in counts.items():
        cells = [*(of.get(grade, 0) for grade in grades), sum(of.values())]
        lines.append(f"| {split} | " + " | ".join(f"{cell:,}" for cell in cells) + " |")
    return "## Size\n\n" + "\n".join(lines) + "\n\n"
