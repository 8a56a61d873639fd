"""The score model of a run as the grader of what was mined."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ssra_engine.engines.engine import Engine
from ssra_engine.errors import EngineError
from ssra_engine.evaluation.embedding import document_texts
from ssra_engine.keys import hash_strings
from ssra_engine.roles import Roles
from ssra_engine.schema import ANNOTATED
from ssra_engine.stages.annotate import annotated, score_requests
from ssra_engine.stages.filter import score
from ssra_engine.steps import Progress

__all__ = ["ScoreModel"]

Int64s = npt.NDArray[np.int64]

# Documents hashed, and pairs turned into prompts, at a time.
_ROWS = 4096


class ScoreModel:
    """Grades pairs as a run scores its samples, and remembers those above grade 0.

    A `grading.Grader`: it is asked with the texts that the embedder reads, and knows the documents
    by them. The score model is loaded when it is first asked.

    Args:
        roles: of the run.
        corpus: `schema.CORPUS`; of documents with equal texts the first one counts.
        progress: told of each question and its pairs.

    Attributes:
        graded: how many pairs it was asked about.
    """

    def __init__(self, roles: Roles, corpus: pa.Table, progress: Progress) -> None:
        self._roles, self._corpus, self._progress = roles, corpus, progress
        hashes = [
            hash_strings(document_texts(corpus.slice(start, _ROWS)))
            for start in range(0, len(corpus), _ROWS)
        ]
        self._keys, self._rows = np.unique(np.concatenate(hashes), return_index=True)
        self._engine: Engine | None = None
        self._found: list[pa.Table] = []
        self.graded = 0

    def __call__(self, queries: Sequence[str], documents: Sequence[str]) -> npt.NDArray[np.int8]:
        """The likeliest grade of each pair, int8[n].

        Raises:
            EngineError: the score model cannot be loaded, or its scores are not numbers.
        """
        keys = hash_strings(pa.array(documents, pa.string()))
        rows = self._rows[np.searchsorted(self._keys, keys)]
        # Side by side, the pairs of a document share its prefix.
        order = np.argsort(rows, kind="stable")
        asked = pa.array(queries, pa.string()).take(pa.array(order))
        probs = self._score(asked, rows[order])
        pairs = pa.table({"query": asked, "doc_id": self._corpus["doc_id"].take(rows[order])})
        graded = annotated(pairs, probs)
        self._found.append(graded.filter(pc.greater(graded["grade"], 0)))
        self.graded += len(graded)
        grades = np.empty(len(rows), np.int8)
        grades[order] = graded["grade"].to_numpy()
        return grades

    @property
    def found(self) -> pa.Table:
        """Pairs that it gave a grade above 0, `schema.ANNOTATED`, in the order of asking."""
        return pa.concat_tables([ANNOTATED.empty_table(), *self._found])

    def close(self) -> None:
        """Release the score model."""
        if self._engine is not None:
            self._engine.close()

    def _score(self, queries: pa.Array, rows: Int64s) -> npt.NDArray[np.float32]:
        if self._engine is None:
            self._progress.begin("load the score model", 0, 0)
            self._engine = self._roles.open_score()
        self._progress.begin("grade what was mined", len(rows), 0)
        done = 0

        def advance(scored: int) -> None:
            nonlocal done
            done += scored
            self._progress.update(done)

        roles = self._roles
        requests = self._requests(queries, rows)
        probs = score(self._engine, requests, roles.labels, roles.calibration, advance)
        bad = np.flatnonzero(~np.isfinite(probs).all(axis=1))
        if len(bad):
            first = int(bad[0])
            raise EngineError(
                f"the score model's grade of {queries[first].as_py()[:80]!r} for document "
                f"{self._corpus['doc_id'][int(rows[first])].as_py()!r} is not a number."
            )
        return probs

    def _requests(self, queries: pa.Array, rows: Int64s) -> Iterator[pa.RecordBatch]:
        template = self._roles.score_template
        for start in range(0, len(rows), _ROWS):
            distinct, which = np.unique(rows[start : start + _ROWS], return_inverse=True)
            prefixes = template.documents(self._corpus.take(pa.array(distinct)))
            asked = {
                "document": prefixes.take(pa.array(which)),
                "query": queries.slice(start, _ROWS),
            }
            yield from score_requests(pa.table(asked), template, len(self._roles.labels))
