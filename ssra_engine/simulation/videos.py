"""Simulated videos: latent facets, and the title, text, OCR and ASR written from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

import numpy as np
import pyarrow as pa

from ssra_engine.simulation.lexicon import FACETS, KINDS, LANGUAGES, VALUES
from ssra_engine.simulation.phrases import ASR, HOOKS, JUNK, OCR_ERRORS, TAGS

__all__ = [
    "Videos",
    "document_name",
    "pick",
    "popularity",
    "sample_videos",
    "weighted",
    "write_videos",
]

_T = TypeVar("_T")

#: Share of documents in Chinese.
_CHINESE = 0.6
#: Documents per topic (entity, aspect, intent), on average.
_PER_TOPIC = 4
#: How often a kind of entity has an episode, and any document a style, a place and a time.
_PRESENT = {"episode": 0.5, "style": 0.65, "place": 0.5, "time": 0.5}
#: How often such a facet is the one that is usual in the topic.
_USUAL = 0.5
#: How often each field says a facet that the document has.
_SAID = {
    "title": {"entity": 0.9, "aspect": 0.8, "intent": 0.75, "episode": 0.7, "series": 0.25},
    "text": {"series": 0.7, "entity": 0.5, "intent": 0.3, "style": 0.5, "place": 0.5, "time": 0.4},
    "ocr": {"entity": 0.5, "aspect": 0.5, "episode": 0.4, "time": 0.3, "series": 0.2},
    "asr": {
        "entity": 0.85,
        "aspect": 0.85,
        "intent": 0.7,
        "episode": 0.6,
        "style": 0.6,
        "place": 0.65,
        "time": 0.65,
    },
}
_SAID_OTHERWISE = 0.3
#: Share of a document's facets that no field says.
_UNSAID = 0.03
#: How often a document mentions another entity, or another aspect, in passing.
_OTHER_ENTITY = 0.3
_OTHER_ASPECT = 0.25
#: How often OCR misreads a word, and ASR drops the words around a facet.
_MISREAD = 0.3
_DROPPED = 0.25


@dataclass(frozen=True)
class Videos:
    """Latent facets of n documents.

    Attributes:
        language: int8[n], position in `LANGUAGES`.
        facets: for each facet int16[n], position in ``VALUES[facet]``, -1 for none.
        mention: int16[n], another entity that the document mentions in passing, -1 for none.
    """

    language: np.ndarray
    facets: dict[str, np.ndarray]
    mention: np.ndarray

    def __len__(self) -> int:
        return len(self.language)


def document_name(row: int) -> str:
    """The doc_id of a row of the corpus."""
    return f"v{row:07d}"


def pick(rng: Random, items: Sequence[_T]) -> _T:
    """One item, uniformly."""
    return items[int(rng.random() * len(items))]


def weighted(rng: Random, shares: Sequence[tuple[float, _T]]) -> _T:
    """One item of (share, item) pairs whose shares sum to 1."""
    draw = rng.random()
    for share, item in shares:
        draw -= share
        if draw < 0:
            return item
    return shares[-1][1]


def popularity(count: int, rng: np.random.Generator, exponent: float = 0.7) -> np.ndarray:
    """Zipf-Mandelbrot probabilities in random order, float64[count]."""
    weights = (np.arange(count) + 3.0) ** -exponent
    return rng.permutation(weights / weights.sum())


def _kinds_of(facet: str) -> np.ndarray:
    """The kind of each value of a facet, int8[values]: position in `KINDS`, -1 for any."""
    kinds = [-1 if v.kind is None else KINDS.index(v.kind) for v in VALUES[facet]]
    return np.array(kinds, np.int8)


def _of_same_kind(facet: str, kinds: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each row, a uniform value of `facet` of the given kind; -1 where the kind has none."""
    drawn = np.full(len(kinds), -1, np.int16)
    values = _kinds_of(facet)
    for kind in range(len(KINDS)):
        choices = np.flatnonzero((values == kind) | (values == -1))
        rows = np.flatnonzero(kinds == kind)
        if len(choices):
            drawn[rows] = rng.choice(choices, len(rows))
    return drawn


def sample_videos(documents: int, rng: np.random.Generator) -> Videos:
    """Draw the latent facets of `documents` videos.

    Entities and topics follow Zipf's law; documents of a topic share an entity, an aspect and an
    intent, and often a style, a place and a time.
    """
    topics = max(1, documents // _PER_TOPIC)
    entities = VALUES["entity"]
    entity = rng.choice(len(entities), topics, p=popularity(len(entities), rng))
    kinds = _kinds_of("entity")[entity]
    usual = {"entity": entity.astype(np.int16)}
    for facet in ("aspect", "intent", *_PRESENT):
        usual[facet] = _of_same_kind(facet, kinds, rng)

    topic = rng.choice(topics, documents, p=popularity(topics, rng))
    facets = {facet: values[topic] for facet, values in usual.items()}
    for facet, present in _PRESENT.items():
        own = _of_same_kind(facet, kinds[topic], rng)
        values = np.where(rng.random(documents) < _USUAL, facets[facet], own)
        facets[facet] = np.where(rng.random(documents) < present, values, -1).astype(np.int16)
    parents = np.array([value.parent for value in entities], np.int16)
    facets["series"] = parents[facets["entity"]]
    mention = _other_entity(facets["entity"], rng)
    mention[rng.random(documents) >= _OTHER_ENTITY] = -1
    language = (rng.random(documents) >= _CHINESE).astype(np.int8)
    return Videos(language, {facet: facets[facet] for facet in FACETS}, mention)


def _other_entity(entity: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another entity of the same series for each row."""
    parents = np.array([value.parent for value in VALUES["entity"]])
    members = [np.flatnonzero(parents == series) for series in range(len(VALUES["series"]))]
    others = np.empty(len(entity), np.int16)
    draws = rng.random(len(entity))
    for row, own in enumerate(entity.tolist()):
        candidates = members[parents[own]]
        candidates = candidates[candidates != own]
        others[row] = candidates[int(draws[row] * len(candidates))]
    return others


def write_videos(videos: Videos, rng: Random) -> pa.Table:
    """Write the fields of each video.

    Returns:
        doc_id, title, text, ocr, asr: string; facets: struct of the language and of the canonical
        name of every facet, null where the video has none. The facets are the oracle's and no
        model's: models read the text columns only.
    """
    fields: dict[str, list[str]] = {"title": [], "text": [], "ocr": [], "asr": []}
    columns = [videos.facets[facet].tolist() for facet in FACETS]
    mentions = videos.mention.tolist()
    for row, language in enumerate(videos.language.tolist()):
        own = {f: c[row] for f, c in zip(FACETS, columns, strict=True) if c[row] >= 0}
        for name, text in _Writer(LANGUAGES[language], own, mentions[row], rng).fields().items():
            fields[name].append(text)
    names = pa.array([document_name(row) for row in range(len(videos))], pa.string())
    latent = [pa.array([LANGUAGES[i] for i in videos.language.tolist()], pa.string())]
    for facet, column in zip(FACETS, columns, strict=True):
        canonical = [value.name for value in VALUES[facet]]
        latent.append(pa.array([canonical[i] if i >= 0 else None for i in column], pa.string()))
    facets = pa.StructArray.from_arrays(latent, names=["language", *FACETS])
    arrays = [names, *(pa.array(texts, pa.string()) for texts in fields.values()), facets]
    return pa.Table.from_arrays(arrays, names=["doc_id", *fields, "facets"])


class _Writer:
    """Writes one video."""

    def __init__(self, language: str, own: dict[str, int], mention: int, rng: Random) -> None:
        self.language = language
        self.own = own
        self.mention = mention
        self.rng = rng
        self.unsaid = {facet for facet in own if rng.random() < _UNSAID}

    def fields(self) -> dict[str, str]:
        return {
            "title": self._title(),
            "text": self._text(),
            "ocr": self._ocr(),
            "asr": self._asr(),
        }

    def _chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def _form(self, facet: str, value: int) -> str:
        forms = VALUES[facet][value].forms[self.language]
        return forms[0] if len(forms) == 1 or self._chance(0.8) else pick(self.rng, forms[1:])

    def _said(self, field: str, order: Sequence[str]) -> list[str]:
        """The facets that a field says, in the given order."""
        share = _SAID[field]
        return [
            facet
            for facet in order
            if facet in self.own
            and facet not in self.unsaid
            and self._chance(share.get(facet, _SAID_OTHERWISE))
        ]

    def _title(self) -> str:
        order = ["entity", "episode", "aspect", "intent", "style", "place", "time"]
        order.insert(0 if self._chance(0.5) else 1, "series")
        if self._chance(0.2):
            order.insert(0, order.pop(order.index("style")))
        said = self._said("title", order) or ["series"]
        title = " ".join(self._form(facet, self.own[facet]) for facet in said)
        return f"{title}{pick(self.rng, HOOKS[self.language])}" if self._chance(0.4) else title

    def _text(self) -> str:
        if self._chance(0.25):
            return ""
        order = ("series", "entity", "intent", "style", "place", "time")
        tags = [self._form(facet, self.own[facet]) for facet in self._said("text", order)]
        if self._chance(0.4):
            tags.append(pick(self.rng, TAGS[self.language]))
        return " ".join(f"#{tag}" for tag in tags)

    def _ocr(self) -> str:
        order = ("series", "entity", "episode", "aspect", "style", "place", "time")
        words = [self._form(facet, self.own[facet]) for facet in self._said("ocr", order)]
        words = [self._misread(word) if self._chance(_MISREAD) else word for word in words]
        if self._chance(0.5):
            words.insert(int(self.rng.random() * (len(words) + 1)), pick(self.rng, JUNK))
        return " ".join(words)

    def _misread(self, word: str) -> str:
        """One character is taken for another that looks like it, or lost."""
        places = [i for i, character in enumerate(word) if character in OCR_ERRORS]
        if places and self._chance(0.7):
            place = pick(self.rng, places)
            return word[:place] + OCR_ERRORS[word[place]] + word[place + 1 :]
        place = int(self.rng.random() * len(word))
        return word[:place] + word[place + 1 :]

    def _asr(self) -> str:
        phrases = ASR[self.language]
        clauses = []
        for facet in self._said("asr", ("entity", "episode", "aspect", "intent")):
            clauses.append(self._clause(facet, self.own[facet], facet))
        asides = [
            self._clause(facet, self.own[facet], facet)
            for facet in self._said("asr", ("style", "place", "time"))
        ]
        if self.mention >= 0:
            asides.append(self._clause("other entity", self.mention, "entity", keep=True))
        if self._chance(_OTHER_ASPECT):
            others = _other_aspects(self.own["aspect"])
            asides.append(self._clause("other aspect", pick(self.rng, others), "aspect", keep=True))
        for aside in asides:
            clauses.insert(1 + int(self.rng.random() * len(clauses)), aside)
        if self._chance(0.6):
            clauses.insert(0, pick(self.rng, phrases["opening"]))
        if self._chance(0.4):
            place = int(self.rng.random() * (len(clauses) + 1))
            clauses.insert(place, pick(self.rng, phrases["filler"]))
        return " ".join(clauses)

    def _clause(self, phrase: str, value: int, facet: str, keep: bool = False) -> str:
        form = self._form(facet, value)
        if not keep and self._chance(_DROPPED):
            return form
        return pick(self.rng, ASR[self.language][phrase]).format(form)


def _aspects_by_kind() -> dict[str | None, list[int]]:
    kinds: dict[str | None, list[int]] = {}
    for position, value in enumerate(VALUES["aspect"]):
        kinds.setdefault(value.kind, []).append(position)
    return kinds


_ASPECTS = _aspects_by_kind()


def _other_aspects(aspect: int) -> list[int]:
    return [other for other in _ASPECTS[VALUES["aspect"][aspect].kind] if other != aspect]
