"""An engine whose queries are often the same, or all but."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa

from ssra_engine.engines import Sampling
from ssra_engine.engines.fake import FakeEngine

_STEMS = ("alphabet", "bicycles", "chestnut", "dolphins")


class AlikeEngine(FakeEngine):
    """Writes long queries of which many differ in their last character only.

    Args:
        bits: of the last character, at most 4: the fewer, the more queries are the same.
    """

    def __init__(self, bits: int = 4) -> None:
        super().__init__()
        self._bits = bits

    def generate_batches(
        self, batches: Iterable[pa.RecordBatch], sampling: Sampling
    ) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            (rows,) = super().generate_batches([batch], sampling)
            texts = [
                f"{_STEMS[seed % 4]} one after another in snow {seed >> (64 - self._bits):x}"
                for seed in batch.column("seed").to_pylist()
            ]
            place = rows.schema.get_field_index("text")
            yield rows.set_column(place, "text", pa.array(texts)).cast(rows.schema)
