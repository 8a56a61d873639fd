"""The scored samples of a finished run: what an audit draws from and acceptance chooses from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ssra_engine.errors import StoreError
from ssra_engine.evaluation.outputs import Outputs
from ssra_engine.keys import hash_strings, normalise
from ssra_engine.reasons import KEPT, encode_reasons, reason_code
from ssra_engine.schema import REJECTED, SYNTHETIC
from ssra_engine.stages.accept import compete

__all__ = ["Scored", "read_scored", "take_rows"]

# Reasons of scored samples that a threshold of another height would not have kept either.
_BARRED = ("error", "near_duplicate", "pairwise_inconsistent")
_COLUMNS = ("query", "doc_id", "target", "confidence", "seed", "reason")


@dataclass(frozen=True)
class Scored:
    """Samples of the final synthesis that may be accepted, in the order of the output's parts.

    These are the samples that passed the checks of their text and were scored, whatever the score
    filter said, except near duplicates, those that the pairwise filter rejected and, of samples
    that say the same, all but the surest (`stages.accept.compete`). Both of these filters looked
    only at samples that the score filter had kept; those below are in.

    Attributes:
        row: place among all rows of the parts, see `take_rows`, int64[N], ascending.
        target: grade asked for, int8[N].
        confidence: the score model's probability of the target, float32[N].
        seed: of the sample, which names it, uint64[N].
        kept: whether the run kept it, bool[N].
    """

    row: np.ndarray
    target: np.ndarray
    confidence: np.ndarray
    seed: np.ndarray
    kept: np.ndarray

    def __len__(self) -> int:
        return len(self.row)

    def at(self, chosen: np.ndarray) -> Scored:
        """Some of the samples, by mask or index."""
        return Scored(**{field.name: getattr(self, field.name)[chosen] for field in fields(self)})


def read_scored(outputs: Outputs) -> Scored:
    """Read which samples of a run may be accepted.

    It holds some 50 bytes for each scored sample, and no texts.

    Raises:
        StoreError: a part is missing or damaged.
    """
    read = _read_columns(outputs)
    names = ("row", "query", "document", "target", "confidence", "seed", "kept")
    columns = dict(zip(names, read, strict=True))
    stays = compete(
        query=columns.pop("query"),
        document=columns.pop("document"),
        target=columns["target"],
        confidence=columns["confidence"],
        seed=columns["seed"],
        everywhere=outputs.config.filter.duplicates == "global",
    )
    return Scored(**columns).at(stays)


def take_rows(outputs: Outputs, rows: np.ndarray) -> Iterator[pa.Table]:
    """Rows of the final synthesis (`schema.SYNTHETIC`), a table for each part.

    Args:
        outputs: a finished run.
        rows: places as in `Scored.row`, ascending.

    Raises:
        StoreError: a part is missing or damaged.
    """
    start = 0
    for files in _parts(outputs):
        tables = []
        for path in files:
            table = _read(path, SYNTHETIC.names)
            first, last = np.searchsorted(rows, [start, start + len(table)])
            tables.append(table.take(pa.array(rows[first:last] - start)))
            start += len(table)
        yield pa.concat_tables(tables).cast(SYNTHETIC)


def _read_columns(outputs: Outputs) -> list[np.ndarray]:
    parts = []
    start = 0
    for files in _parts(outputs):
        for path in files:
            table = _read(path, _COLUMNS)
            codes = encode_reasons(table.column("reason"))
            barred = [reason_code(reason) for reason in _BARRED]
            scored = table.column("confidence").is_valid().to_numpy() & ~np.isin(codes, barred)
            rows = np.flatnonzero(scored)
            table = table.take(pa.array(rows))
            parts.append(
                (
                    rows + start,
                    hash_strings(normalise(table.column("query").combine_chunks())),
                    hash_strings(table.column("doc_id").combine_chunks()),
                    *(table.column(n).to_numpy() for n in ("target", "confidence", "seed")),
                    codes[rows] == KEPT,
                )
            )
            start += len(scored)
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


def _parts(outputs: Outputs) -> list[tuple[Path, Path]]:
    """The files of each part of the final synthesis: kept and rejected."""
    kept, rejected = (sorted(f.glob("part-*")) for f in outputs.parts[-1].folders)
    if not kept or [path.name for path in kept] != [path.name for path in rejected]:
        raise StoreError(
            f"{outputs.folder}: parts of the rows are missing. Run again into another folder."
        )
    return list(zip(kept, rejected, strict=True))


def _read(path: Path, columns: list[str] | tuple[str, ...]) -> pa.Table:
    """Some columns of a part; kept rows have no reason."""
    kept = path.parent.name == "synthetic"
    names = [name for name in columns if not (kept and name == "reason")]
    try:
        if path.suffix == ".parquet":
            table = pq.read_table(path, columns=names)
        else:
            with pa.memory_map(str(path)) as source:
                table = pa.ipc.open_file(source).read_all().select(names)
    except (OSError, KeyError, pa.ArrowException) as error:
        raise StoreError(f"{path}: cannot be read: {error}.") from error
    if len(names) < len(columns):
        reason = REJECTED.field("reason")
        table = table.append_column(reason, pa.nulls(len(table), reason.type))
    return table.select(list(columns))
