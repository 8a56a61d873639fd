"""One shard of documents through synthesis and the filters.

What a shard yields is a function of the job, the models, the seed and its documents only, and each
document's samples do not depend on the other documents: a shard cut in two gives the same rows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ssra_engine.budget import Budget
from ssra_engine.config import Config
from ssra_engine.engines.engine import Engine, Sampling
from ssra_engine.isolation import engine_call, isolate_failures
from ssra_engine.keys import hash_strings, mix, normalise
from ssra_engine.prompts import STOP, PromptTemplate, collapse_whitespace
from ssra_engine.reasons import KEPT, decode_reasons, reason_code
from ssra_engine.roles import Roles
from ssra_engine.schema import STAGED
from ssra_engine.stages.balance import affordable, count_accepted, likely_kept, shortfall
from ssra_engine.stages.compare import contradictions, expected_grade, prefer
from ssra_engine.stages.deduplicate import repeats, sample_keys
from ssra_engine.stages.filter import (
    DocumentForms,
    check_scores,
    check_text,
    document_forms,
    score,
)
from ssra_engine.stages.near_duplicates import near_repeats
from ssra_engine.stages.synthesize import Asked, ask, generate, request_batches, sample_seeds

__all__ = ["Job", "failed_documents", "synthesize_shard"]

_log = logging.getLogger(__name__)

_Tick = Callable[[float], None]


@dataclass(frozen=True)
class Job:
    """What is done with every shard of one part of the run.

    Attributes:
        config: of the run.
        roles: prompts, labels and calibration.
        query: the query model of this round.
        score: the score model.
        round_number: version of the query model, 0 for the one that `build` made.
        per_grade: accepted samples wanted per document and target grade.
        attempts: waves of sampling.
        comparator: judges pairs of queries; None leaves that to the score model's grades.
        budget: of samples or tokens over all documents; None, or seconds, for no limit here.
        documents: how many share the budget.
        acceptance: chance of a sample to be kept at each target, before anything is known of the
            document, float64[targets]; says which samples come first where the budget is short.
    """

    config: Config
    roles: Roles
    query: Engine
    score: Engine
    round_number: int
    per_grade: int
    attempts: int
    comparator: Engine | None = None
    budget: Budget | None = None
    documents: int = 0
    acceptance: np.ndarray | None = None


def synthesize_shard(
    documents: pa.RecordBatch, job: Job, tick: _Tick | None = None, first: int = 0
) -> pa.Table:
    """All samples of a shard, kept and rejected, ordered by (document, target, sample).

    When an engine fails, the shard is halved until the failing documents are found; each becomes
    one row with reason `error` and the engine's message.

    Args:
        documents: rows of `schema.CORPUS`.
        job: what to do.
        tick: told now and then how many documents' worth of work is done.
        first: place of the shard's first document among all, which decides on its share of a
            budget.

    Returns:
        rows of `schema.STAGED`.

    Raises:
        EngineError: the first documents all fail, or no engine is left (`isolate_failures`).
    """

    def work(start: int, stop: int) -> pa.Table:
        part = documents.slice(start, stop - start)
        return _synthesize(part, job, _after(start, tick), first + start)

    def failed(row: int, message: str) -> pa.Table:
        doc_id = documents.column("doc_id").slice(row, 1)
        _log.warning("document %s failed: %s", doc_id[0], message)
        return failed_documents(doc_id, pa.array([message]))

    return isolate_failures(len(documents), work, failed)


def failed_documents(doc_ids: pa.Array, messages: pa.Array) -> pa.Table:
    """Rows of `schema.STAGED` for documents that yield no samples, reason `error`."""
    rows = len(doc_ids)
    return _staged(
        rows,
        doc_id=doc_ids,
        reason=decode_reasons(np.full(rows, reason_code("error"), np.int8)),
        message=messages,
        key=pa.array(np.zeros(rows, np.uint64)),
    )


@dataclass(frozen=True)
class _Documents:
    """A shard and what is derived from each document once for all its samples."""

    rows: pa.RecordBatch
    prefixes: pa.StringArray
    keys: np.ndarray
    forms: DocumentForms
    compare_template: PromptTemplate

    @cached_property
    def texts_to_compare(self) -> pa.StringArray:
        """Prompt prefixes for the comparator, which may not know those of the other roles."""
        return self.compare_template.documents(self.rows)


@dataclass(frozen=True)
class _Samples:
    """N samples over G grades, in columns; the filters fill in `code` and `probs`.

    `document` indexes the shard, `target` is a grade, `key` hashes the normalised query (`form`),
    `code` is of `reasons`, `probs`, float32[N, G], is not a number until scored, `tokens` is how
    many the query model wrote, and `compared` counts the pairs with a higher target that a language
    model was asked about, `flipped` those whose answer changed with the order.
    """

    document: np.ndarray
    target: np.ndarray
    sample: np.ndarray
    seed: np.ndarray
    query: pa.StringArray
    form: pa.StringArray
    key: np.ndarray
    code: np.ndarray
    probs: np.ndarray
    tokens: np.ndarray
    compared: np.ndarray
    flipped: np.ndarray

    def __add__(self, later: _Samples) -> _Samples:
        pairs = [(getattr(self, field.name), getattr(later, field.name)) for field in fields(self)]
        return _Samples(
            *(
                np.concatenate(pair) if isinstance(pair[0], np.ndarray) else pa.concat_arrays(pair)
                for pair in pairs
            )
        )


def _after(start: int, tick: _Tick | None) -> _Tick:
    return lambda done: tick(start + done) if tick else None


def _counter(tick: _Tick, per_request: float) -> Callable[[int], None]:
    done = 0

    def count(requests: int) -> None:
        nonlocal done
        done += requests
        tick(done * per_request)

    return count


def _synthesize(rows: pa.RecordBatch, job: Job, tick: _Tick, first: int) -> pa.Table:
    config = job.config
    documents = _Documents(
        rows,
        job.roles.template.documents(rows),
        hash_strings(rows.column("doc_id"), config.seed),
        document_forms(rows, config.filter.max_query_chars),
        job.roles.compare_template,
    )
    accepted = np.zeros((len(rows), len(config.targets)), np.int64)
    asked_before = np.zeros_like(accepted)
    samples: _Samples | None = None
    for wave in range(job.attempts):
        short = shortfall(accepted, job.per_grade)
        most = _allowance(samples, job, first, len(rows))
        if most is not None:
            chance = np.full(len(config.targets), 0.5) if job.acceptance is None else job.acceptance
            short = affordable(short, most, likely_kept(accepted, asked_before, chance))
        if not short.any():
            break
        asked = ask(short, asked_before, config.targets)
        asked_before += short
        # Progress follows the first wave, half of it for each engine; later ones are short.
        count = _counter(
            tick if wave == 0 else lambda _: tick(len(rows)), len(rows) / len(asked.document) / 2
        )
        fresh = _generate(asked, documents, job, count)
        samples = fresh if samples is None else samples + fresh
        _judge(samples, documents, job, count)
        kept = samples.code == KEPT
        accepted = count_accepted(
            samples.document[kept], samples.target[kept], len(rows), config.targets
        )
    if samples is None:
        return STAGED.empty_table()
    return _to_table(rows, samples, job.round_number)


def _allowance(samples: _Samples | None, job: Job, first: int, documents: int) -> np.ndarray | None:
    """Samples that each document may still ask for, int64[documents]; None without a limit.

    A sample that is not written yet counts as its longest, so a budget of tokens is never exceeded.
    """
    if job.budget is None or job.budget.unit == "seconds":
        return None
    left = job.budget.shares(job.documents, first, documents)
    in_tokens = job.budget.unit == "tokens"
    if samples is not None:
        spent = samples.tokens if in_tokens else None
        left -= np.bincount(samples.document, spent, documents).astype(np.int64)
    return left // job.config.synthesize.max_new_tokens if in_tokens else left


def _generate(
    asked: Asked, documents: _Documents, job: Job, tick: Callable[[int], None]
) -> _Samples:
    config = job.config
    settings = config.synthesize
    sampling = Sampling(
        max_new_tokens=settings.max_new_tokens,
        temperature=settings.temperature,
        top_p=settings.top_p,
        stop=(STOP,),
    )
    seeds = sample_seeds(documents.keys, asked, job.round_number)
    questions = job.roles.template.query_suffixes(config.targets, len(config.grades))
    column = np.searchsorted(config.targets, asked.target)
    suffixes = pa.array(questions, pa.string()).take(pa.array(column))
    batches = request_batches(documents.prefixes, asked.document, suffixes, seeds)
    with engine_call():
        texts, ended, tokens = generate(job.query, batches, sampling, tick)
    queries = collapse_whitespace(texts)
    normalised = normalise(queries)
    keys = hash_strings(normalised)
    codes = check_text(
        queries,
        normalised=normalised,
        keys=keys,
        ended=ended,
        document=asked.document,
        forms=documents.forms,
        max_query_chars=config.filter.max_query_chars,
    )
    probs = np.full((len(queries), len(config.grades)), np.nan, np.float32)
    return _Samples(
        document=asked.document,
        target=asked.target,
        sample=asked.sample,
        seed=seeds,
        query=queries,
        form=normalised,
        key=keys,
        code=codes,
        probs=probs,
        tokens=tokens,
        compared=np.zeros(len(queries), np.int32),
        flipped=np.zeros(len(queries), np.int32),
    )


def _judge(samples: _Samples, documents: _Documents, job: Job, tick: Callable[[int], None]) -> None:
    """Fill in `probs` and `code` of the samples that are neither scored nor rejected yet."""
    codes = samples.code
    texts = (codes == KEPT) | (codes >= reason_code("score_mismatch"))
    cells = mix(samples.key, samples.document, samples.target)
    unscored = (codes == KEPT) & np.isnan(samples.probs[:, 0])
    codes[unscored & repeats(cells, texts)] = reason_code("duplicate")
    _score(samples, np.flatnonzero(unscored & (codes == KEPT)), documents, job, tick)
    codes[repeats(mix(samples.key, samples.document), codes == KEPT)] = reason_code("duplicate")
    settings = job.config.filter
    # Documents without a fresh sample were compared when they had one.
    changed = np.bincount(samples.document[unscored], minlength=len(documents.keys)) > 0
    alive = (codes == KEPT) & changed[samples.document]
    if settings.near_duplicates != "none":
        near = near_repeats(samples.form, samples.document, alive, settings.similarity)
        codes[near] = reason_code("near_duplicate")
    _compare(samples, np.flatnonzero(alive & (codes == KEPT)), documents, job)


def _score(
    samples: _Samples,
    rows: np.ndarray,
    documents: _Documents,
    job: Job,
    tick: Callable[[int], None],
) -> None:
    rows = rows[np.argsort(samples.document[rows], kind="stable")]
    queries = samples.query.take(pa.array(rows))
    suffixes = job.roles.score_template.score_suffixes(queries, len(job.config.grades))
    batches = request_batches(
        documents.prefixes, samples.document[rows], suffixes, samples.seed[rows]
    )
    with engine_call():
        probs = score(job.score, batches, job.roles.labels, job.roles.calibration, tick)
    samples.probs[rows] = probs
    settings = job.config.filter
    codes = check_scores(probs, samples.target[rows], settings.min_confidence)
    if not settings.scored:
        codes[codes != reason_code("error")] = KEPT
    samples.code[rows] = codes


def _compare(samples: _Samples, rows: np.ndarray, documents: _Documents, job: Job) -> None:
    if job.config.filter.comparator == "none":
        return
    document, strength = samples.document[rows], expected_grade(samples.probs[rows])

    def weaker(low: np.ndarray, high: np.ndarray) -> np.ndarray:
        if job.comparator is None:
            stronger: np.ndarray = strength[low] < strength[high]
            return ~stronger
        queries = samples.query.take(pa.array(rows))
        with engine_call():
            answers = prefer(
                job.comparator,
                documents.compare_template,
                documents.texts_to_compare,
                document[low],
                queries.take(pa.array(low)),
                queries.take(pa.array(high)),
            )
        np.add.at(samples.compared, rows[low], 1)
        np.add.at(samples.flipped, rows[low], answers.flipped)
        # An answer that changes with the order is none.
        against: np.ndarray = ~answers.flipped & ~(answers.second > 0)
        return against

    drop = contradictions(document, samples.target[rows], weaker)
    samples.code[rows[drop]] = reason_code("pairwise_inconsistent")


def _to_table(rows: pa.RecordBatch, samples: _Samples, round_number: int) -> pa.Table:
    order = np.lexsort((samples.sample, samples.target, samples.document))
    probs, code = samples.probs[order], samples.code[order]
    target = samples.target[order]
    scored = ~np.isnan(probs[:, 0])
    confidence = probs[np.arange(len(order)), target]
    wrong = code == reason_code("error")
    return _staged(
        len(order),
        query=samples.query.take(pa.array(order)),
        doc_id=rows.column("doc_id").take(pa.array(samples.document[order])),
        target=pa.array(target),
        grade=pa.array(probs.argmax(axis=1).astype(np.int8), mask=~scored),
        probs=_lists(probs, scored),
        confidence=pa.array(confidence, mask=~scored),
        round=pa.array(np.full(len(order), round_number, np.int16)),
        sample=pa.array(samples.sample[order]),
        seed=pa.array(samples.seed[order]),
        reason=decode_reasons(code),
        message=pc.if_else(pa.array(wrong), "the score is not a number", None),
        key=pa.array(sample_keys(samples.key[order], target)),
        tokens=pa.array(samples.tokens[order]),
        compared=pa.array(samples.compared[order]),
        flipped=pa.array(samples.flipped[order]),
    )


def _staged(rows: int, **known: pa.Array) -> pa.Table:
    columns = [
        known[field.name] if field.name in known else pa.nulls(rows, field.type) for field in STAGED
    ]
    return pa.Table.from_arrays(columns, schema=STAGED)


def _lists(values: np.ndarray, present: np.ndarray) -> pa.ListArray:
    """list<float32>[N] of the rows of `values`, null where not present."""
    ends = np.concatenate([[0], np.cumsum(present * values.shape[1])]).astype(np.int32)
    flat = pa.array(values[present].ravel())
    return pa.ListArray.from_arrays(pa.array(ends), flat, mask=pa.array(~present))
