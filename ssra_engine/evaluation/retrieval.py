"""An embedding model measured on graded judgments: at each dim and precision, alone or compared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ssra_engine.corpus import open_corpus
from ssra_engine.durable import put_file
from ssra_engine.errors import DataError
from ssra_engine.evaluation.embedding import (
    at_precision,
    check_dims,
    document_texts,
    embed,
    load_model,
    truncate,
)
from ssra_engine.evaluation.lists import JudgedPairs, judged_pairs
from ssra_engine.evaluation.measuring import (
    Figures,
    Settings,
    compare,
    measure,
    relevant_grade,
    summarise,
    thresholds,
)
from ssra_engine.judgments import read_split
from ssra_engine.schema import CORPUS

__all__ = [
    "Evaluation",
    "Judged",
    "check_lists",
    "evaluate_model",
    "judged_texts",
    "read_judged",
    "write_evaluation",
]

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Judged:
    """Judgments of one split and the texts they are about.

    Attributes:
        queries: Q texts.
        documents: N texts.
        pairs: of both.
        split: where the judgments come from.
    """

    queries: list[str]
    documents: list[str]
    pairs: JudgedPairs
    split: str


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate_model` found.

    Attributes:
        report: plain JSON values.
        per_query: one row per model, dim, precision and query: model, dim, precision, query, judged
            (documents), and a column for each figure, null where the query has none.
    """

    report: dict[str, Any]
    per_query: pa.Table


@dataclass(frozen=True)
class _Variant:
    model: str
    dim: int
    precision: str
    figures: Figures


def read_judged(
    corpus: Sequence[str | Path],
    judgments: Sequence[str | Path],
    grades: Sequence[int],
    split: str,
    settings: Settings,
) -> Judged:
    """Read and check the input of `evaluate_model`.

    Args:
        corpus: files of documents.
        judgments: files of judgments.
        grades: the scale.
        split: name of a split, or "all".
        settings: in judged mode only judged documents are kept.

    Raises:
        DataError: a file or a row is bad, a document is missing or twice there, no row is in the
            split, or no list is long enough.
    """
    opened = open_corpus(corpus)
    opened.check()
    ids = pa.chunked_array([batch.column("doc_id") for batch in opened.batches()], pa.string())
    table = read_split(judgments, grades, split, doc_ids=ids, seed=settings.seed)
    batches = opened.batches()
    if settings.mode == "judged":
        wanted = pc.unique(table["doc_id"])
        batches = (one.filter(pc.is_in(one.column("doc_id"), wanted)) for one in batches)
    documents = pa.Table.from_batches(batches, schema=CORPUS)
    judged = judged_texts(documents, table, split, seed=settings.seed)
    if settings.mode == "judged":
        check_lists(judged, settings.min_list)
    return judged


def judged_texts(documents: pa.Table, judgments: pa.Table, split: str, *, seed: int = 0) -> Judged:
    """Tables that were read, as the input of `evaluate_model`.

    Args:
        documents: `schema.CORPUS`, with all that are judged.
        judgments: `schema.JUDGMENTS`, one row or more.
        split: what they are called.
        seed: of the order of ties.
    """
    queries = judgments["query"].combine_chunks().dictionary_encode()
    doc_ids = documents["doc_id"].combine_chunks()
    pairs = judged_pairs(
        queries.indices.to_numpy().astype(np.int64),
        pc.index_in(judgments["doc_id"].combine_chunks(), doc_ids).to_numpy().astype(np.int64),
        judgments["grade"].to_numpy().astype(np.int64),
        doc_ids,
        seed,
    )
    texts = document_texts(documents).to_pylist()
    return Judged(queries.dictionary.to_pylist(), texts, pairs, split)


def check_lists(judged: Judged, min_list: int) -> None:
    """See that some query has enough judged documents.

    Raises:
        DataError: none has.
    """
    longest = int(np.bincount(judged.pairs.query).max())
    if longest < min_list:
        where = f" of the split {judged.split}" if judged.split else ""
        raise DataError(
            f"no query{where} has {min_list} judged documents; the longest list has {longest}",
            mend="Ask for shorter lists (--min-list)",
        )


def evaluate_model(
    folder: str | Path,
    judged: Judged,
    settings: Settings,
    *,
    against: str | Path | None = None,
    batch_size: int = 32,
    query_prompt: str | None = None,
    document_prompt: str | None = None,
    progress: bool = False,
) -> Evaluation:
    """Measure a model, and where another one is given, test the difference.

    Scores are cosines of prefixes at each dim. Document vectors are held in memory: N x D float32.

    Args:
        folder: of a sentence-transformers model.
        judged: of `read_judged`.
        settings: what to measure.
        against: another model, at the same dims, or its whole vector.
        batch_size: texts at a time.
        query_prompt: in place of the model's own, for both models.
        document_prompt: the same for documents.
        progress: show bars on standard error.

    Returns:
        the report (data, settings, models, results: a row per model, dim and precision with
        `measuring.summarise`; comparisons: a row per dim and precision with `measuring.compare`)
        and the figures per query.

    Raises:
        EngineError: a folder is no model, or a model gives NaN.
        ConfigError: a dim is larger than a model's.
    """
    prompts = {"query_prompt": query_prompt, "document_prompt": document_prompt}
    models, variants = [], []
    # Both are opened before the first is measured, so that a wrong one is told at once.
    folders = [str(folder)] + ([] if against is None else [str(against)])
    opened = [load_model(one) for one in folders]
    for name, model in zip(folders, opened, strict=True):
        width = int(model.get_embedding_dimension() or 0)
        check_dims(settings.dims, width or max(settings.dims, default=1), name)
    for name, model in zip(folders, opened, strict=True):
        vectors = embed(
            model,
            judged.queries,
            judged.documents,
            batch_size=batch_size,
            progress=progress,
            **prompts,
        )
        variants.append(_variants(name, vectors, judged.pairs, settings))
        models.append({"folder": name, "dim": vectors[0].shape[1]})
    rows = [one for of_model in variants for one in of_model]
    report = {
        **_facts(judged, settings),
        "prompts": prompts,
        "models": models,
        "results": [
            {**_name(one), **summarise(one.figures, judged.pairs, settings)} for one in rows
        ],
        "comparisons": [
            {
                **_name(ours),
                "against": theirs.model,
                "against_dim": theirs.dim,
                **compare(ours.figures, theirs.figures, judged.pairs, settings),
            }
            for ours, theirs in zip(*variants, strict=True)
        ]
        if against is not None
        else [],
    }
    return Evaluation(report, pa.concat_tables([_per_query(one, judged) for one in rows]))


def write_evaluation(evaluation: Evaluation, folder: str | Path) -> None:
    """Write report.json and queries.parquet.

    Raises:
        StoreError: the folder cannot be written.
    """
    report = json.dumps(evaluation.report, ensure_ascii=False, indent=1)
    put_file(Path(folder) / "report.json", f"{report}\n".encode())
    sink = pa.BufferOutputStream()
    pq.write_table(evaluation.per_query, sink, compression="zstd")
    put_file(Path(folder) / "queries.parquet", sink.getvalue())


def _variants(
    name: str, vectors: tuple[Floats, Floats], pairs: JudgedPairs, settings: Settings
) -> list[_Variant]:
    found = []
    for dim in check_dims(settings.dims, vectors[0].shape[1], name):
        queries, documents = (truncate(matrix, dim) for matrix in vectors)
        for precision in settings.precisions:
            stored = at_precision(queries, documents, precision)
            found.append(_Variant(name, dim, precision, measure(pairs, *stored, settings)))
    return found


def _name(variant: _Variant) -> dict[str, Any]:
    return {"model": variant.model, "dim": variant.dim, "precision": variant.precision}


def _facts(judged: Judged, settings: Settings) -> dict[str, Any]:
    pairs = judged.pairs
    grades, counts = np.unique(pairs.grade, return_counts=True)
    lengths = np.bincount(pairs.query)
    return {
        "split": judged.split,
        "queries": pairs.queries,
        "queries_with_long_lists": int((lengths >= settings.min_list).sum()),
        "documents": len(judged.documents),
        "pairs": len(pairs.grade),
        "grades": dict(zip(map(str, grades.tolist()), counts.tolist(), strict=True)),
        "ap_grades": list(thresholds(pairs)),
        "settings": {**asdict(settings), "relevant": relevant_grade(pairs, settings)},
    }


def _per_query(variant: _Variant, judged: Judged) -> pa.Table:
    count = judged.pairs.queries
    columns: dict[str, pa.Array] = {
        "model": pa.array([variant.model] * count, pa.string()),
        "dim": pa.array([variant.dim] * count, pa.int32()),
        "precision": pa.array([variant.precision] * count, pa.string()),
        "query": pa.array(judged.queries, pa.string()),
        "judged": pa.array(np.bincount(judged.pairs.query), pa.int32()),
    }
    for name, values in variant.figures.per_query.items():
        columns[name] = pa.array(values, pa.float64(), from_pandas=True)  # NaN becomes null
    return pa.table(columns)
