"""The end of a section: duplicates over all its shards, and the final parts.

Everything here follows from the staged shards, so whatever was interrupted is done again and gives
the same files.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ssra_engine.reasons import decode_reasons, encode_reasons, reason_code
from ssra_engine.schema import REASONS, REJECTED, SYNTHETIC
from ssra_engine.section import Section
from ssra_engine.stages.deduplicate import find_repeats
from ssra_engine.tally import count_samples

__all__ = ["end_section"]


def end_section(
    section: Section, duplicates: Literal["global", "document"], targets: tuple[int, ...]
) -> None:
    """Write the parts of a section whose shards are all committed, and record its counts.

    With `duplicates="global"`, of the kept samples with one (normalised query, target grade) the
    first in (document, sample) order stays, and the others are rejected as duplicates.
    """
    if section.ended is not None:
        section.drop_staged()
        return
    rows = sum(record["rows"] for record in section.shards.values())
    with section.store.scratch() as scratch:
        if duplicates == "global":
            repeated = find_repeats(_kept_keys(section), rows, scratch)
        else:
            repeated = np.broadcast_to(np.uint8(0), rows)
        counts, failed = _write_parts(section, repeated, targets)
    section.end(counts=counts.tolist(), failed=failed)


def _kept_keys(section: Section) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for index in range(section.shard_count):
        staged = section.read(index, ["reason", "key"])
        kept = staged.column("reason").combine_chunks().is_null()
        yield staged.column("key").to_numpy(), kept.to_numpy(zero_copy_only=False)


def _write_parts(
    section: Section, repeated: np.ndarray, targets: tuple[int, ...]
) -> tuple[np.ndarray, int]:
    counts, failed, start = np.zeros((len(targets), 1 + len(REASONS)), np.int64), 0, 0
    for number, shards in enumerate(section.parts()):
        staged = pa.concat_tables([section.read(index) for index in shards])
        staged = _reject_repeats(staged, repeated[start : start + len(staged)])
        start += len(staged)
        of_part, failed_of_part = count_samples(staged, targets)
        counts += of_part
        failed += failed_of_part
        if not section.part_written(number):
            kept = pc.is_null(staged.column("reason"))
            section.write_part(
                number,
                staged.filter(kept).select(SYNTHETIC.names),
                staged.filter(pc.invert(kept)).select(REJECTED.names),
            )
    return counts, failed


def _reject_repeats(staged: pa.Table, repeated: np.ndarray) -> pa.Table:
    if not repeated.any():
        return staged
    codes = encode_reasons(staged.column("reason"))
    codes[repeated != 0] = reason_code("duplicate")
    index = staged.schema.get_field_index("reason")
    return staged.set_column(index, staged.schema.field(index), decode_reasons(codes))
