"""How fast a run went, shard by shard, from the records in its manifest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

__all__ = ["throughput"]


def throughput(records: Iterable[Mapping[str, Any]], most: int = 120) -> dict[str, Any]:
    """Documents per second over the working time of the shards.

    Time is that which passed while shards were worked on, however many at once: pauses between
    calls, the loading of models and the training between rounds are not in it.

    Args:
        records: of the manifest, oldest first.
        most: spans told of; consecutive shards of a section are put together until they fit.

    Returns:
        seconds and documents in all, and spans: section, start and end in seconds, documents, rate
        (documents per second; null where the clock saw no time pass).
    """
    shards = [record for record in records if record["kind"] == "shard"]
    together = max(1, -(-len(shards) // most))
    spans, clock = [], 0.0
    for section, group in groupby(shards, key=lambda record: record["section"]):
        own = list(group)
        for first in range(0, len(own), together):
            some = own[first : first + together]
            seconds = sum(record["seconds"] for record in some)
            documents = sum(record["documents"] for record in some)
            spans.append(
                {
                    "section": section,
                    "start": round(clock, 3),
                    "end": round(clock + seconds, 3),
                    "documents": documents,
                    "rate": documents / seconds if seconds else None,
                }
            )
            clock += seconds
    total = sum(span["documents"] for span in spans)
    return {"seconds": round(clock, 3), "documents": total, "spans": spans}
