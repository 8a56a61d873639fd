"""What to mine: the arguments that shape the choice of negatives, checked before any work."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from ssra_engine.errors import ConfigError

__all__ = [
    "MiningError",
    "OutputFormat",
    "SamplingStrategy",
    "Settings",
    "modernise",
    "resolve",
]

_log = logging.getLogger(__name__)

OutputFormat = Literal["triplet", "n-tuple", "labeled-pair", "labeled-list"]
SamplingStrategy = Literal["top", "random", "simans"]

# How many candidates are looked at for each negative where limits may refuse most of them.
_CANDIDATES_PER_NEGATIVE = 10


class MiningError(ConfigError, ValueError):
    """An argument of mining is wrong; also a ValueError, which sentence-transformers raises."""


@dataclass(frozen=True)
class Settings:
    """Which candidates of a query become its negatives; see `mine_hard_negatives`.

    Attributes:
        range_max: None until `resolve` has chosen it.
        reranked: a cross-encoder is given.
        graded: a grader is given.
    """

    num_negatives: int = 3
    range_min: int = 0
    range_max: int | None = None
    max_score: float | None = None
    min_score: float | None = None
    absolute_margin: float | None = None
    relative_margin: float | None = None
    sampling_strategy: SamplingStrategy = "top"
    simans_a: float = 50.0
    simans_b: float = 0.0
    include_positives: bool = False
    output_format: OutputFormat = "triplet"
    output_scores: bool = False
    reranked: bool = False
    graded: bool = False

    @property
    def has_margin(self) -> bool:
        """Scores are compared with the positive's."""
        return self.absolute_margin is not None or self.relative_margin is not None

    @property
    def has_limits(self) -> bool:
        """Some score may be refused."""
        return self.has_margin or self.max_score is not None or self.min_score is not None

    @property
    def reranks(self) -> bool:
        """The cross-encoder's scores take the place of the model's: only where a limit asks."""
        return self.reranked and self.has_limits


def modernise(settings: Settings, as_triplets: bool | None, margin: float | None) -> Settings:
    """Translate what is deprecated, and what `include_positives` implies; each is logged."""
    if as_triplets is not None:
        form: OutputFormat = "triplet" if as_triplets else "n-tuple"
        _log.warning("as_triplets is deprecated: write output_format=%r.", form)
        settings = replace(settings, output_format=form)
    if settings.include_positives:
        narrowed = settings.has_limits or margin is not None
        narrowed |= settings.range_min != 0 or settings.range_max is not None
        if narrowed or settings.sampling_strategy != "top":
            _log.warning(
                "include_positives=True: ranges, limits and sampling apply to the positives too, "
                "and may leave them out."
            )
        if settings.output_format != "n-tuple":
            _log.warning("include_positives=True: output_format is 'n-tuple', to keep the ranking.")
            settings = replace(settings, output_format="n-tuple")
    if str(settings.output_format) == "n-tuple-scores":
        _log.warning(
            "output_format='n-tuple-scores' is deprecated: write output_format='n-tuple' and "
            "output_scores=True."
        )
        settings = replace(settings, output_format="n-tuple", output_scores=True)
    if margin is not None:
        _log.warning("margin is deprecated: write absolute_margin=%s.", margin)
        settings = replace(settings, absolute_margin=margin)
    return settings


def resolve(settings: Settings, most_known: int) -> Settings:
    """Check what does not depend on texts, and choose `range_max` where it is None.

    Then it is `range_min` and `num_negatives` and `most_known`, with ten times `num_negatives`
    where candidates may be refused: by a margin, `max_score`, a cross-encoder under `min_score`, or
    a grader, or where SimANS is to choose among them.

    Args:
        settings: as given.
        most_known: the most documents that any query must not get.

    Raises:
        MiningError: an argument is out of range, or leaves fewer than `num_negatives` candidates.
    """
    _choice("output_format", settings.output_format, get_args(OutputFormat))
    _choice("sampling_strategy", settings.sampling_strategy, get_args(SamplingStrategy))
    limits = ("max_score", "min_score", "absolute_margin", "relative_margin")
    for name in (*limits, "simans_a", "simans_b"):
        value = getattr(settings, name)
        if value is not None and math.isnan(value):
            raise MiningError(f"{name} is not a number. Give a number, or leave it out.")
    if settings.simans_a < 0:
        raise MiningError(f"simans_a is {settings.simans_a}; it must not be negative.")
    if settings.num_negatives < 1:
        raise MiningError(f"num_negatives is {settings.num_negatives}; it must be at least 1.")
    if settings.range_min < 0:
        raise MiningError(f"range_min is {settings.range_min}; it must not be negative.")
    if settings.range_max is None:
        settings = replace(settings, range_max=_derived_range_max(settings, most_known))
    assert settings.range_max is not None
    window = settings.range_max - settings.range_min
    if window < 1:
        raise MiningError(
            f"range_min is {settings.range_min} and range_max is {settings.range_max}; range_min "
            "must be the smaller."
        )
    if settings.num_negatives > window:
        raise MiningError(
            f"num_negatives is {settings.num_negatives}, but only {window} candidates lie between "
            f"range_min, {settings.range_min}, and range_max, {settings.range_max}. Ask for fewer "
            "negatives or widen the range."
        )
    return settings


def _derived_range_max(settings: Settings, most_known: int) -> int:
    refusing = settings.has_margin or settings.max_score is not None or settings.graded
    refusing |= settings.reranked and settings.min_score is not None
    refusing |= settings.sampling_strategy == "simans"
    spare = _CANDIDATES_PER_NEGATIVE if refusing else 1
    return settings.range_min + spare * settings.num_negatives + most_known


def _choice(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise MiningError(f"{name} is {value!r}. Give one of {', '.join(map(repr, known))}.")
