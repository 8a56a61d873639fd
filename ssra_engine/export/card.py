"""What a published dataset says of itself: its card, and the guideline of its grades."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import yaml

from ssra_engine import __version__
from ssra_engine.export.rows import Export
from ssra_engine.prompts import grade_meanings
from ssra_engine.readers import find_sources, schema_metadata
from ssra_engine.simulate import SIMULATED

__all__ = ["Counts", "card", "guideline"]

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

{counts}## What to know before use

- No person graded these pairs. How often the grade is right depends on the models that made it:
  judge a sample before you rely on it (`ssra-engine audit`).
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

_GUIDELINE = """# How to grade a pair of query and document

Say what the searcher wants, then look at the document: title, text and whatever else it shows.
Grade what is there, not how well it is made, how new it is or whether you like it.

| grade | the document |
| --- | --- |
{grades}

In order:

1. Which entity, kind of thing and aspect does the query ask for? A query that cannot be understood
   gets no grade.
2. Is the main entity or concept there? If neither it nor anything close to it is, the grade is
   {lowest}.
3. Is everything else that was asked for there too? If so, the grade is {highest}.
4. Between them, the higher grade is for what a searcher would still be content with.
5. In doubt between two grades take the lower one.

Two people grade each pair without seeing the other's grade or what a model says. Where they
disagree a third decides, and the disagreement is kept.
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
        how="" if comparator == "none" else ", and queries of a document are in the right order",
        version=__version__,
        simulated="**The documents are simulated.**\n\n" if simulated else "",
        grades=_grade_table(grades),
        counts="" if counts is None else _count_table(counts, grades),
        documents=export.outputs.fingerprint,
        engines=export.outputs.engines,
        seed=export.outputs.config.seed,
        split_seed=export.seed,
    )
    top = yaml.safe_dump(header, sort_keys=False, allow_unicode=True)
    return f"---\n{top}---\n{body}"


def guideline(grades: Sequence[int]) -> str:
    """GUIDELINE.md: how people grade on this scale."""
    rows = _grade_table(grades).split("\n", 2)[2]
    return _GUIDELINE.format(grades=rows, lowest=grades[0], highest=grades[-1])


def _grade_table(grades: Sequence[int]) -> str:
    pairs = zip(grades, grade_meanings(len(grades)), strict=True)
    rows = [f"| {grade} | {meaning} |" for grade, meaning in pairs]
    return "\n".join(["| grade | meaning |", "| --- | --- |", *reversed(rows)])


def _count_table(counts: Counts, grades: Sequence[int]) -> str:
    head = " | ".join(["split", *(f"grade {grade}" for grade in grades), "all"])
    lines = [f"| {head} |", "| --- " * (len(grades) + 2) + "|"]
    for split, of in counts.items():
        cells = [*(of.get(grade, 0) for grade in grades), sum(of.values())]
        lines.append(f"| {split} | " + " | ".join(f"{cell:,}" for cell in cells) + " |")
    return "## Size\n\n" + "\n".join(lines) + "\n\n"
