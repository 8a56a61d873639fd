"""Graded judgments and documents in, `schema.NEGATIVES` out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ssra_engine.errors import DataError
from ssra_engine.evaluation.embedding import document_texts
from ssra_engine.negatives.embedding import Embedding
from ssra_engine.negatives.formats import Cells, list_of
from ssra_engine.negatives.grading import Grader
from ssra_engine.negatives.mine import mine
from ssra_engine.negatives.reading import grade_column, text_column
from ssra_engine.negatives.settings import MiningError, Settings, resolve
from ssra_engine.negatives.task import graded_task
from ssra_engine.schema import DOCUMENT_TEXT_COLUMNS, NEGATIVES

__all__ = ["mine_negatives"]

Int64s = npt.NDArray[np.int64]


def mine_negatives(
    judgments: pa.Table,
    corpus: pa.Table,
    model: Any,
    settings: Settings | None = None,
    how: Embedding | None = None,
    *,
    grader: Grader | None = None,
    seed: int | None = 0,
) -> pa.Table:
    """Hard negatives of every judged pair of grade 1 or higher, each with its grade where known.

    Grade-aware as `mine_hard_negatives` is with `grade_column_name`. Documents with the same text
    count as one, under the first doc_id: a copy of a positive is no negative.

    Args:
        judgments: columns query, doc_id, grade; those of grade 0 are knowledge only.
        corpus: `schema.CORPUS`.
        model: a SentenceTransformer.
        settings: limits, ranges and strategy; by default, 3 negatives with no limit. The output
            format plays no part, and no cross-encoder does; `graded` is set here.
        how: prompts and batches.
        grader: see `mine_hard_negatives`; it is given texts.
        seed: of draws.

    Returns:
        `schema.NEGATIVES`: a row for each pair that has a negative, by query, in the order of the
        judgments; negatives by falling score.

    Raises:
        MiningError: a setting is wrong, a column is missing, or no grade is above 0.
        DataError: a document that is judged and not in the corpus, a null, a bad grade.
    """
    settings = Settings() if settings is None else settings
    if settings.reranked:
        raise MiningError("a cross-encoder plays no part here. Use mine_hard_negatives.")
    settings = replace(settings, graded=grader is not None)
    for name, table, needed in (
        ("judgments", judgments, ("query", "doc_id", "grade")),
        ("corpus", corpus, ("doc_id", *DOCUMENT_TEXT_COLUMNS)),
    ):
        missing = [column for column in needed if column not in table.column_names]
        if missing:
            raise MiningError(f"{name} has no column {', '.join(map(repr, missing))}.")
    queries, doc_ids = text_column(judgments, "query"), text_column(corpus, "doc_id")
    grades = grade_column(judgments, "grade")
    if not (grades > 0).any():
        raise MiningError("judgments holds no grade above 0: no positive.")
    texts = document_texts(corpus).to_pylist()
    text_of = dict(zip(reversed(doc_ids), reversed(texts), strict=True))
    judged = [text_of[doc_id] for doc_id in _judged_ids(judgments, text_of)]
    task = graded_task(queries, judged, grades, texts, ([], [], np.empty(0, np.int8)))
    settings = resolve(settings, task.most_known)
    mined = mine(task, model, settings, how or Embedding(), grader=grader, seed=seed)
    id_of_text = dict(zip(reversed(texts), reversed(doc_ids), strict=True))
    return _table(Cells.of(task, mined), [id_of_text[text] for text in task.corpus])


def _judged_ids(judgments: pa.Table, known: dict[str, str]) -> list[str]:
    ids = text_column(judgments, "doc_id")
    for row, doc_id in enumerate(ids):
        if doc_id not in known:
            raise DataError(
                f"document {doc_id!r} is not in the corpus",
                column="doc_id",
                row=row,
                mend="Add the document or remove the judgment",
            )
    return ids


def _table(cells: Cells, doc_ids: list[str]) -> pa.Table:
    found = cells.present[:, 1:]
    rows = np.flatnonzero(found.any(axis=1))
    row, columns = np.nonzero(found[rows])
    where: tuple[Int64s, Int64s] = (rows[row], columns + 1)

    def ids(documents: Int64s) -> pa.Array:
        return pa.array([doc_ids[document] for document in documents.tolist()], pa.string())

    assert cells.grades is not None
    return pa.table(
        [
            cells.queries(rows),
            ids(cells.documents[rows, 0]),
            pa.array(cells.scores[rows, 0]),
            list_of(ids(cells.documents[where]), row, len(rows)),
            list_of(pa.array(cells.scores[where]), row, len(rows)),
            list_of(cells.grades_of(*where), row, len(rows)),
        ],
        schema=NEGATIVES,
    )
