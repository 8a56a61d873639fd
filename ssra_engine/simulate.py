"""A simulated world of short videos, in which the true grade of a query can be known.

Videos have latent facets (series, entity, episode, aspect, intent, style, place, time). Their
title, text, OCR and ASR are written from the facets with noise, in Chinese or English; queries ask
for some facets, and the grade follows from the facets (`oracle_grade`). The corpus carries the
facets in a column of its own for the oracle; models read the text columns only.

It is a simulation: its tables say so in their schema's metadata, and whatever prints its figures
must say so too.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa

from ssra_engine.errors import ConfigError, StoreError
from ssra_engine.simulation.judging import click_log, judge
from ssra_engine.simulation.oracle import oracle_grade, parse_query
from ssra_engine.simulation.videos import sample_videos, write_videos

__all__ = [
    "SIMULATED",
    "World",
    "describe",
    "is_simulated",
    "oracle_grade",
    "parse_query",
    "simulate",
    "write",
]

#: Key of the schema metadata that marks a simulated table; the value is JSON.
SIMULATED = b"ssra.simulated"

_JUDGMENTS_PER_DOCUMENT = 1.8
_PAIRS_PER_DOCUMENT = 3


@dataclass(frozen=True)
class World:
    """A simulated world.

    Attributes:
        corpus: doc_id, title, text, ocr, asr: string; facets: struct of strings, for the oracle.
        judgments: query, doc_id: string; grade: int8, 0 to 3; split: string (train, dev, test).
        pairs: query, doc_id: string; clicks: int32. Not graded.
    """

    corpus: pa.Table
    judgments: pa.Table
    pairs: pa.Table


def simulate(
    documents: int, seed: int, *, judgments: int | None = None, pairs: int | None = None
) -> World:
    """Make a world; the same arguments make the same world.

    Args:
        documents: number of videos.
        seed: any non-negative integer.
        judgments: judged pairs over all splits; default 1.8 per document. A small world may hold
            fewer than asked for.
        pairs: pairs of the click log; default 3 per document.

    Raises:
        ConfigError: a number is out of range.
    """
    if documents < 1 or seed < 0 or (judgments or 0) < 0 or (pairs or 0) < 0:
        raise ConfigError("A world has at least one document; seed and sizes are not negative.")
    if judgments is None:
        judgments = round(_JUDGMENTS_PER_DOCUMENT * documents)
    if pairs is None:
        pairs = _PAIRS_PER_DOCUMENT * documents
    latent, *written = np.random.SeedSequence(seed).spawn(4)
    text, judged, clicked = (Random(int(s.generate_state(1, np.uint64)[0])) for s in written)
    videos = sample_videos(documents, np.random.default_rng(latent))
    mark = {SIMULATED: json.dumps({"documents": documents, "seed": seed}).encode()}
    return World(
        *(
            table.replace_schema_metadata(mark)
            for table in (
                write_videos(videos, text),
                judge(videos, judgments, judged),
                click_log(videos, pairs, clicked),
            )
        )
    )


def is_simulated(schema: pa.Schema) -> bool:
    """Whether a table with this schema was written by `write`."""
    return SIMULATED in (schema.metadata or {})


def write(world: World, folder: str | Path) -> None:
    """Write corpus.arrow, judgments.arrow and pairs.arrow (Arrow IPC files) into a folder.

    Raises:
        StoreError: the folder cannot be made or written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, table in vars(world).items():
            with (
                pa.OSFile(str(folder / f"{name}.arrow"), "wb") as sink,
                pa.ipc.new_file(sink, table.schema) as writer,
            ):
                writer.write_table(table, max_chunksize=65_536)
    except OSError as error:
        raise StoreError(f"{folder}: cannot be written: {error}.") from error


def describe(world: World) -> dict[str, Any]:
    """What a world holds, as plain JSON values; the first key says that it is a simulation."""
    splits = world.judgments.column("split").to_pylist()
    grades = world.judgments.column("grade").to_pylist()
    languages = world.corpus.column("facets").combine_chunks().field("language").to_pylist()
    queries = dict(zip(world.judgments.column("query").to_pylist(), splits, strict=True))
    return {
        "simulated": True,
        "documents": len(world.corpus),
        "documents_by_language": dict(sorted(Counter(languages).items())),
        "judgments": len(grades),
        "judgments_by_grade": {str(g): n for g, n in sorted(Counter(grades).items())},
        "judgments_by_split": dict(Counter(splits)),
        "queries_by_split": dict(Counter(queries.values())),
        "pairs": len(world.pairs),
    }
