"""The layouts: what goes where. Each takes the stream of `rows.Export.pairs` and writes files."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ssra_engine.errors import DataError
from ssra_engine.export.card import Counts, card
from ssra_engine.export.files import Files
from ssra_engine.export.guideline import guideline
from ssra_engine.export.rows import Export, split_names
from ssra_engine.schema import DOCUMENT_TEXT_COLUMNS

__all__ = ["LAYOUTS"]


def _pairs(export: Export, files: Files) -> None:
    """sentence1, sentence2, score from 0 to 1: CoSENT and cosine losses, and their evaluators."""
    highest = export.outputs.config.grades[-1]
    for _, rows in export.pairs():
        score = pc.divide(pc.cast(rows["grade"], pa.float32()), pa.scalar(highest, pa.float32()))
        table = pa.table(
            {"sentence1": rows["query"], "sentence2": rows["document"], "score": score}
        )
        files.parquet("train.parquet", table)


def _triplets(export: Export, files: Files) -> None:
    """anchor (a document), positive and negative: two of its queries, the positive graded higher.

    The lower grade of the scale's upper half is the least that a positive has.
    """
    least = (export.outputs.config.grades[-1] + 1) // 2
    schema = pa.schema([(name, pa.string()) for name in ("anchor", "positive", "negative")])
    for _, rows in export.pairs():
        files.parquet("train.parquet", _contrasts(rows, least).cast(schema))


def _contrasts(rows: pa.Table, least: int) -> pa.Table:
    """Every pair of queries of one document with different grades; rows of one lie together."""
    grades = rows["grade"].to_numpy()
    encoded = rows["doc_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    ends = np.flatnonzero(np.diff(encoded)) + 1
    picked = []
    for group in np.split(np.arange(len(rows)), ends):
        for one, other in combinations(group.tolist(), 2):
            high, low = (one, other) if grades[one] > grades[other] else (other, one)
            if grades[high] >= least and grades[high] > grades[low]:
                picked.append((high, low))
    high, low = np.array(picked, np.int64).reshape(-1, 2).T
    return pa.table(
        {
            "anchor": rows["document"].take(pa.array(high)),
            "positive": rows["query"].take(pa.array(high)),
            "negative": rows["query"].take(pa.array(low)),
        }
    )


def _beir(export: Export, files: Files) -> None:
    """corpus.jsonl, queries.jsonl and qrels/<split>.tsv, as BEIR reads them."""
    for name in split_names(export):
        files.tsv(f"qrels/{name}.tsv", _qrels(export, pa.table({}), None))
    for batch, rows in export.pairs():
        _check_ids(export, batch)
        files.jsonl("corpus.jsonl", _corpus(batch))
        files.jsonl("queries.jsonl", _queries(rows))
        for name in split_names(export):
            files.tsv(f"qrels/{name}.tsv", _qrels(export, rows, name))


def _mteb(export: Export, files: Files) -> None:
    """Configurations corpus, queries and default (the qrels), as MTEB's retrieval tasks read."""
    for batch, rows in export.pairs():
        files.parquet("corpus/corpus.parquet", _corpus(batch))
        files.parquet("queries/queries.parquet", _queries(rows))
        for name in split_names(export):
            files.parquet(f"qrels/{name}.parquet", _qrels(export, rows, name))
    qrels = {name: f"qrels/{name}.parquet" for name in split_names(export)}
    files.text(
        "README.md",
        card(
            export,
            None,
            {
                "default": qrels,
                "corpus": {"corpus": "corpus/corpus.parquet"},
                "queries": {"queries": "queries/queries.parquet"},
            },
        ),
    )


def _hf(export: Export, files: Files) -> None:
    """One split of queries with their documents and grades, for `datasets.load_dataset`."""
    for _, rows in export.pairs():
        files.parquet("data/train.parquet", rows.drop_columns(["split", "first"]))
    files.text("README.md", card(export, None, {"default": {"train": "data/train.parquet"}}))


def _dataset(export: Export, files: Files) -> None:
    """A graded dataset to publish: disjoint splits, documents, card and guideline."""
    counts: Counts = {name: {} for name in split_names(export)}
    for batch, rows in export.pairs():
        files.parquet("corpus/corpus.parquet", pa.Table.from_batches([batch]))
        for name in split_names(export):
            mine = rows.filter(pc.equal(rows["split"], name))
            files.parquet(f"data/{name}.parquet", mine.drop_columns(["split", "first"]))
            for one in pc.value_counts(mine["grade"].combine_chunks()).to_pylist():
                so_far = counts[name].get(one["values"], 0)
                counts[name][one["values"]] = so_far + one["counts"]
    data = {name: f"data/{name}.parquet" for name in split_names(export)}
    configs = {"default": data, "corpus": {"corpus": "corpus/corpus.parquet"}}
    files.text("README.md", card(export, counts, configs))
    files.text("GUIDELINE.md", guideline(export.outputs.config.grades))


def _corpus(batch: pa.RecordBatch) -> pa.Table:
    rest = [pc.utf8_trim_whitespace(batch.column(name)) for name in DOCUMENT_TEXT_COLUMNS[1:]]
    filled = [pc.if_else(pc.equal(text, ""), None, text) for text in rest]
    # Arrow leaves out a row of nothing but nulls, so each begins with an empty text.
    empty = pa.array([""] * len(batch), pa.string())
    text = pc.binary_join_element_wise(empty, *filled, "\n", null_handling="skip")
    text = pc.utf8_trim_whitespace(text)
    return pa.table({"_id": batch.column("doc_id"), "title": batch.column("title"), "text": text})


def _queries(rows: pa.Table) -> pa.Table:
    first = rows.filter(rows["first"])
    return pa.table({"_id": first["query_id"], "text": first["query"]})


def _qrels(export: Export, rows: pa.Table, split: str | None) -> pa.Table:
    names = ["query-id", "corpus-id", "score"]
    schema = pa.schema(list(zip(names, (pa.string(), pa.string(), pa.int32()), strict=True)))
    if split is None:
        return schema.empty_table()
    mine = rows.filter(pc.equal(rows["split"], split))
    return pa.table(
        [mine["query_id"], mine["doc_id"], mine["grade"].cast(pa.int32())], schema=schema
    )


def _check_ids(export: Export, batch: pa.RecordBatch) -> None:
    ids = batch.column("doc_id")
    bad = ids.filter(pc.match_substring_regex(ids, r"[\t\r\n]"))
    if len(bad):
        raise DataError(
            f"{bad[0].as_py()!r} holds a tab or a line break, which a TSV of qrels cannot",
            file=export.inputs[0],
            column="doc_id",
            mend="Rename the document, or take --format mteb",
        )


#: Formats by name.
LAYOUTS: dict[str, Callable[[Export, Files], None]] = {
    "triplets": _triplets,
    "pairs": _pairs,
    "beir": _beir,
    "mteb": _mteb,
    "hf": _hf,
    "dataset": _dataset,
}
