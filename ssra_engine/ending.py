"""The end of a section: duplicates over all its shards, and the final parts.

Everything here follows from the staged shards, so whatever was interrupted is done again and gives
the same files.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ssra_engine.config import FilterConfig
from ssra_engine.disk_array import disk_array
from ssra_engine.keys import normalise
from ssra_engine.reasons import KEPT, decode_reasons, encode_reasons, reason_code
from ssra_engine.schema import REASONS, REJECTED, SYNTHETIC
from ssra_engine.section import Section
from ssra_engine.stages.deduplicate import find_repeats
from ssra_engine.stages.near_duplicates import find_near_repeats
from ssra_engine.tally import count_comparisons, count_costs, count_samples

__all__ = ["end_section"]


def end_section(section: Section, settings: FilterConfig, targets: tuple[int, ...]) -> None:
    """Write the parts of a section whose shards are all committed, and record its counts.

    With `duplicates="global"`, of the kept samples with one (normalised query, target grade) the
    first in (document, sample) order stays, and the others are rejected as duplicates. With
    `near_duplicates="global"`, those of one target that are left are gone through in the same
    order, and what is a near duplicate of one that stays is rejected.
    """
    if section.ended is not None:
        section.drop_staged()
        return
    rows = sum(record["rows"] for record in section.shards.values())
    with section.store.scratch() as scratch:
        codes = _find_duplicates(section, settings, rows, scratch)
        counts, costs, compared, failed = _write_parts(section, codes, targets)
    section.end(
        counts=counts.tolist(), costs=costs.tolist(), compared=compared.tolist(), failed=failed
    )


def _find_duplicates(
    section: Section, settings: FilterConfig, rows: int, scratch: Path
) -> np.ndarray:
    """What the samples of all shards say of each, codes of `reasons`, int8[rows], on disk."""
    codes = disk_array(scratch / "codes", np.int8, rows)
    codes[:] = KEPT
    if settings.duplicates == "global":
        repeated = find_repeats(_kept_keys(section), rows, scratch)
        codes[repeated != 0] = reason_code("duplicate")
    if settings.near_duplicates == "global":
        kept = _kept_queries(section, codes)
        near = find_near_repeats(kept, rows, settings.similarity, scratch)
        codes[near != 0] = reason_code("near_duplicate")
    return codes


def _kept_keys(section: Section) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for index in range(section.shard_count):
        staged = section.read(index, ["reason", "key"])
        kept = staged.column("reason").combine_chunks().is_null()
        yield staged.column("key").to_numpy(), kept.to_numpy(zero_copy_only=False)


def _kept_queries(
    section: Section, codes: np.ndarray
) -> Iterator[tuple[pa.Array, np.ndarray, np.ndarray]]:
    start = 0
    for index in range(section.shard_count):
        staged = section.read(index, ["query", "target", "reason"])
        kept = staged.column("reason").combine_chunks().is_null().to_numpy(zero_copy_only=False)
        kept &= codes[start : start + len(staged)] == KEPT
        start += len(staged)
        queries = staged.column("query").combine_chunks().fill_null("")
        target = staged.column("target").combine_chunks().fill_null(0)
        yield normalise(queries), target.to_numpy().astype(np.uint64), kept


def _write_parts(
    section: Section, found: np.ndarray, targets: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    counts, failed, start = np.zeros((len(targets), 1 + len(REASONS)), np.int64), 0, 0
    costs, compared = np.zeros((len(targets), 2), np.int64), np.zeros(2, np.int64)
    for number, shards in enumerate(section.parts()):
        staged = pa.concat_tables([section.read(index) for index in shards])
        staged = _reject(staged, found[start : start + len(staged)])
        start += len(staged)
        of_part, failed_of_part = count_samples(staged, targets)
        counts += of_part
        failed += failed_of_part
        costs += count_costs(staged, targets)
        compared += count_comparisons(staged)
        if not section.part_written(number):
            kept = pc.is_null(staged.column("reason"))
            section.write_part(
                number,
                staged.filter(kept).select(SYNTHETIC.names),
                staged.filter(pc.invert(kept)).select(REJECTED.names),
            )
    return counts, costs, compared, failed


def _reject(staged: pa.Table, found: np.ndarray) -> pa.Table:
    if (found == KEPT).all():
        return staged
    codes = encode_reasons(staged.column("reason"))
    codes[found != KEPT] = found[found != KEPT]
    index = staged.schema.get_field_index("reason")
    return staged.set_column(index, staged.schema.field(index), decode_reasons(codes))
