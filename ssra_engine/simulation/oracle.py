"""The oracle: what a query asks for, and the grade that follows from a document's facets.

The definitions are those of the method (arXiv 2509.16717), made exact for facets. A query has a
*key*: the entity it names or, if it names none, the series. Of the other facets, aspect, intent and
episode are *important*; style, place and time are *non-critical*. A document satisfies an asked
facet when its own value is the same; a document without a value does not.

===== ============================================================================================
grade when
===== ============================================================================================
3     precisely and completely: the document satisfies every asked facet
2     most of it, something non-critical is missing: key and all important facets asked for are
      satisfied, and the non-critical ones that are not are fewer than half of the asked facets
1     partly, the key is related: the key is satisfied, and neither of the above holds
0     the key is not satisfied
===== ============================================================================================

So a query of key and aspect alone is grade 3 where both agree, and a query of key and style alone
is grade 1 where the style does not: one of two is not most of it.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ssra_engine.errors import DataError
from ssra_engine.simulation.lexicon import FACETS, FILLERS, IMPORTANT, VALUES, Value

__all__ = ["grade_facets", "oracle_grade", "parse_query"]

_CJK = "\u3400-\u9fff"
_POSSESSIVE = re.compile(r"['’]s\b")
_SEPARATORS = re.compile(r"[\W_]+")
_SPACE_BESIDE_CJK = re.compile(rf"(?<=[{_CJK}]) | (?=[{_CJK}])")

#: More mentions of one word than this are babble.
_MOST_REPEATS = 2


def _normalise(query: str) -> str:
    text = _POSSESSIVE.sub("", unicodedata.normalize("NFKC", query).lower())
    return _SPACE_BESIDE_CJK.sub("", _SEPARATORS.sub(" ", text).strip())


def _forms() -> dict[str, list[tuple[str, str, Value | None]]]:
    """(form, facet, value) by first character, longest form first; fillers have no value."""
    found: dict[str, tuple[str, Value | None]] = {}
    for words in FILLERS.values():
        found.update({_normalise(word): ("filler", None) for word in words.split(",")})
    for facet, values in VALUES.items():
        for value in values:
            for forms in value.forms.values():
                found.update({_normalise(form): (facet, value) for form in forms})
    index: dict[str, list[tuple[str, str, Value | None]]] = {}
    for form in sorted(found, key=len, reverse=True):
        index.setdefault(form[0], []).append((form, *found[form]))
    return index


_FORMS = _forms()


def _latin(character: str) -> bool:
    return character.isascii() and character.isalnum()


def _is_whole(text: str, start: int, end: int) -> bool:
    """Whether text[start:end] does not cut a Latin word or a number in two."""
    head = start > 0 and _latin(text[start - 1]) and _latin(text[start])
    tail = end < len(text) and _latin(text[end]) and _latin(text[end - 1])
    return not head and not tail


def _words(text: str) -> list[tuple[str, str, Value | None]] | None:
    """Cut a normalised query into known words, longest first; None where a word is unknown."""
    words = []
    at = 0
    while at < len(text):
        if text[at] == " ":
            at += 1
            continue
        for word in _FORMS.get(text[at], ()):
            end = at + len(word[0])
            if text.startswith(word[0], at) and _is_whole(text, at, end):
                words.append(word)
                at = end
                break
        else:
            return None
    return words


def parse_query(query: str) -> dict[str, str] | None:
    """What a query asks for: canonical value names by facet.

    Order, case, white space, punctuation and filler words do not matter, and the two languages may
    be mixed.

    Returns:
        None when the query cannot be understood: it has an unknown word, names neither an entity
        nor a series, asks for two values of one facet, repeats itself, or asks for what cannot
        exist (an entity of another series, an aspect or an episode that no such entity has).
    """
    words = _words(_normalise(query))
    if not words or max(Counter(word[0] for word in words).values()) > _MOST_REPEATS:
        return None
    asked: dict[str, Value] = {}
    for _, facet, value in words:
        if value is not None and asked.setdefault(facet, value) is not value:
            return None
    key = asked.get("entity") or asked.get("series")
    if key is None:
        return None
    if "entity" in asked and asked.get("series") not in (None, VALUES["series"][key.parent]):
        return None
    if any(value.kind not in (None, key.kind) for value in asked.values()):
        return None
    return {facet: asked[facet].name for facet in FACETS if facet in asked}


def grade_facets(asked: Mapping[str, str], facets: Mapping[str, str | None]) -> int:
    """Grade of a document with `facets` for a query that asks for `asked`; see the module's table.

    Args:
        asked: canonical value names by facet, with a series or an entity.
        facets: the document's canonical value names; None or absent where it has no such facet.
    """
    missed = {facet for facet, name in asked.items() if facets.get(facet) != name}
    if "entity" in missed or "series" in missed:
        return 0
    if not missed:
        return 3
    if missed.isdisjoint(IMPORTANT) and 2 * len(missed) < len(asked):
        return 2
    return 1


def oracle_grade(query: str, document: Mapping[str, Any]) -> int | None:
    """The true grade of a query for a document of a simulated corpus.

    Args:
        query: any text.
        document: a row of the simulated corpus as a mapping; only its `facets` are read.

    Returns:
        0 to 3, or None when the query cannot be parsed, which counts as wrong.

    Raises:
        DataError: the document has no facets, so it is not of a simulated corpus.
    """
    facets = document.get("facets")
    if not isinstance(facets, Mapping):
        raise DataError(
            "only a simulated document can be graded by the oracle, this one carries no facets",
            column="facets",
            mend="Pass a row of a corpus written by `ssra-engine simulate`",
        )
    asked = parse_query(query)
    return None if asked is None else grade_facets(asked, facets)
