"""Any interleaving of writing, losing, crashing and going on leaves each row once."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from power import PowerCut, disk

from ssra_engine import section as sections
from ssra_engine.schema import REJECTED, STAGED, SYNTHETIC
from ssra_engine.section import Section
from ssra_engine.store import Store, open_store

_SHARDS = 4

#: One life of the process: when it is cut off, the dice of what the disk loses then, the order in
#: which shards are committed, and what somebody removes before the next life.
_LIVES = st.lists(
    st.tuples(
        st.integers(0, 40),
        st.integers(0, 2**16),
        st.permutations(range(_SHARDS)),
        st.sets(st.integers(0, _SHARDS - 1), max_size=2),
    ),
    max_size=6,
)


def _rows(shard: int) -> pa.Table:
    """Rows of a shard: it holds `shard` of them, every third rejected."""
    reason = ["empty" if row % 3 == 2 else None for row in range(shard + 1)]
    rows = [
        {"query": f"q{row}", "doc_id": f"d{shard}", "target": 1, "sample": row, "key": row}
        for row in range(shard + 1)
    ]
    table = pa.Table.from_pylist(rows, schema=STAGED)
    index = STAGED.get_field_index("reason")
    column = pa.array(reason).dictionary_encode().cast(STAGED.field(index).type)
    return table.set_column(index, STAGED.field(index), column)


def _live(store: Store, order: list[int]) -> None:
    """Commit what is missing in some order, write the parts, and end."""
    section = Section(
        store,
        "final",
        kept="synthetic",
        rejected="rejected",
        file_format="parquet",
        shard_count=_SHARDS,
    )
    if section.ended is None:
        for shard in order:
            if shard not in section.shards:
                section.commit(shard, _rows(shard), {"documents": 1})
        for number, shards in enumerate(section.parts()):
            if not section.part_written(number):
                table = pa.concat_tables([section.read(shard) for shard in shards])
                kept = table.column("reason").is_null()
                section.write_part(
                    number,
                    table.filter(kept).select(SYNTHETIC.names),
                    table.filter(pa.compute.invert(kept)).select(REJECTED.names),
                )
        section.end(counts=[], failed=0)
    if not store.finished:
        store.finish({"documents": _SHARDS})


def _samples(folder: Path) -> list[tuple[str, int]]:
    found = []
    for name in ("synthetic", "rejected"):
        for path in sorted((folder / name).glob("part-*")):
            table = pq.read_table(path, columns=["doc_id", "sample"])
            found += list(zip(*table.to_pydict().values(), strict=True))
    return sorted(found)


@settings(max_examples=60, deadline=None)
@given(lives=_LIVES)
def test_rows_are_there_once(lives: list[tuple[int, int, list[int], set[int]]]) -> None:
    with tempfile.TemporaryDirectory() as base, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sections, "_PART_ROWS", 4)
        folder, attic = Path(base) / "above" / "out", Path(base) / "attic"
        for moment, seed, order, lost in lives:
            with disk(folder, attic, moment, seed):
                try:
                    with open_store(folder, {"inputs": "a"}, "") as store:
                        _live(store, order)
                except PowerCut:
                    pass
            for shard in lost:
                (folder / f"shards/final/{shard:06}.arrow").unlink(missing_ok=True)
        with disk(folder, attic), open_store(folder, {"inputs": "a"}, "") as store:
            _live(store, list(range(_SHARDS)))
            assert store.summary() == {"documents": _SHARDS}
            for record in store.records:
                store.check(record.get("files", {}))
        expected = sorted(
            (f"d{shard}", row) for shard in range(_SHARDS) for row in range(shard + 1)
        )
        assert _samples(folder) == expected
        shutil.rmtree(folder)
