"""Simulated queries: what a searcher asks for, and the words that ask for it."""

from __future__ import annotations

from random import Random

from ssra_engine.simulation.lexicon import FACETS, IMPORTANT, LANGUAGES, NON_CRITICAL, VALUES
from ssra_engine.simulation.videos import pick, weighted

__all__ = ["Asked", "ask", "ask_amiss", "write_query"]

#: What a query asks for: (facet, position in ``VALUES[facet]``), in the order of `FACETS`.
Asked = tuple[tuple[str, int], ...]

#: Facets that are asked together, and how often.
_SHAPES: tuple[tuple[float, tuple[str, ...]], ...] = (
    (0.12, ("entity",)),
    (0.30, ("entity", "aspect")),
    (0.14, ("entity", "intent")),
    (0.14, ("entity", "aspect", "intent")),
    (0.05, ("entity", "episode")),
    (0.04, ("entity", "episode", "aspect")),
    (0.08, ("series", "aspect")),
    (0.06, ("series", "intent")),
    (0.03, ("series", "episode", "aspect")),
    (0.04, ("series", "entity", "aspect")),
)
#: How often a query also asks for something non-critical, and for a second such thing.
_WITH_DETAIL = (0.4, 0.1)
#: How often the words of a query are in another order, have a filler, or (Chinese) no spaces.
_REORDERED = 0.12
_FILLED = 0.12
_GLUED = 0.15
_WRAPPED = {
    "zh": ("{} 视频", "想看 {}", "{} 推荐", "求 {}", "最新 {}", "{} 怎么样"),
    "en": ("{} video", "watch {}", "best {}", "{} clip", "show me {}", "latest {}"),
}


def _asked(chosen: dict[str, int]) -> Asked:
    return tuple((facet, chosen[facet]) for facet in FACETS if facet in chosen)


def ask(own: dict[str, int], rng: Random, detail: float = _WITH_DETAIL[0]) -> Asked:
    """Ask for facets that a video has (`own`: value positions by facet)."""
    chosen = {facet: own[facet] for facet in _shape(own, rng)}
    details = [facet for facet in NON_CRITICAL if facet in own]
    for probability in (detail, _WITH_DETAIL[1]):
        if details and len(chosen) > 1 and rng.random() < probability:
            facet = details.pop(int(rng.random() * len(details)))
            chosen[facet] = own[facet]
    return _asked(chosen)


def _shape(own: dict[str, int], rng: Random) -> tuple[str, ...]:
    while True:
        shape = weighted(rng, _SHAPES)
        if all(facet in own for facet in shape):
            return shape


def ask_amiss(own: dict[str, int], grade: int, rng: Random) -> Asked:
    """Ask for facets of which a video misses what makes it the given grade, 0, 1 or 2."""
    while True:
        chosen = dict(ask(own, rng, detail=0.2))
        if grade == 2:
            chosen = _miss_detail(own, chosen, rng)
        elif grade == 1:
            chosen = _miss_important(chosen, rng)
        else:
            chosen = _miss_key(chosen, rng)
        if chosen:
            return _asked(chosen)


def _miss_detail(own: dict[str, int], chosen: dict[str, int], rng: Random) -> dict[str, int]:
    if len(chosen) < 2:
        return {}
    facet = pick(rng, NON_CRITICAL)
    return chosen | {facet: _another(facet, own.get(facet, -1), rng)}


def _miss_important(chosen: dict[str, int], rng: Random) -> dict[str, int]:
    asked = [facet for facet in IMPORTANT if facet in chosen]
    if not asked:
        return {}
    facet = pick(rng, asked)
    return chosen | {facet: _another(facet, chosen[facet], rng)}


def _miss_key(chosen: dict[str, int], rng: Random) -> dict[str, int]:
    """Another key of the same kind, half of the time an entity of the same series."""
    if "entity" not in chosen:
        return chosen | {"series": _another("series", chosen["series"], rng)}
    own = VALUES["entity"][chosen["entity"]]
    if rng.random() < 0.5:
        others = [
            i
            for i, value in enumerate(VALUES["entity"])
            if value.parent == own.parent and value is not own
        ]
        entity = pick(rng, others)
    else:
        entity = _another("entity", chosen["entity"], rng)
    changed = chosen | {"entity": entity}
    if "series" in changed:
        changed["series"] = VALUES["entity"][entity].parent
    return changed


def _another(facet: str, own: int, rng: Random) -> int:
    """Another value of the facet, of the same kind."""
    values = VALUES[facet]
    kind = values[own].kind if own >= 0 else None
    while True:
        other = int(rng.random() * len(values))
        if other != own and values[other].kind == kind:
            return other


def write_query(asked: Asked, language: int, rng: Random) -> str:
    """Words that ask for the given facets, in ``LANGUAGES[language]``."""
    name = LANGUAGES[language]
    words = []
    for facet, value in asked:
        forms = VALUES[facet][value].forms[name]
        form = forms[0] if len(forms) == 1 or rng.random() < 0.8 else pick(rng, forms[1:])
        words.append(f"in {form}" if facet == "place" and name == "en" else form)
    if rng.random() < _REORDERED:
        place = int(rng.random() * len(words))
        words = words[place:] + words[:place]
    text = " ".join(words)
    if rng.random() < _FILLED:
        text = pick(rng, _WRAPPED[name]).format(text)
    return text.replace(" ", "") if name == "zh" and rng.random() < _GLUED else text
