"""Reasons for judgments: a teacher says in a sentence why a document has its grade for a query.

A score model can be trained to write the reason as well as the grade (arXiv 2509.16717; as tasks
beside each other, arXiv 2305.02301).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ssra_engine.config import Config
from ssra_engine.corpus import Corpus, open_corpus
from ssra_engine.engines.engine import Engine
from ssra_engine.errors import DataError
from ssra_engine.isolation import isolate_failures
from ssra_engine.judgments import read_split
from ssra_engine.keys import hash_strings, mix
from ssra_engine.prompts import TEMPLATES
from ssra_engine.readers import blank, files_key
from ssra_engine.reasons import KEPT, decode_reasons, reason_code
from ssra_engine.schema import CORPUS, RATIONALES, REJECTED_RATIONALES
from ssra_engine.shards import Shard
from ssra_engine.stages.filter import document_forms
from ssra_engine.steps import Progress
from ssra_engine.teaching.assignment import Assignment, Outcome, fulfil, staged_schema
from ssra_engine.teaching.teacher import Asked, Teacher, ask

__all__ = ["rationale"]

_log = logging.getLogger(__name__)

_STAGED = staged_schema(RATIONALES, REJECTED_RATIONALES)


def rationale(
    config: Config,
    corpus: Sequence[str | Path],
    judgments: Sequence[str | Path],
    teacher: Teacher,
    output: str | Path,
    progress: Progress | None = None,
) -> Outcome:
    """Give reasons for judged pairs; go on where an earlier call was stopped.

    Judgments that have a reason keep it, and are not asked about.

    Args:
        config: the tree; `rationale` says how, and of which split.
        corpus: documents; see `open_corpus`.
        judgments: graded rows; see `read_judgments`.
        teacher: the model that writes.
        output: the output folder: ``judgments/`` (`schema.RATIONALES`, all rows in order),
            ``rejected/`` (`schema.REJECTED_RATIONALES`) and the papers of a run; see `store`.
        progress: told what happens, in judgments.

    Raises:
        DataError: a document or a row cannot be used, or no row is in the split.
        ConfigError, EngineError, StoreError: see `fulfil`.
    """
    opened = open_corpus(corpus, limit=config.input.limit, on_error=config.input.on_error)
    opened.check()
    wanted = read_split(judgments, config.grades, "all")["doc_id"].unique()
    documents = _judged_documents(opened, wanted)
    judged = read_split(
        judgments, config.grades, "all", doc_ids=documents["doc_id"], rationales=True
    )
    if "rationale" not in judged.column_names:
        judged = judged.append_column("rationale", pa.nulls(len(judged), pa.string()))
    _check_split(judged, config.rationale.split, str(judgments[0]))
    rows = judged.combine_chunks().to_batches(max_chunksize=config.output.shard_documents)
    assignment = Assignment(
        name="rationale",
        output="judgments",
        kept=RATIONALES,
        rejected=REJECTED_RATIONALES,
        rows=len(judged),
        shards=lambda: (Shard(index, batch) for index, batch in enumerate(rows)),
        answer=lambda shard, engine, tick: _explain_shard(shard, documents, engine, config, tick),
        inputs=lambda: opened.fingerprint() + files_key(judgments),
    )
    return fulfil(config, assignment, teacher, output, progress)


def _check_split(judged: pa.Table, split: str, file: str) -> None:
    names = pc.unique(judged["split"]).to_pylist()
    if split not in ("all", *names):
        raise DataError(
            f"no row is in the split {split}; the splits are: {', '.join(sorted(names))[:300]}",
            file=file,
            column="split",
            mend="Give one of these, or all",
        )


def _judged_documents(corpus: Corpus, wanted: pa.Array) -> pa.Table:
    """The documents of `wanted` that are there, `schema.CORPUS`."""
    parts = (batch.filter(pc.is_in(batch.column("doc_id"), wanted)) for batch in corpus.batches())
    return pa.Table.from_batches(parts, CORPUS).combine_chunks()


def _explain_shard(
    shard: Shard,
    documents: pa.Table,
    engine: Engine,
    config: Config,
    tick: Callable[[float], None],
) -> pa.Table:
    rows = shard.documents

    def work(start: int, stop: int) -> pa.Table:
        part = rows.slice(start, stop - start)
        return _explain(part, documents, engine, config, lambda done: tick(start + done))

    def failed(row: int, message: str) -> pa.Table:
        part = rows.slice(row, 1)
        _log.warning("a judgment of %s failed: %s", part.column("doc_id")[0], message)
        code = np.array([reason_code("error")], np.int8)
        return _staged(part, np.array([True]), code, message=pa.array([message]))

    return isolate_failures(len(rows), work, failed)


def _explain(
    rows: pa.RecordBatch,
    documents: pa.Table,
    engine: Engine,
    config: Config,
    tick: Callable[[float], None],
) -> pa.Table:
    settings = config.rationale
    codes = np.full(len(rows), KEPT, np.int8)
    asked = np.full(len(rows), settings.split == "all")
    asked |= pc.equal(rows.column("split"), settings.split).to_numpy(zero_copy_only=False)
    asked &= np.asarray(
        pc.fill_null(blank(rows.column("rationale")), True).to_numpy(zero_copy_only=False)
    )
    if not asked.any():
        return _staged(rows, asked, codes)
    chosen, order = _by_document(rows, asked)
    about = _rows_of(documents, chosen.column("doc_id").unique())
    done = 0

    def count(answered: int) -> None:
        nonlocal done
        done += answered
        tick(done * len(rows) / len(chosen))

    template = TEMPLATES[settings.prompts]
    queries, grades = chosen.column("query"), chosen.column("grade").to_pylist()
    pairs = mix(hash_strings(queries, config.seed), hash_strings(chosen.column("doc_id")))
    questions = Asked(
        prefixes=template.documents(about),
        document=_places(about, chosen),
        suffixes=template.rationale_suffixes(queries, grades, len(config.grades)),
        seeds=pairs,
        forms=document_forms(about, settings.max_chars),
    )
    answers = ask(engine, questions, settings, count)
    codes[order] = answers.codes
    place = np.zeros(len(rows), np.int64)
    place[order] = np.arange(len(order))
    tokens = np.zeros(len(rows), np.int32)
    tokens[order] = answers.tokens
    written = answers.texts.take(pa.array(place, mask=~asked))
    return _staged(
        rows,
        asked,
        codes,
        rationale=pc.if_else(pa.array(asked & (codes == KEPT)), written, rows.column("rationale")),
        written=written,
        tokens=pa.array(tokens),
    )


def _by_document(rows: pa.RecordBatch, asked: np.ndarray) -> tuple[pa.RecordBatch, np.ndarray]:
    """The rows to ask about, those of a document side by side, and where each stood."""
    encoded = rows.column("doc_id").dictionary_encode().indices.to_numpy()
    order = np.flatnonzero(asked)
    order = order[np.argsort(encoded[order], kind="stable")]
    return rows.take(pa.array(order)), order


def _rows_of(documents: pa.Table, doc_ids: pa.Array) -> pa.RecordBatch:
    places = pc.index_in(doc_ids, documents["doc_id"].combine_chunks())
    (batch,) = documents.take(places).combine_chunks().to_batches()
    return batch


def _places(about: pa.RecordBatch, chosen: pa.RecordBatch) -> np.ndarray:
    places = pc.index_in(chosen.column("doc_id"), about.column("doc_id"))
    return np.asarray(places.to_numpy(), np.int32)


def _staged(rows: pa.RecordBatch, asked: np.ndarray, codes: np.ndarray, **known: Any) -> pa.Table:
    known = {
        **{name: rows.column(name) for name in RATIONALES.names},
        "keep": pa.array(np.ones(len(rows), bool)),
        "asked": pa.array(asked),
        "reason": decode_reasons(codes),
        "tokens": pa.array(np.zeros(len(rows), np.int32)),
        **known,
    }
    columns = [known.get(field.name, pa.nulls(len(rows), field.type)) for field in _STAGED]
    return pa.Table.from_arrays(columns, schema=_STAGED)
