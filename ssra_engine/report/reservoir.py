"""A random sample of rows per group, of bounded size, drawn while the rows stream by."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from ssra_engine.keys import hash_strings, mix

__all__ = ["Reservoir"]


class Reservoir:
    """The `size` rows of each (target, reason) whose seeded keys are the smallest.

    A key follows from what names a row (document, target, sample) and the seed, so it is a uniform
    sample that depends neither on the order of the rows nor on how they lie in files.

    Args:
        size: rows of a group, for samples that were kept and for rejected ones.
        seed: another one draws another sample.
    """

    def __init__(self, size: tuple[int, int], seed: int) -> None:
        self._size = size
        self._seed = seed
        self._groups: dict[tuple[int, int], tuple[np.ndarray, pa.Table]] = {}

    def add(self, rows: pa.Table) -> None:
        """Offer rows of `evaluation.outputs.SAMPLES`."""
        if not len(rows):
            return
        rows = rows.combine_chunks()
        targets = rows["target"].to_numpy()
        reasons = rows["reason"].to_numpy()
        keys = hash_strings(rows["doc_id"].combine_chunks(), self._seed)
        keys = mix(keys, targets, rows["sample"].to_numpy())
        pairs = np.unique(np.stack([targets, reasons], axis=1), axis=0)
        for target, reason in pairs.tolist():
            mine = np.flatnonzero((targets == target) & (reasons == reason))
            self._offer((target, reason), keys[mine], rows.take(pa.array(mine)))

    def rows(self) -> list[dict[str, object]]:
        """The sample: by target, then reason, then key."""
        return [row for group in sorted(self._groups) for row in self._groups[group][1].to_pylist()]

    def _offer(self, group: tuple[int, int], keys: np.ndarray, rows: pa.Table) -> None:
        if group in self._groups:
            old_keys, old_rows = self._groups[group]
            keys, rows = np.concatenate([old_keys, keys]), pa.concat_tables([old_rows, rows])
        kept = group[1] < 0
        best = np.argsort(keys, kind="stable")[: self._size[0 if kept else 1]]
        self._groups[group] = keys[best], rows.take(pa.array(best)).combine_chunks()
