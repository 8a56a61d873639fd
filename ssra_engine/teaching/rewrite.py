"""Stage 0: a teacher writes one description of each document from its title, text, OCR and ASR.

The document is then its title and the description (arXiv 2509.16717, whose videos have no text of
their own). A document without OCR and ASR has nothing to be gathered and stays as it is, and so
does one whose description is of no use: every document of the input comes out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ssra_engine.config import Config
from ssra_engine.corpus import Corpus, open_corpus
from ssra_engine.engines.engine import Engine
from ssra_engine.isolation import isolate_failures
from ssra_engine.keys import hash_strings
from ssra_engine.prompts import TEMPLATES
from ssra_engine.readers import blank
from ssra_engine.reasons import KEPT, decode_reasons, reason_code
from ssra_engine.schema import CORPUS, DESCRIPTION_REASONS, REJECTED_DESCRIPTIONS
from ssra_engine.shards import Shard
from ssra_engine.stages.filter import document_forms
from ssra_engine.steps import Progress
from ssra_engine.teaching.assignment import Assignment, Outcome, fulfil, staged_schema
from ssra_engine.teaching.overlap import overlap
from ssra_engine.teaching.teacher import Answers, Asked, Teacher, ask

__all__ = ["rewrite", "rewrite_shard"]

_log = logging.getLogger(__name__)

_STAGED = staged_schema(CORPUS, REJECTED_DESCRIPTIONS)


def rewrite(
    config: Config,
    inputs: Sequence[str | Path],
    teacher: Teacher,
    output: str | Path,
    progress: Progress | None = None,
) -> Outcome:
    """Describe documents; go on where an earlier call was stopped.

    Args:
        config: the tree; `rewrite` says how.
        inputs: see `open_corpus`.
        teacher: the model that writes.
        output: the output folder: ``corpus/`` (`schema.CORPUS`, every usable document in order),
            ``rejected/`` (`schema.REJECTED_DESCRIPTIONS`) and the papers of a run; see `store`.
        progress: told what happens.

    Raises:
        DataError: a document cannot be used.
        ConfigError, EngineError, StoreError: see `fulfil`.
    """
    corpus = open_corpus(inputs, limit=config.input.limit, on_error=config.input.on_error)
    assignment = Assignment(
        name="rewrite",
        output="corpus",
        kept=CORPUS,
        rejected=REJECTED_DESCRIPTIONS,
        rows=corpus.check().documents,
        shards=lambda: _shards(corpus, config.output.shard_documents),
        answer=lambda shard, engine, tick: rewrite_shard(shard, engine, config, tick),
        inputs=corpus.fingerprint,
    )
    return fulfil(config, assignment, teacher, output, progress)


def _shards(corpus: Corpus, documents: int) -> Iterator[Shard]:
    for index, (batch, bad) in enumerate(corpus.batches_with_errors(documents)):
        yield Shard(index, batch, bad)


def rewrite_shard(
    shard: Shard, engine: Engine, config: Config, tick: Callable[[float], None]
) -> pa.Table:
    """The documents of a shard with their descriptions, in order, then those that are bad.

    Each row is a function of its document, the teacher and the settings.

    Returns:
        rows of `staged_schema(CORPUS, REJECTED_DESCRIPTIONS)`.

    Raises:
        EngineError: the engine fails at the first documents one by one, or is gone.
    """
    documents = shard.documents

    def work(start: int, stop: int) -> pa.Table:
        part = documents.slice(start, stop - start)
        return _rewrite(part, engine, config, lambda done: tick(start + done))

    def failed(row: int, message: str) -> pa.Table:
        part = documents.slice(row, 1)
        _log.warning("document %s failed: %s", part.column("doc_id")[0], message)
        return _failed(part.to_pydict(), [message], keep=True)

    table = isolate_failures(len(documents), work, failed)
    if shard.bad is not None and len(shard.bad):
        bad = shard.bad.to_pydict()
        table = pa.concat_tables([table, _failed(bad, bad.pop("message"), keep=False)])
    return table


def _rewrite(
    rows: pa.RecordBatch, engine: Engine, config: Config, tick: Callable[[float], None]
) -> pa.Table:
    settings = config.rewrite
    asked = ~(_blank(rows, "ocr") & _blank(rows, "asr"))
    scattered = rows.filter(pa.array(asked))
    template = TEMPLATES[settings.prompts]
    done = 0

    def count(answered: int) -> None:
        nonlocal done
        done += answered
        tick(done * len(rows) / len(scattered))

    if len(scattered) == 0:
        return _staged(rows, asked)
    questions = Asked(
        prefixes=template.documents(scattered),
        document=np.arange(len(scattered), dtype=np.int32),
        suffixes=pa.array([template.rewrite_suffix()] * len(scattered), pa.string()),
        seeds=hash_strings(scattered.column("doc_id"), config.seed),
        forms=document_forms(scattered, settings.max_chars),
    )
    answers = ask(engine, questions, settings, count)
    place = pa.array(np.cumsum(asked) - 1, mask=~asked)
    codes = np.full(len(rows), KEPT, np.int8)
    codes[asked] = _check_related(answers, scattered, settings.min_overlap)
    tokens = np.zeros(len(rows), np.int32)
    tokens[asked] = answers.tokens
    description = answers.texts.take(place)
    used = pa.array(asked & (codes == KEPT))
    gone = used if not settings.keep_ocr_asr else pa.array(np.zeros(len(rows), bool))
    return _staged(
        rows,
        asked,
        text=pc.if_else(used, description, rows.column("text")),
        ocr=pc.if_else(gone, "", rows.column("ocr")),
        asr=pc.if_else(gone, "", rows.column("asr")),
        description=description,
        reason=decode_reasons(codes, DESCRIPTION_REASONS),
        tokens=pa.array(tokens),
    )


def _check_related(answers: Answers, documents: pa.RecordBatch, least: float) -> np.ndarray:
    """The codes of `answers`, and `unrelated` where one has too little of its document."""
    foreign = overlap(answers.texts, documents) < least
    related: np.ndarray = np.where(
        foreign & (answers.codes == KEPT), reason_code("unrelated"), answers.codes
    )
    return related


def _blank(rows: pa.RecordBatch, column: str) -> np.ndarray:
    return np.asarray(blank(rows.column(column)).to_numpy(zero_copy_only=False))


def _staged(rows: pa.RecordBatch, asked: np.ndarray, **known: pa.Array) -> pa.Table:
    known = {
        **{name: rows.column(name) for name in CORPUS.names},
        "keep": pa.array(np.ones(len(rows), bool)),
        "asked": pa.array(asked),
        "tokens": pa.array(np.zeros(len(rows), np.int32)),
        "reason": decode_reasons(np.full(len(rows), KEPT, np.int8), DESCRIPTION_REASONS),
        **known,
    }
    columns = [known.get(field.name, pa.nulls(len(rows), field.type)) for field in _STAGED]
    return pa.Table.from_arrays(columns, schema=_STAGED)


def _failed(columns: dict[str, list[str | None]], messages: list[str], *, keep: bool) -> pa.Table:
    rows = len(messages)
    code = np.full(rows, reason_code("error"), np.int8)
    facts = {"keep": [keep] * rows, "asked": [keep] * rows, "tokens": [0] * rows}
    known = columns | {"message": messages} | facts
    arrays = [
        decode_reasons(code, DESCRIPTION_REASONS)
        if field.name == "reason"
        else pa.array(known.get(field.name, [None] * rows), field.type)
        for field in _STAGED
    ]
    return pa.Table.from_arrays(arrays, schema=_STAGED)
