"""Kept queries beside their documents, streamed.

Both lie in the order of the documents, so one pass over each is enough: memory holds a part of the
output and a batch of the corpus, and 9 bytes for each kept query.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ssra_engine.corpus import open_corpus
from ssra_engine.errors import StoreError
from ssra_engine.evaluation.embedding import document_texts
from ssra_engine.evaluation.outputs import SAMPLES, Outputs, document_files, read_samples
from ssra_engine.keys import hash_strings, mix, normalise
from ssra_engine.reasons import KEPT

__all__ = ["GRADED", "Export", "Pair", "open_export", "split_names"]

#: A kept query and its document. `query_id` is one for queries that say the same; `first` marks the
#: first row of each. `grade` is the target, which the score model agrees with.
GRADED = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("query", pa.string(), nullable=False),
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("document", pa.string(), nullable=False),
        pa.field("grade", pa.int8(), nullable=False),
        pa.field("confidence", pa.float32(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("first", pa.bool_(), nullable=False),
    ]
)

#: Documents with the kept queries about them: a batch of `schema.CORPUS`, a table of `GRADED`.
Pair = tuple[pa.RecordBatch, pa.Table]


@dataclass(frozen=True)
class Export:
    """A finished run, ready to be exported.

    Attributes:
        outputs: the run.
        inputs: files of its documents.
        dev: share of the queries in the split dev; likewise `test`.
        seed: of the split.
        audit: figures of an audit of the run (`auditing.findings.audit_of`), where there is one.
    """

    outputs: Outputs
    inputs: tuple[str, ...]
    dev: float
    test: float
    seed: int
    audit: dict[str, Any] | None = None

    def pairs(self) -> Iterator[Pair]:
        """The whole corpus, batch by batch, with the kept queries about each batch.

        Raises:
            DataError: the corpus cannot be read.
            StoreError: a part of the run is damaged or is about other documents.
        """
        first, waiting = self._first_rows(), _Waiting(_kept(self.outputs))
        settings = self.outputs.config.input
        corpus = open_corpus(self.inputs, limit=settings.limit, on_error=settings.on_error)
        for batch in corpus.batches():
            mine = [GRADED.empty_table()]
            while len(rows := waiting.about(batch.column("doc_id"))):
                own = first[waiting.taken - len(rows) : waiting.taken]
                mine.append(self._graded(rows, batch, own))
            yield batch, pa.concat_tables(mine)
        if waiting.taken < len(first):
            raise StoreError(
                f"{self.outputs.folder}: its queries are not in the order of its documents. "
                "Run again into another folder."
            )

    def _first_rows(self) -> np.ndarray:
        """Whether each kept row is the first with its query, bool."""
        keys = [_query_keys(table["query"]) for table in _kept(self.outputs)]
        every = np.concatenate(keys) if keys else np.zeros(0, np.uint64)
        first = np.zeros(len(every), bool)
        first[np.unique(every, return_index=True)[1]] = True
        return first

    def _graded(self, rows: pa.Table, batch: pa.RecordBatch, first: np.ndarray) -> pa.Table:
        keys = _query_keys(rows["query"])
        place = pc.index_in(rows["doc_id"].combine_chunks(), batch.column("doc_id"))
        texts = document_texts(pa.Table.from_batches([batch.take(place)]))
        return pa.table(
            [
                pa.array([f"q{key:016x}" for key in keys.tolist()], pa.string()),
                rows["query"],
                rows["doc_id"],
                texts,
                rows["target"],
                rows["confidence"],
                self._splits(keys),
                pa.array(first),
            ],
            schema=GRADED,
        )

    def _splits(self, keys: np.ndarray) -> pa.Array:
        """By the query alone, so that no query is in two splits."""
        drawn = mix(keys, self.seed).astype(np.float64) / 2.0**64
        names = np.where(drawn < self.test, "test", "train")
        names = np.where((drawn >= self.test) & (drawn < self.test + self.dev), "dev", names)
        return pa.array(names.tolist(), pa.string())


def open_export(
    outputs: Outputs, corpus: Sequence[str], *, dev: float, test: float, seed: int
) -> Export:
    """Check that the documents are those of the run.

    Raises:
        DataError: they are not, or cannot be read.
        StoreError: the run does not say where they are, and `corpus` is empty.
    """
    return Export(outputs, document_files(outputs, corpus), dev, test, seed)


def split_names(export: Export) -> tuple[str, ...]:
    """The splits that an export has."""
    shares = {"train": 1 - export.dev - export.test, "dev": export.dev, "test": export.test}
    return tuple(name for name, share in shares.items() if share > 1e-9)


class _Waiting:
    """Rows in the order of their documents, handed out as these come by.

    Attributes:
        taken: rows handed out so far.
    """

    def __init__(self, tables: Iterator[pa.Table]) -> None:
        self._tables = tables
        self._rows = SAMPLES.empty_table()
        self.taken = 0

    def about(self, doc_ids: pa.Array) -> pa.Table:
        """The next rows, up to the first that is about none of these documents."""
        if not len(self._rows):
            self._rows = next(self._tables, self._rows)
        known = pc.is_in(self._rows["doc_id"], doc_ids)
        stranger = pc.index(known, value=False).as_py()
        rows = self._rows.slice(0, None if stranger < 0 else stranger)
        self._rows = self._rows.slice(len(rows))
        self.taken += len(rows)
        return rows


def _kept(outputs: Outputs) -> Iterator[pa.Table]:
    for table in read_samples(outputs.parts[-1]):
        kept = table.filter(pc.equal(table["reason"], KEPT))
        if len(kept):
            yield kept.combine_chunks()


def _query_keys(queries: pa.ChunkedArray) -> np.ndarray:
    return hash_strings(normalise(queries.combine_chunks()))
