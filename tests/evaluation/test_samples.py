from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ssra_engine.config import load_config
from ssra_engine.errors import DataError, StoreError
from ssra_engine.evaluation.diversity import diversity, words
from ssra_engine.evaluation.oracle import STEPS, wilson
from ssra_engine.evaluation.samples import evaluate_samples
from ssra_engine.roles import fake_roles
from ssra_engine.run import run
from ssra_engine.schema import REJECTED, SYNTHETIC
from ssra_engine.simulate import simulate, write

_BABBLE = "zzzz qqqq"


def _finished_run(folder: Path, **settings: Any) -> Path:
    """A run over a simulated world, whose rows are then replaced by made-up ones."""
    write(simulate(60, 5), folder)
    given = {name.replace("__", "."): value for name, value in settings.items()}
    config = load_config(overrides=given)
    run(config, [folder / "corpus.arrow"], fake_roles(config.grades), folder / "out")
    return folder / "out"


def _judged(grade: int) -> tuple[str, str]:
    """A query and a document of the world, whose true grade is known."""
    rows = simulate(60, 5).judgments.to_pylist()
    row = next(row for row in rows if row["grade"] == grade)
    return row["query"], row["doc_id"]


def _row(pair: tuple[str, str], target: int, sample: int, reason: str | None) -> dict[str, Any]:
    scored = reason in (None, "pairwise_inconsistent", "score_mismatch", "duplicate")
    return dict.fromkeys(REJECTED.names) | {
        "query": pair[0],
        "doc_id": pair[1],
        "target": target,
        "sample": sample,
        "reason": reason,
        "grade": target if scored else None,
    }


def _replace(kept_folder: Path, rejected_folder: Path, rows: list[dict[str, Any]]) -> None:
    kept = [row for row in rows if row["reason"] is None]
    rejected = [row for row in rows if row["reason"] is not None]
    for folder, some, schema in (
        (kept_folder, kept, SYNTHETIC),
        (rejected_folder, rejected, REJECTED),
    ):
        named = [{name: row[name] for name in schema.names} for row in some]
        plain = pa.schema([f for f in schema if f.name != "reason"])
        table = pa.Table.from_pylist(named, schema=plain)
        if "reason" in schema.names:
            reasons = pa.array([row["reason"] for row in some], pa.string()).dictionary_encode()
            table = table.append_column("reason", reasons)
        pq.write_table(table, folder / "part-00000.parquet")


def _cells(report: dict[str, Any], part: str, target: int) -> dict[str, tuple[int, int, int]]:
    """(samples, agree, unparsed) by step."""
    return {
        row["step"]: (row["samples"], row["agree"], row["unparsed"])
        for row in report["oracle"]
        if (row["part"], row["target"]) == (part, target)
    }


def test_the_oracle_step_by_step(tmp_path: Path) -> None:
    out = _finished_run(tmp_path)
    good, bad = {g: _judged(g) for g in range(4)}, {g: _judged((g + 1) % 4) for g in range(4)}
    rounds, final = [], []
    for g in range(4):
        doc_id = good[g][1]
        rounds += [
            _row(good[g], g, 0, None),
            _row(bad[g], g, 1, "score_mismatch"),
            _row(bad[g], g, 2, "pairwise_inconsistent"),
            _row((_BABBLE, doc_id), g, 3, "duplicate"),
            _row(("", doc_id), g, 4, "empty"),
        ]
        final += [
            _row(good[g], g, 0, None),
            _row(good[g], g, 1, "copied"),  # of a later wave
            _row(bad[g], g, 2, None),
        ]
    failed = dict.fromkeys(REJECTED.names) | {"doc_id": "v0000001", "reason": "error"}
    _replace(out / "rounds/1/kept", out / "rounds/1/rejected", rounds)
    _replace(out / "synthetic", out / "rejected", [*final, failed])
    text = (out / "config.yaml").read_text()
    (out / "config.yaml").write_text(text.replace("  samples: 2\n", "  samples: 5\n"))
    report = evaluate_samples(out)
    assert report["simulated"]
    for g in range(4):
        first, last = _cells(report, "round 1", g), _cells(report, "final", g)
        assert first == dict(zip(STEPS, [(5, 1, 2), (3, 1, 1), (2, 1, 1), (1, 1, 0)], strict=True))
        assert last == dict(zip(STEPS, [(1, 1, 0), (2, 1, 0), (2, 1, 0), (2, 1, 0)], strict=True))
    funnel = {part["part"]: part["total"] for part in report["funnel"]}
    assert (funnel["round 1"]["generated"], funnel["round 1"]["kept"]) == (20, 4)
    assert (funnel["final"]["generated"], funnel["final"]["kept"]) == (12, 8)
    assert funnel["final"]["rejected"]["error"] == 0


def test_first_and_last_model_on_the_same_documents(tmp_path: Path) -> None:
    out = _finished_run(tmp_path)
    mine, other = _judged(3), ("x", "v0000007")
    assert mine[1] != other[1]
    _replace(out / "rounds/1/kept", out / "rounds/1/rejected", [_row(mine, 3, 0, None)])
    final = [_row(mine, 3, 0, None), _row(other, 3, 0, None)]
    _replace(out / "synthetic", out / "rejected", final)
    report = evaluate_samples(out)
    assert _cells(report, "final", 3)["kept"] == (1, 1, 0)
    assert {row["documents"] for row in report["oracle"]} == {1}
    assert next(p for p in report["funnel"] if p["part"] == "final")["total"]["kept"] == 2


def test_a_sample_of_the_documents_holds_those_of_the_first_round(tmp_path: Path) -> None:
    out = _finished_run(tmp_path, refine__documents=8)
    everything, some = evaluate_samples(out), evaluate_samples(out, documents=8)
    assert some["funnel"] == everything["funnel"]
    assert some["oracle"] == everything["oracle"]
    assert 8 <= some["documents"] < 40
    assert everything["documents"] == 60


def test_without_rounds_there_is_one_model(tmp_path: Path) -> None:
    report = evaluate_samples(_finished_run(tmp_path, refine__rounds=0))
    assert {row["part"] for row in report["oracle"]} == {"final"}
    assert {row["model"] for row in report["oracle"]} == {1}


@pytest.mark.parametrize("file_format", ["parquet", "arrow"])
def test_figures_are_those_of_the_rows(tmp_path: Path, file_format: str) -> None:
    out = _finished_run(tmp_path, output__format=file_format)
    report = evaluate_samples(out)
    summary = json.loads((out / "summary.json").read_text())
    assert report["funnel"][-1]["total"] == summary["total"]
    kept = [row for row in report["diversity"] if row["part"] == "final" and row["set"] == "kept"]
    assert kept[0]["target"] is None
    assert kept[0]["samples"] == summary["total"]["kept"]
    assert sum(row["samples"] for row in kept[1:]) == kept[0]["samples"]


def test_other_scales_have_no_oracle(tmp_path: Path) -> None:
    report = evaluate_samples(_finished_run(tmp_path, grades=(0, 1, 2)))
    assert report["simulated"]
    assert report["oracle"] is None


def test_another_corpus_is_refused(tmp_path: Path) -> None:
    out = _finished_run(tmp_path)
    moved = tmp_path / "moved.arrow"
    (tmp_path / "corpus.arrow").rename(moved)
    with pytest.raises(DataError, match=r"corpus\.arrow: no such file.*with --corpus"):
        evaluate_samples(out)
    assert evaluate_samples(out, [str(moved)])["simulated"]
    write(simulate(60, 6), tmp_path)
    with pytest.raises(DataError, match="not the documents of"):
        evaluate_samples(out)


def test_not_a_finished_run(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not the output of a run"):
        evaluate_samples(tmp_path)
    out = _finished_run(tmp_path)
    (out / "synthetic/part-00000.parquet").write_bytes(b"PAR1")
    with pytest.raises(StoreError, match="cannot be read"):
        evaluate_samples(out)
    manifest = json.loads((out / "manifest.json").read_text()) | {"state": "running"}
    (out / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match="has not ended"):
        evaluate_samples(out)


def test_words() -> None:
    assert words("red panda-2 小猫 abc猫") == ["red", "panda", "2", "小", "猫", "abc", "猫"]


def test_diversity_by_hand() -> None:
    documents = [frozenset({"a", "b"}), frozenset({"a"}), frozenset[str]()]
    figures = diversity(["a b c", "a b c", "a"], documents)
    assert figures == {
        "samples": 3,
        "duplicate_rate": pytest.approx(1 / 3),
        "near_duplicate_rate": pytest.approx(1 / 3),
        "distinct_1": pytest.approx(3 / 7),
        "distinct_2": pytest.approx(2 / 4),
        "compression": pytest.approx(13 / len(zlib.compress(b"a b c\na b c\na", 9))),
        "mean_characters": pytest.approx(11 / 3),
        "mean_words": pytest.approx(7 / 3),
        "overlap": pytest.approx((2 / 3 + 1 / 3 + 0) / 3),
    }
    assert set(diversity([]).values()) == {0, None}


def test_near_duplicates_are_counted_beside_duplicates() -> None:
    wash = "how to wash a red panda in a tub"
    queries = [wash, f"{wash}s", "rain on a tin roof"]
    figures = diversity(queries)
    assert figures["duplicate_rate"] == 0
    assert figures["near_duplicate_rate"] == pytest.approx(1 / 3)
    assert diversity(queries, similarity=1.0)["near_duplicate_rate"] == 0


def test_what_repeats_itself_compresses() -> None:
    varied = diversity([f"{n * 7919 % 1000} {n}" for n in range(200)])["compression"]
    repeated = diversity([f"the same again {n % 3}" for n in range(200)])["compression"]
    assert repeated > 2 * varied


def test_wilson() -> None:
    # Newcombe, Statistics in Medicine 1998, table I, method 3.
    for successes, trials, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        assert wilson(successes, trials) == pytest.approx((low, high), abs=5e-5)
    assert wilson(20, 20)[1] == 1.0
    assert wilson(0, 0) == (0.0, 1.0)
