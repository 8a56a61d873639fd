"""What the report counts, on runs whose rows are known."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ssra_engine.comparing.tables import compare_figures
from ssra_engine.config import load_config
from ssra_engine.errors import DataError, EngineError, StoreError
from ssra_engine.evaluation.lists import judged_pairs
from ssra_engine.evaluation.measuring import Settings, measure
from ssra_engine.evaluation.outputs import SAMPLES
from ssra_engine.report.collect import collect
from ssra_engine.report.drawing import nice_ticks
from ssra_engine.report.embedder import read_evaluations
from ssra_engine.report.frequent import FrequentTexts
from ssra_engine.report.reservoir import Reservoir
from ssra_engine.report.throughput import throughput
from ssra_engine.roles import fake_roles
from ssra_engine.run import run
from ssra_engine.simulate import simulate, write


def _finished_run(folder: Path, documents: int) -> Path:
    write(simulate(documents, 5), folder)
    config = load_config(overrides={"output.shard_documents": 20})
    run(config, [folder / "corpus.arrow"], fake_roles(config.grades), folder / "out")
    return folder / "out"


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _finished_run(tmp_path_factory.mktemp("reported"), 90)


@pytest.fixture(scope="module")
def figures(out: Path) -> dict[str, Any]:
    return collect(out)


def _rows(out: Path) -> list[dict[str, Any]]:
    tables = [pq.read_table(out / name) for name in ("synthetic", "rejected")]
    return [row for table in tables for row in table.to_pylist() if row["target"] is not None]


def test_the_matrix_counts_every_scored_query(out: Path, figures: dict[str, Any]) -> None:
    scored = Counter(
        (row["target"], row["grade"]) for row in _rows(out) if row["grade"] is not None
    )
    (last,) = [one for one in figures["matrices"] if one["part"] == "final"]
    assert last["model"] == 2
    counts = {(t, g): n for t, row in enumerate(last["counts"]) for g, n in enumerate(row) if n}
    assert counts == dict(scored)


def test_the_funnel_is_that_of_the_summary(out: Path, figures: dict[str, Any]) -> None:
    summary = json.loads((out / "summary.json").read_text())
    assert [part["part"] for part in figures["parts"]] == ["round 1", "final"]
    assert figures["parts"][-1]["grades"] == summary["grades"]
    kept = next(one for one in figures["balance"] if one["set"] == "kept queries")
    assert sum(kept["counts"]) == summary["total"]["kept"]


def test_samples_are_true_rows_of_their_group(out: Path) -> None:
    few = collect(out, samples=8)["samples"]
    everything = {
        (row["query"], row["doc_id"], row["target"], row.get("reason") or "kept")
        for row in _rows(out)
    }
    assert all(
        (row["query"], row["doc_id"], row["target"], row["fate"]) in everything for row in few
    )
    found = Counter((row["target"], row["fate"]) for row in few)
    there = Counter((row["target"], row.get("reason") or "kept") for row in _rows(out))
    assert found == {k: min(n, 8 if k[1] == "kept" else 2) for k, n in there.items()}
    assert all(row["document"] for row in few)
    assert collect(out, samples=8)["samples"] == few
    assert collect(out, samples=8, seed=1)["samples"] != few


def test_without_the_documents_the_rest_is_told(tmp_path: Path) -> None:
    out, corpus = _finished_run(tmp_path, 30), tmp_path / "corpus.arrow"
    corpus.rename(tmp_path / "moved.arrow")
    told = collect(out)
    assert told["diversity"] is None
    assert "--corpus" in told["missing"]["corpus"]
    assert told["samples"]
    assert {row["document"] for row in told["samples"]} == {None}
    with pytest.raises(DataError):
        collect(out, corpus=[str(corpus)])
    (tmp_path / "moved.arrow").rename(corpus)
    assert collect(out, corpus=[str(corpus)])["diversity"] is not None


def test_engines_that_did_not_make_the_run_are_refused(out: Path, tmp_path: Path) -> None:
    assert "fake" in collect(out)["missing"]["engines"]
    with pytest.raises(StoreError, match="not the output of a run"):
        collect(tmp_path)
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["fingerprint"]["engines"] = "others"
    copy = tmp_path / "out"
    copy.mkdir()
    for name in ("synthetic", "rejected", "rounds", "summary.json", "config.yaml"):
        (copy / name).symlink_to(out / name)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert "--engines" in collect(copy)["missing"]["engines"]
    with pytest.raises(EngineError):
        collect(copy, engines=tmp_path / "none")


def _samples(count: int, start: int = 0) -> pa.Table:
    numbers = np.arange(start, start + count)
    columns = {name: pa.nulls(count, SAMPLES.field(name).type) for name in SAMPLES.names}
    columns |= {
        "query": pa.array([f"q{n}" for n in numbers]),
        "doc_id": pa.array([f"d{n}" for n in numbers]),
        "target": pa.array(numbers % 2, pa.int8()),
        "sample": pa.array(np.zeros(count), pa.int16()),
        "reason": pa.array(numbers % 3 - 1, pa.int8()),
    }
    return pa.table(columns, schema=SAMPLES)


def test_a_reservoir_does_not_see_how_rows_are_cut_or_ordered() -> None:
    whole, pieces = Reservoir((7, 3), 4), Reservoir((7, 3), 4)
    whole.add(_samples(500))
    for start in (300, 0, 400, 200, 100):
        pieces.add(_samples(100, start))
    assert whole.rows() == pieces.rows()
    sizes = Counter((row["target"], row["reason"]) for row in whole.rows())
    assert sizes == {(t, r): 7 if r == -1 else 3 for t in (0, 1) for r in (-1, 0, 1)}


def test_a_reservoir_is_a_uniform_sample() -> None:
    drawn = Counter()
    for seed in range(300):
        reservoir = Reservoir((10, 10), seed)
        reservoir.add(_samples(120))
        drawn.update(row["doc_id"] for row in reservoir.rows() if row["reason"] == -1)
    # 40 rows, 20 of each target, 10 of which are drawn: each row in half of 300 draws.
    assert len(drawn) == 40
    deviations = (np.array(list(drawn.values())) - 150) / np.sqrt(300 / 4)
    assert np.abs(deviations).max() < 4.5


def test_frequent_texts_are_exact_while_they_fit_and_bounded_beyond() -> None:
    generator = np.random.default_rng(0)
    words = [f"w{number}" for number in np.minimum(generator.zipf(1.5, 20_000), 9_999)]
    truth = Counter(words)
    exact, tight = FrequentTexts(20_000), FrequentTexts(60)
    for start in range(0, len(words), 1000):
        for one in (exact, tight):
            one.add(pa.array(words[start : start + 1000]))
    wanted = sorted(truth.items(), key=lambda pair: (-pair[1], pair[0]))[:20]
    assert [(one.text, one.least, one.most) for one in exact.top(20)] == [
        (text, count, count) for text, count in wanted
    ]
    found = {one.text: one for one in tight.top(1000)}
    assert len(found) <= 60
    assert {text for text, count in truth.items() if count > len(words) / 61} <= set(found)
    assert all(one.least <= truth[text] <= one.most for text, one in found.items())
    assert all(one.most - one.least <= len(words) / 61 for one in found.values())


def test_throughput_puts_shards_end_to_end() -> None:
    shards = [
        {"kind": "shard", "section": section, "documents": 10, "seconds": seconds}
        for section, seconds in [("round-1", 2.0), ("final", 5.0), ("final", 0.0), ("final", 1.0)]
    ]
    told = throughput([{"kind": "corpus"}, *shards])
    assert (told["seconds"], told["documents"]) == (8.0, 40)
    assert [span["start"] for span in told["spans"]] == [0, 2, 7, 7]
    assert [span["rate"] for span in told["spans"]] == [5, 2, None, 10]
    many = throughput(shards * 500, most=50)
    assert (many["seconds"], many["documents"]) == (4000.0, 20_000)
    assert throughput([]) == {"seconds": 0.0, "documents": 0, "spans": []}


def _evaluation(model: str, pairs: int = 9, **more: Any) -> dict[str, Any]:
    figure = {"value": 0.5, "low": 0.4, "high": 0.6, "queries": 3}
    row = {"model": model, "dim": 8, "precision": "float32"}
    row |= {"per_query": {"ndcg_linear@10": figure}, "pooled": {"ap_mean": figure}}
    settings = {"mode": "judged", "confidence": 0.9}
    facts = {"split": "dev", "queries": 3, "documents": 5, "pairs": pairs, "settings": settings}
    return {**facts, "results": [row], "comparisons": [], **more}


def test_models_measured_on_the_same_judgments_stand_together(tmp_path: Path) -> None:
    for name, report in {
        "a": _evaluation("a"),
        "b": _evaluation("b", comparisons=[_evaluation("b")["results"][0] | {"against": "a"}]),
        "other": _evaluation("c", pairs=10),
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(json.dumps(report))
    groups = read_evaluations([tmp_path / name for name in ("a", "b", "a", "other")])
    assert [[row["model"] for row in group["results"]] for group in groups] == [["a", "b"], ["c"]]
    assert groups[0]["results"][0]["variant"] == "dim 8, float32"
    assert [row["against"] for row in groups[0]["comparisons"]] == ["a"]
    (tmp_path / "no.json").write_text('{"results": []}')
    for path in (tmp_path / "no.json", tmp_path / "gone.json"):
        with pytest.raises(DataError, match="evaluate model"):
            read_evaluations([path])


def test_methods_of_a_comparison_stand_together(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    query, document = np.repeat(np.arange(6), 12), np.tile(np.arange(12), 6)
    grade = generator.integers(0, 4, 72)
    pairs = judged_pairs(query, document, grade, pa.array([f"d{n}" for n in range(12)]), 0)
    settings = Settings(precisions=("float32",), resamples=20)
    vectors = generator.normal(size=(2, 18, 4)).astype(np.float32)
    found = [measure(pairs, one[:6], one[6:], settings) for one in vectors]
    compared = compare_figures({"ssra": found[:1], "plain": found[1:]}, pairs, settings)
    report = {
        "settings": {"seeds": [0]},
        "split": "dev",
        "queries": 6,
        "pairs": 72,
        "reference": "ssra",
        "methods": {name: {"title": f"the {name}", **one} for name, one in compared.items()},
    }
    (tmp_path / "report.json").write_text(json.dumps(report))
    (group,) = read_evaluations([tmp_path])
    assert [row["model"] for row in group["results"]] == ["the ssra", "the plain"]
    assert group["results"][0]["per_query"] == compared["ssra"]["ranking"]
    (difference,) = group["comparisons"]
    assert (difference["model"], difference["against"]) == ("the ssra", "the plain")
    assert difference["pooled"] == compared["plain"]["pooled_difference"]


@pytest.mark.parametrize("most", [0.001, 0.7, 1.0, 3.0, 9.99, 10.0, 512.0, 123456.0])
def test_ticks_reach_the_largest_value_in_round_steps(most: float) -> None:
    ticks = nice_ticks(most)
    assert ticks[0] == 0
    assert ticks[-2] < most * 1.0000001
    assert ticks[-1] >= most * 0.9999999
    assert 3 <= len(ticks) <= 7
