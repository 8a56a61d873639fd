"""How people grade a pair of query and document, for the docs and for a published dataset."""

from __future__ import annotations

from collections.abc import Sequence

from ssra_engine.prompts import grade_meanings

__all__ = ["grade_table", "guideline"]

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


def guideline(grades: Sequence[int]) -> str:
    """GUIDELINE.md: how people grade on this scale."""
    rows = grade_table(grades).split("\n", 2)[2]
    return _GUIDELINE.format(grades=rows, lowest=grades[0], highest=grades[-1])


def grade_table(grades: Sequence[int]) -> str:
    """What each grade means, as a Markdown table, highest first."""
    pairs = zip(grades, grade_meanings(len(grades)), strict=True)
    rows = [f"| {grade} | {meaning} |" for grade, meaning in pairs]
    return "\n".join(["| grade | meaning |", "| --- | --- |", *reversed(rows)])
