"""The pairs of an audit: what an annotator sees of each, and what only the figures may know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from ssra_engine.audit import Draw, documents_of, drawn, open_run, sample_keys
from ssra_engine.readers import find_sources, schema_metadata
from ssra_engine.scored import read_scored, take_rows
from ssra_engine.simulate import SIMULATED

__all__ = ["AuditPair", "AuditPairs", "draw_pairs"]


@dataclass(frozen=True)
class AuditPair:
    """One pair of an audit.

    Attributes:
        key: names the pair and tells nothing of it.
        query: the generated query.
        document: row of `schema.CORPUS`.
        target: grade that was asked for.
        predicted: grade that the score model gives.
        kept: whether the run kept the pair.
    """

    key: str
    query: str
    document: dict[str, str]
    target: int
    predicted: int
    kept: bool

    @property
    def doc_id(self) -> str:
        """Of the document."""
        return self.document["doc_id"]


@dataclass(frozen=True)
class AuditPairs:
    """The pairs of one draw, in the shuffled order in which everybody sees them.

    Attributes:
        draw: how they were drawn.
        grades: the scale.
        pairs: in the order of their keys.
        simulated: whether the documents are a simulation.
    """

    draw: Draw
    grades: tuple[int, ...]
    pairs: tuple[AuditPair, ...]
    simulated: bool


def draw_pairs(folder: str | Path, draw: Draw, *, corpus: Sequence[str] = ()) -> AuditPairs:
    """Draw the pairs that `audit.draw_audit` writes for the same draw.

    Args:
        folder: output folder of a finished run.
        draw: how many, and which.
        corpus: the documents of the run; by default the files that it recorded.

    Raises:
        StoreError: the folder is not the output of a finished run.
        DataError: the corpus cannot be read, or is not the one of the run.
    """
    outputs, inputs = open_run(folder, corpus)
    scored = read_scored(outputs)
    chosen = np.flatnonzero(drawn(scored, draw)[1])
    table = pa.concat_tables(take_rows(outputs, scored.row[chosen]))
    documents = documents_of(outputs, inputs, table.column("doc_id").unique())
    rows = zip(
        sample_keys(scored.seed[chosen], draw),
        table.to_pylist(),
        scored.kept[chosen].tolist(),
        strict=True,
    )
    pairs = [
        AuditPair(key, r["query"], documents[r["doc_id"]], r["target"], r["grade"], kept)
        for key, r, kept in rows
    ]
    pairs.sort(key=lambda pair: pair.key)
    simulated = any(SIMULATED in schema_metadata(source) for source in find_sources(inputs))
    return AuditPairs(draw, outputs.config.grades, tuple(pairs), simulated)
