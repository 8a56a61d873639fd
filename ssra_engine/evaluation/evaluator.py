"""Graded judgments as an evaluator inside sentence-transformers training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from sentence_transformers.sentence_transformer.evaluation import SentenceEvaluator

from ssra_engine.errors import DataError
from ssra_engine.evaluation.embedding import (
    Precision,
    at_precision,
    check_dims,
    embed,
    truncate,
)
from ssra_engine.evaluation.lists import judged_pairs
from ssra_engine.evaluation.measuring import Settings, measure, summarise
from ssra_engine.evaluation.retrieval import Judged, check_lists

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["GradedEvaluator", "judged_columns"]


class GradedEvaluator(SentenceEvaluator):  # type: ignore[misc]  # sentence-transformers is untyped
    """nDCG over judged lists and average precision at each grade, during training.

    Give it to `SentenceTransformerTrainer(evaluator=...)`. The figures are those of
    `ssra-engine evaluate model`, without intervals; the primary one, by which the trainer chooses
    the best checkpoint, is the exponential nDCG at the last cutoff and the first dim.

    Args:
        judged: of `judged_columns`, or of `retrieval.read_judged` in judged mode.
        dims: Matryoshka dims; none means the whole vector.
        precision: of the documents.
        cutoffs: of nDCG and recall.
        min_list: shorter lists give no figures per query.
        batch_size: texts at a time.
        name: goes before the names of the figures.

    Raises:
        DataError: no list is long enough.
        ConfigError: an option makes no sense.
    """

    def __init__(
        self,
        judged: Judged,
        *,
        dims: Sequence[int] = (),
        precision: Precision = "float32",
        cutoffs: Sequence[int] = (5, 10),
        min_list: int = 10,
        batch_size: int = 32,
        name: str = "",
    ) -> None:
        super().__init__()
        check_lists(judged, min_list)
        self.batch_size = batch_size
        self.name = name
        self._judged = judged
        self._settings = Settings(
            dims=tuple(dims),
            precisions=(precision,),
            cutoffs=tuple(cutoffs),
            min_list=min_list,
            resamples=0,
        )

    def __call__(
        self,
        model: SentenceTransformer,
        output_path: str | None = None,
        epoch: int = -1,
        steps: int = -1,
    ) -> dict[str, float]:
        """Measure the model as it is; `output_path` is not used.

        Returns:
            name -> value, such as ndcg_exp@10, ap_mean and spearman of all pairs, with `dim<d>_`
            before it where there are several dims. Figures that are not defined are left out.

        Raises:
            EngineError: the model gives NaN.
            ConfigError: a dim is larger than the model's.
        """
        vectors = embed(
            model, self._judged.queries, self._judged.documents, batch_size=self.batch_size
        )
        dims = check_dims(self._settings.dims, vectors[0].shape[1], "the model")
        found: dict[str, float] = {}
        for dim in dims:
            before = f"dim{dim}_" if len(dims) > 1 else ""
            found |= {f"{before}{key}": value for key, value in self._figures(vectors, dim).items()}
        first = f"dim{dims[0]}_" if len(dims) > 1 else ""
        self.primary_metric = f"{first}ndcg_exp@{self._settings.cutoffs[-1]}"
        named: dict[str, float] = self.prefix_name_to_metrics(found, self.name)
        self.store_metrics_in_model_card_data(model, named, epoch, steps)
        return named

    def get_config_dict(self) -> dict[str, Any]:
        """What the model card says of the evaluation."""
        settings = self._settings
        return {
            "dims": list(settings.dims),
            "precision": settings.precisions[0],
            "cutoffs": list(settings.cutoffs),
            "min_list": settings.min_list,
        }

    def _figures(self, vectors: tuple[Any, Any], dim: int) -> dict[str, float]:
        stored = at_precision(
            truncate(vectors[0], dim), truncate(vectors[1], dim), self._settings.precisions[0]
        )
        figures = measure(self._judged.pairs, *stored, self._settings)
        summary = summarise(figures, self._judged.pairs, self._settings)
        # Where a figure is both a mean over queries and one of all pairs, the trainer gets the
        # latter: that is what the paper reports.
        values = {**summary["per_query"], **summary["pooled"]}
        return {name: one["value"] for name, one in values.items() if one["value"] is not None}


def judged_columns(
    queries: Sequence[str], documents: Sequence[str], grades: Sequence[int]
) -> Judged:
    """Judged pairs that are in memory, a row each; equal texts are one query or document.

    Args:
        queries: P texts.
        documents: P texts.
        grades: P grades, at least 0.

    Raises:
        DataError: the columns differ in length or are empty, a grade is below 0, or a pair is there
            twice.
    """
    lengths = (len(queries), len(documents), len(grades))
    if len(set(lengths)) > 1 or not lengths[0]:
        raise DataError(
            "queries, documents and grades are columns of one table, but they have "
            f"{lengths[0]}, {lengths[1]} and {lengths[2]} rows",
            mend="Give a query, a document and a grade for each judged pair",
        )
    columns = (pa.array(list(one), pa.string()).dictionary_encode() for one in (queries, documents))
    (query, query_texts), (document, document_texts) = (
        (one.indices.to_numpy().astype(np.int64), one.dictionary) for one in columns
    )
    grade = np.asarray(grades, np.int64)
    low = np.flatnonzero(grade < 0)
    if len(low):
        row = int(low[0])
        raise DataError(f"{grade[row]} is below 0", column="grades", row=row, mend="Map it")
    first = np.unique(query * len(document_texts) + document, return_index=True)[1]
    if len(first) < len(grade):
        row = int(np.setdiff1d(np.arange(len(grade)), first)[0])
        raise DataError("this pair came before", row=row, mend="Give each pair one grade")
    pairs = judged_pairs(query, document, grade, document_texts)
    return Judged(query_texts.to_pylist(), document_texts.to_pylist(), pairs, "")
