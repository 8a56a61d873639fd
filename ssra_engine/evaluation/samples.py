"""The synthetic samples of a run: what was kept, how varied they are, and how true."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ssra_engine.corpus import open_corpus
from ssra_engine.evaluation.diversity import diversity, words
from ssra_engine.evaluation.oracle import agreement, oracle_grades, read_facets
from ssra_engine.evaluation.outputs import (
    SAMPLES,
    Outputs,
    Part,
    document_files,
    open_outputs,
    read_samples,
)
from ssra_engine.keys import hash_strings, normalise
from ssra_engine.reasons import KEPT
from ssra_engine.schema import DOCUMENT_TEXT_COLUMNS, REASONS
from ssra_engine.tally import describe

__all__ = ["evaluate_samples"]

# The oracle of the simulated world grades on this scale.
_ORACLE_SCALE = (0, 1, 2, 3)


@dataclass(frozen=True)
class _Documents:
    """What the evaluation knows of some documents, by doc_id."""

    words: dict[str, frozenset[str]]
    facets: dict[str, dict[str, Any]]


def evaluate_samples(
    folder: str | Path, corpus: Sequence[str] = (), *, documents: int = 20_000
) -> dict[str, Any]:
    """Measure the output of a finished run.

    The counts are of all samples; diversity and the oracle look at those of a sample of the
    documents, the ones with the smallest hashes, which include those of the first round.

    Args:
        folder: output folder.
        corpus: the documents of the run; by default the files that it recorded.
        documents: size of the sample, about.

    Returns:
        plain JSON values: output, simulated, funnel (of each part: name, model, counts as in
        summary.json), diversity (rows: part, set, target, and `diversity.diversity`), oracle (rows:
        part, model, documents, and `oracle.agreement`; null where the world is not simulated).

    Raises:
        StoreError: the folder is not the output of a finished run.
        DataError: the corpus cannot be read, or is not the one of the run.
    """
    outputs = open_outputs(Path(folder))
    inputs = document_files(outputs, corpus)
    funnel, tables = _read_parts(outputs, documents)
    wanted = pa.chunked_array([table.column("doc_id") for table in tables]).unique()
    known = _read_documents(outputs, inputs, wanted)
    simulated = bool(known.facets)
    graded = simulated and outputs.config.grades == _ORACLE_SCALE
    return {
        "output": str(folder),
        "simulated": simulated,
        "documents": len(known.words),
        "funnel": funnel,
        "diversity": _diversity(outputs, tables, known),
        "oracle": _agreements(outputs, tables, known) if graded else None,
    }


def _read_parts(outputs: Outputs, documents: int) -> tuple[list[dict[str, Any]], list[pa.Table]]:
    """Counts of each part, and its samples (`SAMPLES`) on the sampled documents."""
    funnel, tables = [], []
    first_round: pa.Array | None = None
    for part in outputs.parts:
        counts, table = _read_part(part, outputs.config.targets, documents, first_round)
        name = {"part": part.name, "model": part.model}
        funnel.append({**name, **describe(counts, outputs.config.targets)})
        tables.append(table)
        if first_round is None:
            first_round = table.column("doc_id").unique()
    return funnel, tables


def _read_part(
    part: Part, targets: tuple[int, ...], documents: int, more: pa.Array | None
) -> tuple[np.ndarray, pa.Table]:
    share = min(1.0, documents / max(part.documents, 1))
    most = np.uint64(min(int(share * 2**64), 2**64 - 1))
    fates = 1 + len(REASONS)
    counts, tables = np.zeros((len(targets), fates), np.int64), [SAMPLES.empty_table()]
    for table in read_samples(part):
        fate = table.column("reason").to_numpy().astype(np.int64) - KEPT
        row = np.searchsorted(targets, table.column("target").to_numpy())
        counts += np.bincount(row * fates + fate, minlength=counts.size).reshape(counts.shape)
        doc_ids = table.column("doc_id").combine_chunks()
        chosen = hash_strings(doc_ids) <= most
        if more is not None:
            chosen |= pc.is_in(doc_ids, more).to_numpy(zero_copy_only=False)
        tables.append(table.filter(pa.array(chosen)))
    return counts, pa.concat_tables(tables)


def _read_documents(outputs: Outputs, inputs: Sequence[str], wanted: pa.Array) -> _Documents:
    settings = outputs.config.input
    known = _Documents({}, read_facets(inputs, wanted))
    corpus = open_corpus(inputs, limit=settings.limit, on_error=settings.on_error)
    for batch in corpus.batches():
        found = batch.filter(pc.is_in(batch.column("doc_id"), wanted))
        texts = pc.binary_join_element_wise(*map(found.column, DOCUMENT_TEXT_COLUMNS), " ")
        pairs = zip(found.column("doc_id").to_pylist(), normalise(texts).to_pylist(), strict=True)
        known.words.update((doc_id, frozenset(words(text))) for doc_id, text in pairs)
    return known


def _diversity(
    outputs: Outputs, tables: Sequence[pa.Table], known: _Documents
) -> list[dict[str, Any]]:
    report = []
    for part, table in zip(outputs.parts, tables, strict=True):
        written = table.filter(pc.not_equal(table.column("query"), ""))
        kept = table.filter(pc.equal(table.column("reason"), KEPT))
        sets: list[tuple[str, int | None, pa.Table]] = [
            ("generated", None, written),
            ("kept", None, kept),
        ]
        for grade in outputs.config.targets:
            sets.append(("kept", grade, kept.filter(pc.equal(kept.column("target"), grade))))
        for name, target, rows in sets:
            queries = normalise(rows.column("query").combine_chunks()).to_pylist()
            of_documents = [known.words[doc_id] for doc_id in rows.column("doc_id").to_pylist()]
            similarity = outputs.config.filter.similarity
            figures = diversity(queries, of_documents, similarity=similarity)
            report.append({"part": part.name, "set": name, "target": target, **figures})
    return report


def _agreements(
    outputs: Outputs, tables: Sequence[pa.Table], known: _Documents
) -> list[dict[str, Any]]:
    """Agreement of each part; the first and the last are compared on the documents of both."""
    doc_ids = [table.column("doc_id").unique() for table in tables]
    of_world = pa.array(list(known.facets), pa.string())
    doc_ids = [one.filter(pc.is_in(one, of_world)) for one in doc_ids]
    shared = doc_ids[0].filter(pc.is_in(doc_ids[0], doc_ids[-1]))
    last, report = len(tables) - 1, []
    for number, (part, table) in enumerate(zip(outputs.parts, tables, strict=True)):
        among = shared if number in (0, last) else doc_ids[number]
        rows = table.filter(pc.is_in(table.column("doc_id"), among))
        truth = oracle_grades(rows, known.facets)
        name = {"part": part.name, "model": part.model, "documents": len(among)}
        found = agreement(rows, truth, outputs.config.targets, part.first_wave)
        report += [{**name, **row} for row in found]
    return report
