"""The models a run works with, by role; where they come from is not its business."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from ssra_engine.calibration import Calibration
from ssra_engine.engines.engine import Engine
from ssra_engine.engines.fake import FakeEngine
from ssra_engine.errors import EngineError
from ssra_engine.keys import hash_strings, mix
from ssra_engine.prompts import COMPARATOR_TEMPLATE, TEMPLATES, PromptTemplate
from ssra_engine.schema import D2Q

__all__ = ["Roles", "asks_model", "fake_roles"]

_FAKE_WEIGHTS = "weights.txt"


@dataclass(frozen=True)
class Roles:
    """The score model and the query model, and how the latter is trained again.

    Attributes:
        fingerprint: changes when any of the models does; part of what an output folder belongs to.
        template: prompts the models were trained with.
        score_template: how the score model is asked; its documents are those of `template`.
        compare_template: how the comparator is asked, where there is one.
        labels: label of each grade as the score model writes it, lowest first.
        calibration: of the score model's logits.
        open_score: loads the score model.
        open_comparator: loads a language model that compares queries; None where the score model
            does, or nothing.
        open_query: loads a query model: of the engines folder (None), or of a folder `retrain`
            wrote.
        d2q: training data of the first query model (`schema.D2Q`).
        retrain: trains a query model on (`schema.D2Q`) and writes it into an empty folder; the
            third argument is the seed.
        requests_per_second: (generated, scored) as measured on this machine, where known.
    """

    fingerprint: str
    template: PromptTemplate
    score_template: PromptTemplate
    compare_template: PromptTemplate
    labels: tuple[str | int, ...]
    calibration: Calibration
    open_score: Callable[[], Engine]
    open_comparator: Callable[[], Engine] | None
    open_query: Callable[[Path | None], Engine]
    d2q: Callable[[], pa.Table]
    retrain: Callable[[pa.Table, Path, int], None]
    requests_per_second: tuple[float, float] | None = None


def asks_model(comparator: str) -> bool:
    """Whether the setting `filter.comparator` names a language model."""
    return comparator not in ("score", "none")


def fake_roles(grades: tuple[int, ...], comparator: str = "score") -> Roles:
    """The fake engine in every role: no models, no engines folder.

    Its retraining writes a number that follows from the data and the seed, and a query model opened
    from it writes other texts.
    """
    return Roles(
        fingerprint="fake",
        template=TEMPLATES["plain"],
        score_template=TEMPLATES["plain"],
        compare_template=COMPARATOR_TEMPLATE,
        labels=tuple(str(grade) for grade in grades),
        calibration=Calibration(),
        open_score=FakeEngine,
        open_comparator=FakeEngine if asks_model(comparator) else None,
        open_query=_open_fake_query,
        d2q=D2Q.empty_table,
        retrain=_retrain_fake,
    )


def _open_fake_query(folder: Path | None) -> Engine:
    if folder is None:
        return FakeEngine()
    weights = folder / _FAKE_WEIGHTS
    try:
        return FakeEngine(salt=int(weights.read_text(encoding="ascii")))
    except (OSError, ValueError) as error:
        raise EngineError(f"{weights}: not the weights of a fake query model: {error}.") from error


def _retrain_fake(d2q: pa.Table, folder: Path, seed: int) -> None:
    queries = d2q.column("query").combine_chunks()
    keys = mix(hash_strings(queries), d2q.column("grade").to_numpy(), seed)
    salt = int(np.bitwise_xor.reduce(keys, initial=np.uint64(seed)))
    (folder / _FAKE_WEIGHTS).write_text(str(salt), encoding="ascii")
