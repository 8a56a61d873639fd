"""Pairs to annotate where no click log exists: known queries retrieve documents by BM25."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ssra_engine.corpus import open_corpus
from ssra_engine.durable import put_file
from ssra_engine.errors import DataError
from ssra_engine.keys import normalise
from ssra_engine.readers import blank, check_columns, checked_cells, find_sources, read
from ssra_engine.schema import DOCUMENT_TEXT_COLUMNS, PAIRS

__all__ = ["find_candidates", "read_queries", "retrieve", "terms"]

_RUN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]+|[^\W\u3040-\u30ff\u3400-\u9fff]+")
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")


def terms(text: str) -> list[str]:
    """Terms of a normalised text: words, and pairs of neighbours where no space divides words.

    A run of Chinese or Japanese characters gives its bigrams, or itself if it is one character.
    """
    found: list[str] = []
    for run in _RUN.findall(text):
        if _CJK.match(run) and len(run) > 1:
            found += [first + second for first, second in pairwise(run)]
        else:
            found.append(run)
    return found


def retrieve(queries: Sequence[str], documents: Sequence[str], top: int) -> Iterator[np.ndarray]:
    """The best documents of each query by BM25 (the variant of Lucene, k1 1.5, b 0.75).

    Args:
        queries: normalised.
        documents: normalised.
        top: how many at most.

    Yields:
        for each query, rows of the documents that share a term with it, best first, those of equal
        score in their order, int64[<= top].
    """
    import bm25s

    index = bm25s.BM25(method="lucene", k1=1.5, b=0.75)
    index.index([terms(document) for document in documents], show_progress=False)
    for query in queries:
        known = [term for term in terms(query) if term in index.vocab_dict]
        if not known:
            yield np.empty(0, np.int64)
            continue
        scores = index.get_scores(known)
        rows = np.flatnonzero(scores > 0)
        yield rows[np.lexsort((rows, -scores[rows]))][:top]


def read_queries(inputs: Sequence[str | Path]) -> list[str]:
    """The column query of any tables, each query once, in the files' order.

    Raises:
        DataError: a file or a row is bad, or there is no query.
    """
    found: dict[str, None] = {}
    for source in find_sources(inputs):
        check_columns(source, ["query"])
        for rows in read(source, {"query": "text"}):
            cells, faults = checked_cells(source, rows, ["query"])
            for bad in (*rows.bad, *faults.values()):
                raise source.error(bad.problem, bad.mend, column=bad.column, place=bad.place)
            empty = pc.fill_null(blank(cells["query"]), True).to_numpy(zero_copy_only=False)
            if empty.any():
                place = int(rows.places[int(empty.argmax())])
                problem = "the cell is null or blank"
                raise source.error(problem, "Fill it in", column="query", place=place)
            found |= dict.fromkeys(cells["query"].to_pylist())
    if not found:
        raise DataError("there are no queries", file=str(inputs[0]), mend="Give a file with some")
    return list(found)


def find_candidates(
    corpus: Sequence[str | Path], queries: Sequence[str | Path], output: Path, top: int
) -> dict[str, int]:
    """Write `schema.PAIRS` of every query with its best documents, for `build --pairs`.

    Queries that the judgments hold out may be among them: `build` leaves their pairs out.

    Args:
        corpus: documents; see `open_corpus`.
        queries: see `read_queries`.
        output: an Arrow file.
        top: documents of a query, at most.

    Returns:
        queries, documents, pairs, and queries_without_documents.

    Raises:
        DataError: an input is bad.
        StoreError: `output` cannot be written.
    """
    texts = read_queries(queries)
    opened = open_corpus(corpus)
    opened.check()
    documents = opened.table()
    joined = pc.binary_join_element_wise(*map(documents.column, DOCUMENT_TEXT_COLUMNS), "\n")
    forms = normalise(joined.combine_chunks()).to_pylist()
    found = list(retrieve(normalise(pa.array(texts, pa.string())).to_pylist(), forms, top))
    counts = [len(rows) for rows in found]
    columns = [
        pa.array(np.repeat(np.array(texts, object), counts), pa.string()),
        documents.column("doc_id").combine_chunks().take(pa.array(np.concatenate(found))),
    ]
    table = pa.Table.from_arrays(columns, schema=PAIRS)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, PAIRS) as writer:
        writer.write_table(table)
    put_file(output, sink.getvalue())
    return {
        "queries": len(texts),
        "documents": len(documents),
        "pairs": len(table),
        "queries_without_documents": counts.count(0),
    }
