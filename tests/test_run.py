from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from documents import make_documents, write_documents

from ssra_engine import section
from ssra_engine.config import Config, load_config
from ssra_engine.engines.fake import FakeEngine
from ssra_engine.errors import ConfigError, DataError, StoreError
from ssra_engine.keys import normalise
from ssra_engine.roles import fake_roles
from ssra_engine.run import RunResult, plan, run
from ssra_engine.schema import REASONS, REJECTED, SYNTHETIC
from ssra_engine.stages.near_duplicates import near_repeats


def _config(**settings: Any) -> Config:
    defaults = {"refine.rounds": 1, "refine.documents": 30, "output.shard_documents": 25}
    given = {name.replace("__", "."): value for name, value in settings.items()}
    return load_config(overrides=defaults | given)


def _run(tmp_path: Path, name: str = "out", documents: int = 100, **settings: Any) -> RunResult:
    corpus = write_documents(tmp_path / f"corpus-{documents}.arrow", documents)
    config = _config(**settings)
    return run(config, [corpus], fake_roles(config.grades), tmp_path / name)


def _rows(folder: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in sorted(folder.glob("*.parquet"))])


def test_outputs_and_their_columns(tmp_path: Path) -> None:
    result = _run(tmp_path)
    assert not result.already_finished
    assert result.failed_documents == 0
    out = tmp_path / "out"
    kept, rejected = _rows(out / "synthetic"), _rows(out / "rejected")
    assert kept.schema.remove_metadata() == SYNTHETIC
    assert rejected.schema.names == REJECTED.names
    assert set(kept.column("round").to_pylist()) == {1}
    assert set(_rows(out / "rounds/1/kept").column("round").to_pylist()) == {0}
    assert (out / "rounds/1/query/weights.txt").is_file()
    assert load_config(out / "config.yaml") == _config()
    assert "loading the score model" in (out / "run.log").read_text()
    assert not (out / "shards").exists()
    assert not (out / "journal").exists()


def test_kept_and_rejected_are_all_that_was_generated(tmp_path: Path) -> None:
    result = _run(tmp_path, synthesize__per_grade=2, synthesize__attempts=3)
    for told_of, where in [
        (result.summary, ("synthetic", "rejected")),
        (result.summary["rounds"][0], ("rounds/1/kept", "rounds/1/rejected")),
    ]:
        kept, rejected = (_rows(tmp_path / "out" / folder) for folder in where)
        both = pa.concat_tables([kept, rejected.select(kept.column_names)])
        places = both.select(["doc_id", "target", "sample"])
        assert len(places.group_by(places.column_names).aggregate([])) == len(both)
        assert told_of["total"]["generated"] == len(both)
        for target in range(4):
            mine = pc.equal(rejected.column("target"), target)
            reasons = pc.value_counts(rejected.filter(mine).column("reason").cast(pa.string()))
            counts = dict.fromkeys(REASONS, 0)
            counts |= {row["values"]: row["counts"] for row in reasons.to_pylist()}
            told = told_of["grades"][str(target)]
            assert told["rejected"] == counts
            assert told["kept"] == pc.sum(pc.equal(kept.column("target"), target)).as_py()
            assert told["generated"] == told["kept"] + sum(counts.values())


def test_global_duplicates_leave_the_first(tmp_path: Path) -> None:
    config = {"refine__rounds": 0, "output__shard_documents": 7}
    _run(tmp_path, "all", filter__duplicates="document", **config)
    _run(tmp_path, "one", filter__duplicates="global", **config)
    everything, kept = _rows(tmp_path / "all/synthetic"), _rows(tmp_path / "one/synthetic")
    forms = normalise(everything.column("query").combine_chunks()).to_pylist()
    seen: set[tuple[str, int]] = set()
    first = []
    for key in zip(forms, everything.column("target").to_pylist(), strict=True):
        first.append(key not in seen)
        seen.add(key)
    assert not all(first)
    assert kept.equals(everything.filter(pa.array(first)))
    rejected = _rows(tmp_path / "one/rejected")
    duplicates = rejected.filter(pc.equal(rejected.column("reason"), "duplicate"))
    assert sum(not one for one in first) <= len(duplicates)


def test_global_near_duplicates_leave_the_first_of_each_target(tmp_path: Path) -> None:
    config = {"refine__rounds": 0, "filter__similarity": 0.5, "filter__duplicates": "document"}
    for shards in (7, 100):
        name = f"near-{shards}"
        _run(
            tmp_path,
            name,
            filter__near_duplicates="global",
            output__shard_documents=shards,
            **config,
        )
    _run(tmp_path, "all", output__shard_documents=7, **config)
    everything, kept = (_rows(tmp_path / name / "synthetic") for name in ("all", "near-7"))
    assert kept.equals(_rows(tmp_path / "near-100/synthetic"))
    near = near_repeats(
        normalise(everything.column("query").combine_chunks()),
        everything.column("target").to_numpy(),
        np.ones(len(everything), bool),
        0.5,
    )
    assert kept.equals(everything.filter(pa.array(~near)))
    rejected = _rows(tmp_path / "near-7/rejected").column("reason").cast(pa.string())
    before = _rows(tmp_path / "all/rejected").column("reason").cast(pa.string())
    more = pc.sum(pc.equal(rejected, "near_duplicate")).as_py()
    fewer = pc.sum(pc.equal(before, "near_duplicate")).as_py() or 0
    assert more - fewer == near.sum() > 0


@pytest.mark.parametrize("shard_documents", [1, 9, 100])
def test_rows_do_not_depend_on_shards(tmp_path: Path, shard_documents: int) -> None:
    _run(tmp_path, "one", synthesize__attempts=2)
    _run(tmp_path, "other", synthesize__attempts=2, output__shard_documents=shard_documents)
    for folder in ("synthetic", "rejected", "rounds/1/kept", "rounds/1/rejected"):
        assert _rows(tmp_path / "one" / folder).equals(_rows(tmp_path / "other" / folder))


@pytest.mark.parametrize("budget", ["390 samples", "900 tokens"])
def test_a_budget_is_kept_whatever_the_shards(tmp_path: Path, budget: str) -> None:
    settings: dict[str, Any] = {
        "synthesize__budget": budget,
        "synthesize__attempts": 6,
        "synthesize__per_grade": 2,
        "synthesize__max_new_tokens": 4,
    }
    number, unit = budget.split()
    amount = int(number)
    results = [
        _run(tmp_path, name, output__shard_documents=shards, **settings)
        for name, shards in (("one", 100), ("other", 7))
    ]
    for folder in ("synthetic", "rejected"):
        assert _rows(tmp_path / "one" / folder).equals(_rows(tmp_path / "other" / folder))
    summary = results[0].summary
    assert summary["total"] == results[1].summary["total"]
    spent = sum(row[unit] for row in summary["cost"].values())
    assert 0.3 * amount < spent <= amount
    free = _run(tmp_path, "free", **(settings | {"synthesize__budget": None}))
    assert sum(row[unit] for row in free.summary["cost"].values()) > amount
    assert summary["total"]["kept"] < free.summary["total"]["kept"]


def test_a_budget_that_is_short_goes_to_the_grades_that_the_round_kept_most(
    tmp_path: Path,
) -> None:
    summary = _run(tmp_path, synthesize__budget="100 samples").summary
    rates = {
        target: (row["kept"] + 1) / (row["generated"] + 2)
        for target, row in summary["rounds"][0]["grades"].items()
    }
    generated = {target: row["generated"] for target, row in summary["grades"].items()}
    assert generated == {t: 100 if t == max(rates, key=rates.__getitem__) else 0 for t in rates}


def test_a_budget_in_seconds_leaves_the_last_shards(tmp_path: Path) -> None:
    class Slow(FakeEngine):
        def generate_batches(self, batches: Any, sampling: Any) -> Any:
            time.sleep(0.3)
            return super().generate_batches(batches, sampling)

    corpus = write_documents(tmp_path / "c.arrow", 60)
    roles = dataclasses.replace(fake_roles((0, 1, 2, 3)), open_query=lambda _: Slow())
    config = _config(refine__rounds=0, synthesize__budget="1 seconds", output__shard_documents=5)
    summary = run(config, [corpus], roles, tmp_path / "out").summary
    assert 0 < summary["documents_not_begun"] < 60
    assert summary["documents_not_begun"] % 5 == 0
    begun = _rows(tmp_path / "out/synthetic").column("doc_id").unique().to_pylist()
    assert all(int(d[4:]) < 60 - summary["documents_not_begun"] for d in begun)


def test_costs_are_those_of_all_samples(tmp_path: Path) -> None:
    summary = _run(tmp_path, synthesize__per_grade=2).summary
    kept, rejected = (_rows(tmp_path / "out" / name) for name in ("synthetic", "rejected"))
    written = summary["timing"]["engines"]["query v2"]["generated_tokens"]
    assert sum(row["tokens"] for row in summary["cost"].values()) == written > 0
    for target, row in summary["cost"].items():
        mine = rejected.filter(pc.equal(rejected.column("target"), int(target)))
        passed = pc.sum(pc.equal(kept.column("target"), int(target))).as_py()
        assert row["samples"] == summary["grades"][target]["generated"] == len(mine) + passed
        assert row["scored"] == passed + len(mine) - mine.column("grade").null_count
        assert row["samples_per_kept"] == round(row["samples"] / passed, 3)


def test_seed_and_rounds_change_the_rows(tmp_path: Path) -> None:
    _run(tmp_path, "base")
    base = _rows(tmp_path / "base/synthetic").column("query")
    for name, settings in [("seed", {"seed": 1}), ("rounds", {"refine__rounds": 2})]:
        _run(tmp_path, name, **settings)
        assert not _rows(tmp_path / name / "synthetic").column("query").equals(base)
    assert sorted(path.name for path in (tmp_path / "rounds/rounds").iterdir()) == ["1", "2"]


def test_rounds_look_at_other_documents_in_one_wave(tmp_path: Path) -> None:
    result = _run(tmp_path, refine__rounds=2, synthesize__attempts=3)
    assert [told["total"]["generated"] for told in result.summary["rounds"]] == [30 * 4 * 2] * 2
    first, second = (
        set(_rows(tmp_path / "out/rounds" / number / "rejected").column("doc_id").to_pylist())
        for number in "12"
    )
    assert len(first - second) > 5


def test_several_parts_hold_the_rows_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _run(tmp_path, "one", output__shard_documents=9)
    monkeypatch.setattr(section, "_PART_ROWS", 80)
    _run(tmp_path, "several", output__shard_documents=9)
    assert len(list((tmp_path / "several/synthetic").iterdir())) > 3
    for folder in ("synthetic", "rejected"):
        assert _rows(tmp_path / "several" / folder).equals(_rows(tmp_path / "one" / folder))


def test_no_refinement(tmp_path: Path) -> None:
    result = _run(tmp_path, refine__rounds=0)
    assert result.summary["rounds"] == []
    assert not (tmp_path / "out/rounds").exists()
    assert set(_rows(tmp_path / "out/synthetic").column("round").to_pylist()) == {0}


def test_arrow_format_holds_the_same_rows(tmp_path: Path) -> None:
    _run(tmp_path, "parquet")
    _run(tmp_path, "arrow", output__format="arrow")
    (path,) = (tmp_path / "arrow/synthetic").iterdir()
    assert path.name == "part-00000.arrow"
    assert pa.ipc.open_file(path).read_all().equals(_rows(tmp_path / "parquet/synthetic"))


def test_a_finished_run_does_nothing(tmp_path: Path) -> None:
    first = _run(tmp_path)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("[!.]*.*")}
    second = _run(tmp_path)
    assert second.already_finished
    assert second.summary == json.loads(json.dumps(first.summary))
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("[!.]*.*")} == files


def test_another_config_or_corpus_is_refused_and_speed_settings_are_not(tmp_path: Path) -> None:
    _run(tmp_path)
    with pytest.raises(StoreError, match=r"config synthesize\.per_grade: 1 -> 2"):
        _run(tmp_path, synthesize__per_grade=2)
    with pytest.raises(StoreError, match="inputs: "):
        _run(tmp_path, documents=101)
    assert _run(tmp_path, engine__threads=3, engine__batch_tokens=99).already_finished


def test_bad_documents_are_rejected_with_their_message(tmp_path: Path) -> None:
    good = make_documents(40).to_pylist()
    rows = [good[0], good[0], *good[1:20], {"doc_id": "blank"}, *good[20:], {"title": "no id"}]
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    roles = fake_roles((0, 1, 2, 3))
    with pytest.raises(DataError, match="blank"):
        run(_config(), [path], roles, tmp_path / "stop")
    config = _config(input__on_error="reject", output__shard_documents=11)
    result = run(config, [path], roles, tmp_path / "out")
    assert result.failed_documents == result.summary["rejected_documents"] == 3
    rejected = _rows(tmp_path / "out/rejected")
    errors = rejected.filter(pc.equal(rejected.column("reason"), "error")).to_pylist()
    assert sorted(str(row["doc_id"]) for row in errors) == ["None", "blank", "doc-0"]
    assert all(row["message"] and row["query"] is None for row in errors)
    healthy = run(config, [write_documents(tmp_path / "c.arrow", 40)], roles, tmp_path / "healthy")
    assert healthy.summary["total"] == result.summary["total"]


def test_bad_input_leaves_a_folder_that_can_be_used_again(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"doc_id": "a", "title": "x"}\n{"doc_id": "a", "title": "y"}\n')
    roles = fake_roles((0, 1, 2, 3))
    with pytest.raises(DataError):
        run(_config(), [path], roles, tmp_path / "out")
    path.write_text('{"doc_id": "a", "title": "x"}\n{"doc_id": "b", "title": "y"}\n')
    assert run(_config(), [path], roles, tmp_path / "out").summary["documents"] == 2


def test_settings_that_cannot_work(tmp_path: Path) -> None:
    corpus = write_documents(tmp_path / "c.arrow", 3)
    with pytest.raises(ConfigError, match="scale of 3 grades, the configuration has 4"):
        run(_config(), [corpus], fake_roles((0, 1, 2)), tmp_path / "out")
    with pytest.raises(ConfigError, match="at most 32767"):
        plan(_config(synthesize__per_grade=40000), [corpus], fake_roles((0, 1, 2, 3)))
    assert not (tmp_path / "out").exists()


def test_plan(tmp_path: Path) -> None:
    corpus = write_documents(tmp_path / "c.arrow", 60)
    roles = fake_roles((0, 1, 2, 3))
    planned = plan(_config(synthesize__per_grade=2), [corpus], roles)
    assert planned.documents == 60
    assert planned.shards == 3
    assert planned.round_documents == 30
    assert planned.requests == (60 * 2 + 30 * 2) * 4
    assert planned.seconds is None
    timed = dataclasses.replace(roles, requests_per_second=(10.0, 20.0))
    assert plan(_config(refine__rounds=0), [corpus], timed).seconds == 240 / 10 + 240 / 20


def test_progress_and_timing(tmp_path: Path) -> None:
    told: list[tuple[str, float]] = []

    class Progress:
        def begin(self, name: str, documents: int, done: int) -> None:
            assert done == 0
            told.append((name, documents))

        def update(self, done: float) -> None:
            told.append(("", done))

    corpus = write_documents(tmp_path / "c.arrow", 60)
    roles = fake_roles((0, 1, 2, 3))
    result = run(_config(synthesize__attempts=1), [corpus], roles, tmp_path / "out", Progress())
    begun = [row for row in told if row[0]]
    assert begun == [("round-1", 30), ("training the query model, round 1", 0), ("final", 60)]
    assert told[-1] == ("", 60)
    timing = result.summary["timing"]
    assert timing["documents"] == 90
    assert timing["engines"]["query v2"]["requests"] == 240
    assert set(timing["engines"]) == {"query v1", "query v2", "score"}


def test_duplicate_rate_counts_queries_of_their_own(tmp_path: Path) -> None:
    total = _run(tmp_path).summary["total"]
    lost = total["rejected"]
    own = total["generated"] - lost["empty"] - lost["too_long"] - lost["copied"]
    assert total["duplicate_rate"] == np.round(lost["duplicate"] / own, 6) > 0
