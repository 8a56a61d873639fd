from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from alike_engine import AlikeEngine
from documents import make_documents
from hypothesis import given, settings
from hypothesis import strategies as st

from ssra_engine.config import load_config
from ssra_engine.engines.engine import Engine, Sampling, scored_schema
from ssra_engine.engines.fake import MARK, FakeEngine
from ssra_engine.errors import EngineError, EngineGoneError
from ssra_engine.keys import normalise
from ssra_engine.roles import fake_roles
from ssra_engine.schema import REASONS, STAGED
from ssra_engine.shard import Job, failed_documents, synthesize_shard


def _job(
    per_grade: int = 2,
    attempts: int = 3,
    query: Engine | None = None,
    score: Engine | None = None,
    comparator: Engine | None = None,
    **overrides: Any,
) -> Job:
    settings = {name.replace("__", "."): value for name, value in overrides.items()}
    config = load_config(overrides=settings)
    return Job(
        config=config,
        roles=fake_roles(config.grades),
        query=query or FakeEngine(),
        score=score or FakeEngine(),
        round_number=0,
        per_grade=per_grade,
        attempts=attempts,
        comparator=comparator,
    )


class _Poisoned(FakeEngine):
    """Fails at batches that hold a document with this word; counts its calls."""

    def __init__(self, word: str) -> None:
        super().__init__()
        self.word = word
        self.calls = 0

    def _check(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            self.calls += 1
            if any(self.word in text for text in batch.column("prefix").dictionary.to_pylist()):
                raise RuntimeError("out of memory")
            yield batch

    def generate_batches(
        self, batches: Iterable[pa.RecordBatch], sampling: Sampling
    ) -> Iterator[pa.RecordBatch]:
        return super().generate_batches(self._check(batches), sampling)

    def score_batches(
        self, batches: Iterable[pa.RecordBatch], labels: Sequence[str | int]
    ) -> Iterator[pa.RecordBatch]:
        return super().score_batches(self._check(batches), labels)


class _Comparator(FakeEngine):
    """Finds the query with the higher digit, or with the lower one, the better."""

    def __init__(self, sign: int) -> None:
        super().__init__()
        self.sign = sign

    def score_batches(
        self, batches: Iterable[pa.RecordBatch], labels: Sequence[str | int]
    ) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            found = [
                [self.sign * _digit(query) for query in suffix.split("\n")[:2]]
                for suffix in batch.column("suffix").to_pylist()
            ]
            flat = pa.array(np.array(found, np.float32).ravel())
            column = pa.FixedSizeListArray.from_arrays(flat, 2)
            yield pa.RecordBatch.from_arrays([column], schema=scored_schema(2))


def _digit(query: str) -> int:
    return int(query.split(MARK)[1][0]) if MARK in query else 0


class _Shouting(FakeEngine):
    """Writes the same few queries again and again, in different letters."""

    def generate_batches(
        self, batches: Iterable[pa.RecordBatch], sampling: Sampling
    ) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            (rows,) = super().generate_batches([batch], sampling)
            seeds = batch.column("seed").to_pylist()
            words = [f"{'Query' if seed & 4 else 'qUERY'} {seed % 4}" for seed in seeds]
            column = rows.schema.get_field_index("text")
            yield rows.set_column(column, "text", pa.array(words)).cast(rows.schema)


def _kept(table: pa.Table) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = table.filter(pc.is_null(table.column("reason"))).to_pylist()
    return rows


def test_rows_are_complete_and_in_order() -> None:
    documents = make_documents(120)
    table = synthesize_shard(documents, _job())
    assert table.schema == STAGED
    rows = table.to_pylist()
    numbers = {doc_id: n for n, doc_id in enumerate(documents.column("doc_id").to_pylist())}
    places = [(numbers[row["doc_id"]], row["target"], row["sample"]) for row in rows]
    assert places == sorted(places)
    per_cell = Counter(place[:2] for place in places)
    assert set(per_cell) == {(d, t) for d in range(120) for t in range(4)}
    for (document, target), count in per_cell.items():
        samples = [place[2] for place in places if place[:2] == (document, target)]
        assert samples == list(range(count))
    assert len({row["seed"] for row in rows}) == len(rows)
    assert {row["reason"] for row in rows} >= {
        None, "empty", "too_long", "copied", "duplicate", "score_mismatch", "pairwise_inconsistent"
    }  # fmt: skip
    for row in rows:
        scored = row["probs"] is not None
        assert scored == (row["grade"] is not None) == (row["confidence"] is not None)
        assert scored == (row["reason"] not in {"empty", "too_long", "copied"}) or (
            row["reason"] == "duplicate"
        )
        if scored:
            assert row["confidence"] == row["probs"][row["target"]]
            assert row["grade"] == int(np.argmax(row["probs"]))


def test_quota_counts_accepted_samples() -> None:
    table = synthesize_shard(make_documents(150), _job(per_grade=2, attempts=30))
    kept = Counter((row["doc_id"], row["target"]) for row in _kept(table))
    assert max(kept.values()) == 2
    full = sum(count == 2 for count in kept.values())
    once = synthesize_shard(make_documents(150), _job(per_grade=2, attempts=1))
    kept_once = Counter((row["doc_id"], row["target"]) for row in _kept(once))
    assert full > 0.97 * 600 > sum(count == 2 for count in kept_once.values())
    generated = Counter((row["doc_id"], row["target"]) for row in table.to_pylist())
    assert min(generated.values()) == 2, "a cell that was filled at once was asked again"
    assert len(once) == 1200


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**63 - 1),
    st.sampled_from([(0, 1), (1, 2), (0, 1, 2, 3), (3,)]),
    st.integers(1, 4),
    st.integers(1, 3),
    st.floats(0, 1),
)
def test_what_is_kept_passed_every_filter(
    seed: int, targets: tuple[int, ...], per_grade: int, attempts: int, least: float
) -> None:
    job = _job(
        per_grade,
        attempts,
        seed=seed,
        synthesize__grades=targets,
        filter__min_confidence=least,
        filter__max_query_chars=30,
    )
    rows = _kept(synthesize_shard(make_documents(12), job))
    for row in rows:
        assert row["grade"] == row["target"] in targets
        assert row["confidence"] >= np.float32(least)
        assert 0 < len(row["query"]) <= 30
        assert row["query"] == " ".join(row["query"].split())
    forms = normalise(pa.array([row["query"] for row in rows], pa.string())).to_pylist()
    assert len({(row["doc_id"], form) for row, form in zip(rows, forms, strict=True)}) == len(rows)
    grades = [sum(g * p for g, p in enumerate(row["probs"])) for row in rows]
    for one, of_one in zip(rows, grades, strict=True):
        for other, of_other in zip(rows, grades, strict=True):
            if one["doc_id"] == other["doc_id"] and one["target"] < other["target"]:
                assert of_one < of_other


def test_a_repeated_query_is_kept_once_at_the_grade_it_has() -> None:
    rows = synthesize_shard(make_documents(60), _job(4, 3, query=_Shouting())).to_pylist()
    kept: Counter[tuple[str, str]] = Counter()
    for row in rows:
        if row["reason"] is None:
            kept[row["doc_id"], row["query"].lower()] += 1
    assert kept
    assert max(kept.values()) == 1
    assert Counter(row["reason"] for row in rows)["duplicate"] > len(rows) / 2


def test_near_duplicates_within_a_document_are_rejected() -> None:
    documents = make_documents(60)
    kept: dict[str, int] = {}
    for setting in ("none", "document"):
        job = _job(4, 3, query=AlikeEngine(), filter__near_duplicates=setting)
        table = synthesize_shard(documents, job)
        rows = _kept(table)
        stems = Counter((row["doc_id"], row["query"][:8]) for row in rows)
        reasons = Counter(row["reason"] for row in table.to_pylist())
        kept[setting] = len(rows)
        assert (max(stems.values()) == 1) == (setting == "document")
        assert (reasons["near_duplicate"] > 0) == (setting == "document")
    assert kept["document"] < kept["none"]


def test_a_document_does_not_depend_on_its_neighbours() -> None:
    documents, job = make_documents(90), _job()
    whole = synthesize_shard(documents, job)
    parts = [synthesize_shard(documents.slice(start, 17), job) for start in range(0, 90, 17)]
    assert pa.concat_tables(parts).equals(whole)


@pytest.mark.parametrize("role", ["query", "score"])
def test_failing_documents_are_found_and_the_others_go_on(role: str) -> None:
    documents = make_documents(200)
    bad = {f"doc-{n}" for n in (0, 63, 64, 199)}
    titles = [
        title + " poison" if doc_id in bad else title
        for doc_id, title in zip(
            documents.column("doc_id").to_pylist(),
            documents.column("title").to_pylist(),
            strict=True,
        )
    ]
    poisoned = documents.set_column(1, documents.schema.field(1), pa.array(titles))
    engine = _Poisoned("poison")
    job = _job(query=engine) if role == "query" else _job(score=engine)
    table = synthesize_shard(poisoned, job)
    errors = table.filter(pc.equal(table.column("reason"), "error"))
    assert errors.column("doc_id").to_pylist() == sorted(bad, key=lambda d: int(d[4:]))
    assert set(errors.column("message").to_pylist()) == {"RuntimeError: out of memory"}
    assert errors.column("query").null_count == errors.column("target").null_count == 4
    healthy = synthesize_shard(documents, _job())
    rest = table.filter(pc.invert(pc.is_in(table.column("doc_id"), pa.array(sorted(bad)))))
    assert rest.equals(
        healthy.filter(pc.invert(pc.is_in(healthy["doc_id"], pa.array(sorted(bad)))))
    )
    assert engine.calls < 200


def test_an_engine_that_always_fails_stops_the_run_soon() -> None:
    engine = _Poisoned("")
    with pytest.raises(EngineError, match=r"every document: RuntimeError: out of memory\. Mend"):
        synthesize_shard(make_documents(1000), _job(query=engine))
    assert engine.calls < 50


def test_a_few_hopeless_documents_are_just_rejected() -> None:
    table = synthesize_shard(make_documents(5), _job(query=_Poisoned("")))
    assert table.column("reason").to_pylist() == ["error"] * 5


def test_interruptions_are_not_failures_of_documents() -> None:
    class Interrupted(FakeEngine):
        def generate_batches(self, batches: Any, sampling: Any) -> Any:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesize_shard(make_documents(3), _job(query=Interrupted()))


def test_where_no_engine_is_left_no_document_is_at_fault() -> None:
    class Gone(FakeEngine):
        def score_batches(self, batches: Any, labels: Any) -> Any:
            raise EngineGoneError("nobody answers")

    with pytest.raises(EngineGoneError):
        synthesize_shard(make_documents(3), _job(score=Gone()))


def test_a_score_that_is_not_a_number_rejects_the_sample_only() -> None:
    class Broken(FakeEngine):
        def score_batches(self, batches: Any, labels: Any) -> Any:
            for rows in super().score_batches(batches, labels):
                logits = rows.column("logits").flatten().to_numpy().copy()
                logits[: len(labels)] = np.nan
                column = pa.FixedSizeListArray.from_arrays(logits, len(labels))
                yield pa.RecordBatch.from_arrays([column], schema=rows.schema)

    table = synthesize_shard(make_documents(20), _job(1, 1, score=Broken()))
    (row,) = table.filter(pc.equal(table.column("reason"), "error")).to_pylist()
    assert row["query"] is not None
    assert row["grade"] is row["probs"] is None
    assert row["message"] == "the score is not a number"


def test_progress_rises_to_the_number_of_documents() -> None:
    told: list[float] = []
    synthesize_shard(make_documents(50), _job(), told.append)
    assert told == sorted(told)
    assert 40 < told[-1] <= 50


def test_failed_documents_have_their_message() -> None:
    table = failed_documents(pa.array(["a", None]), pa.array(["bad", "worse"]))
    assert table.schema == STAGED
    assert table.column("message").to_pylist() == ["bad", "worse"]
    assert table.column("reason").combine_chunks().dictionary.to_pylist() == list(REASONS)


def test_a_language_model_may_order_the_queries_of_a_document() -> None:
    def kept(comparator: Engine | None, setting: str) -> dict[str, dict[int, str]]:
        job = _job(1, 1, comparator=comparator, filter__comparator=setting)
        queries: dict[str, dict[int, str]] = {}
        for row in synthesize_shard(make_documents(60), job).to_pylist():
            if row["reason"] is None:
                queries.setdefault(row["doc_id"], {})[row["target"]] = row["query"]
        return queries

    unordered = kept(None, "none")
    marked = {
        name for name, queries in unordered.items() if all(MARK in q for q in queries.values())
    }
    agreed, opposed = (kept(_Comparator(sign), "a-model") for sign in (1, -1))
    several = {name for name in marked if len(unordered[name]) > 1}
    assert len(several) > 10
    for name in several:
        assert agreed[name] == unordered[name]
        assert len(opposed.get(name, {})) == 0
    for name in marked - several:
        assert opposed[name] == unordered[name]


def test_an_answer_that_changes_with_the_order_rejects_nothing_and_is_counted() -> None:
    class Biased(FakeEngine):
        def score_batches(self, batches: Any, labels: Any) -> Any:
            for rows in super().score_batches(batches, labels):
                column = pa.FixedSizeListArray.from_arrays(
                    pa.array(np.tile(np.float32([1, 0]), rows.num_rows)), 2
                )
                yield pa.RecordBatch.from_arrays([column], schema=rows.schema)

    def made(comparator: Engine | None, setting: str) -> pa.Table:
        job = _job(1, 1, comparator=comparator, filter__comparator=setting)
        return synthesize_shard(make_documents(60), job)

    unordered, asked = made(None, "none"), made(Biased(), "a-model")
    assert asked.column("reason").equals(unordered.column("reason"))
    compared = asked.column("compared").to_numpy()
    kept = asked.filter(pc.is_null(asked.column("reason"))).to_pylist()
    pairs = sum(
        low["doc_id"] == high["doc_id"] and low["target"] < high["target"]
        for low in kept
        for high in kept
    )
    assert compared.sum() == pairs > 10
    assert asked.column("flipped").to_pylist() == compared.tolist()
    assert not any(unordered.column("compared").to_pylist())
    honest = made(_Comparator(1), "a-model")
    assert pc.sum(honest.column("flipped")).as_py() == 0


def test_without_the_score_filter_samples_are_scored_and_kept_all_the_same() -> None:
    job = _job(1, 1, filter__scored=False, filter__comparator="none")
    rows = synthesize_shard(make_documents(60), job).to_pylist()
    kept = [row for row in rows if row["reason"] is None]
    assert any(row["grade"] != row["target"] for row in kept)
    assert all(row["probs"] is not None for row in kept)
    assert not {"score_mismatch", "low_confidence", "pairwise_inconsistent"} & {
        row["reason"] for row in rows
    }
