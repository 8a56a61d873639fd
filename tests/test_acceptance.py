from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from ssra_engine.acceptance import Terms, accept_audited, accept_estimated
from ssra_engine.audit import Draw, draw_audit
from ssra_engine.cli import main
from ssra_engine.config import load_config
from ssra_engine.errors import DataError, EngineError, StoreError
from ssra_engine.evaluation.outputs import open_outputs
from ssra_engine.roles import fake_roles
from ssra_engine.run import run
from ssra_engine.schema import SYNTHETIC
from ssra_engine.scored import Scored, read_scored, take_rows
from ssra_engine.simulate import simulate, write

# Pairs at least this sure are labelled right.
_RIGHT = 0.6


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("accepted")
    write(simulate(300, 4), folder)
    settings = {"refine.rounds": 0, "synthesize.per_grade": 2, "synthesize.attempts": 1}
    config = load_config(overrides=settings)
    run(config, [folder / "corpus.arrow"], fake_roles(config.grades), folder / "out")
    return folder / "out"


@pytest.fixture(scope="module")
def scored(out: Path) -> Scored:
    return read_scored(open_outputs(out))


@pytest.fixture(scope="module")
def audit(out: Path, scored: Scored, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An audit whose label is the target where the score model is sure, except for target 2."""
    file = tmp_path_factory.mktemp("audit") / "audit.csv"
    draw_audit(out, Draw(250, 1), file)
    return _label(out, scored, file)


def _label(out: Path, scored: Scored, file: Path) -> Path:
    table = pa.concat_tables(take_rows(open_outputs(out), scored.row))
    named = zip(*(table.column(n).to_pylist() for n in ("query", "doc_id")), strict=True)
    place = {pair: row for row, pair in enumerate(named)}
    with file.open(encoding="utf-8-sig", newline="") as text:
        rows = list(csv.DictReader(text))
    for row in rows:
        at = place[row["query"], row["doc_id"]]
        target = int(scored.target[at])
        right = scored.confidence[at] >= _RIGHT and target != 2
        row["label"] = str(target if right else (target + 1) % 4)
    with file.open("w", encoding="utf-8", newline="") as text:
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return file


def _accepted(folder: Path) -> pa.Table:
    return pq.read_table(sorted(folder.glob("part-*.parquet")))


def test_what_reaches_the_threshold_is_written(
    out: Path, scored: Scored, audit: Path, tmp_path: Path
) -> None:
    report = accept_audited(out, Terms(0.9), audit, tmp_path / "accepted")
    table = _accepted(tmp_path / "accepted")
    assert table.schema.equals(SYNTHETIC)
    wrong = _audited_wrong(scored, audit)
    expected = set()
    for grade, row in report["grades"].items():
        mine = scored.target == int(grade)
        if grade == "2":
            assert (row["threshold"], row["accepted"]) == (None, 0)
            assert row["reachable"] < 0.1
            continue
        assert 0.4 < row["threshold"] <= 0.7
        taken = mine & (scored.confidence >= row["threshold"]) & ~wrong
        assert row["accepted"] == taken.sum() > 0
        assert row["population"] == mine.sum()
        assert row["audited"] == 250
        expected |= set(scored.seed[taken].tolist())
    assert set(table.column("seed").to_pylist()) == expected
    assert len(table) == len(expected)


def _audited_wrong(scored: Scored, audit: Path) -> np.ndarray:
    from ssra_engine.audit import read_audit

    labels = read_audit(audit, scored, (0, 1, 2, 3))
    return labels.audited & ~labels.right


def test_the_report_is_beside_the_rows(out: Path, audit: Path, tmp_path: Path) -> None:
    report = accept_audited(out, Terms(0.9), audit, tmp_path / "accepted")
    written = json.loads((tmp_path / "accepted/report.json").read_text())
    assert len(written.pop("run_key")) == 32
    assert written == {"run": str(out), **report}
    assert written["promise"] is True
    assert (written["min_precision"], written["confidence"], written["jointly"]) == (0.9, 0.95, 0)


def test_jointly_and_a_higher_confidence_accept_less(
    out: Path, audit: Path, tmp_path: Path
) -> None:
    def accepted(name: str, terms: Terms) -> int:
        report = accept_audited(out, terms, audit, tmp_path / name)
        return sum(row["accepted"] for row in report["grades"].values())

    assert Terms(0.9, 0.95, True).risk(4) == pytest.approx(0.0125)
    assert Terms(0.9, 0.95, False).risk(4) == pytest.approx(0.05)
    alone = accepted("alone", Terms(0.9))
    assert 0 < accepted("jointly", Terms(0.9, jointly=True)) < alone
    assert accepted("sure", Terms(0.9, confidence=0.999999)) == 0


def test_an_output_that_is_there_is_left_alone(out: Path, audit: Path, tmp_path: Path) -> None:
    (tmp_path / "accepted").mkdir()
    with pytest.raises(StoreError, match="it is there"):
        accept_audited(out, Terms(0.9), audit, tmp_path / "accepted")


def test_an_audit_of_another_run_is_refused(out: Path, audit: Path, tmp_path: Path) -> None:
    config = load_config(overrides={"refine.rounds": 0, "seed": 8})
    run(config, [out.parent / "corpus.arrow"], fake_roles(config.grades), tmp_path / "out")
    with pytest.raises(DataError, match="was not drawn from this run"):
        accept_audited(tmp_path / "out", Terms(0.9), audit, tmp_path / "accepted")
    assert not (tmp_path / "accepted").exists()


def test_a_run_in_which_nothing_was_scored(tmp_path: Path) -> None:
    pq.write_table(pa.table({"doc_id": ["d"], "title": ["fail"]}), tmp_path / "corpus.parquet")
    config = load_config(
        overrides={"refine.rounds": 0, "filter.max_query_chars": 1, "synthesize.grades": (1,)}
    )
    inputs = [tmp_path / "corpus.parquet"]
    run(config, inputs, fake_roles(config.grades), tmp_path / "out")
    assert len(read_scored(open_outputs(tmp_path / "out"))) == 0
    assert draw_audit(tmp_path / "out", Draw(5, 0), tmp_path / "a.csv").drawn == {1: 0}


def test_an_estimate_promises_nothing(out: Path, scored: Scored, tmp_path: Path) -> None:
    judgments = [str(out.parent / "judgments.arrow")]
    report = accept_estimated(out, Terms(0.3), judgments, tmp_path / "accepted")
    assert report["promise"] is False
    assert report["judged"] > 20
    written = json.loads((tmp_path / "accepted/report.json").read_text())
    assert written["promise"] is False
    rows = {int(grade): row for grade, row in report["grades"].items()}
    counts = {
        target: 0
        if row["threshold"] is None
        else int(((scored.target == target) & (scored.confidence >= row["threshold"])).sum())
        for target, row in rows.items()
    }
    assert {target: row["accepted"] for target, row in rows.items()} == counts
    assert len(_accepted(tmp_path / "accepted")) == sum(counts.values()) > 0


def test_judged_documents_that_are_not_there(out: Path, tmp_path: Path) -> None:
    rows = [
        {"query": f"q{n}", "doc_id": "elsewhere", "grade": n % 4, "split": "dev"} for n in range(9)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "judgments.parquet")
    with pytest.raises(DataError, match=r"'elsewhere' and 0 other judged documents .*--corpus"):
        accept_estimated(
            out, Terms(0.5), [str(tmp_path / "judgments.parquet")], tmp_path / "accepted"
        )


def test_engines_are_needed_to_score_judgments(out: Path, tmp_path: Path) -> None:
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["fingerprint"]["engines"] = "others"
    other = tmp_path / "out"
    other.mkdir()
    for path in out.iterdir():
        if path.name != "manifest.json":
            (other / path.name).symlink_to(path)
    (other / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(EngineError, match="not an engines folder"):
        accept_estimated(
            other,
            Terms(0.5),
            [str(out.parent / "judgments.arrow")],
            tmp_path / "accepted",
            engines=tmp_path / "none",
        )


def _call(*arguments: Any) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_the_commands(out: Path, scored: Scored, tmp_path: Path) -> None:
    file, accepted = tmp_path / "audit.csv", tmp_path / "accepted"
    result = _call("audit", out, "--per-grade", 250, "--seed", 1, "--output", file)
    assert result.exit_code == 0, result.output
    assert "1,000 pairs, 250 of target 0" in result.output
    _label(out, scored, file)
    arguments = ("accept", out, "--min-precision", 0.9, "--audit", file, "--output", accepted)
    result = _call(*arguments)
    assert result.exit_code == 0, result.output
    assert "90.0% or more" in result.output
    assert "can be had" in result.output
    assert "Promise: of the accepted pairs of a grade" in result.output
    assert "simulation" in result.output
    result = _call(*arguments)
    assert (result.exit_code, "it is there" in result.output) == (2, True)


def test_the_command_without_an_audit(out: Path, tmp_path: Path) -> None:
    judgments = out.parent / "judgments.arrow"
    arguments = ("accept", out, "--min-precision", 0.3, "--judgments", judgments, "--output")
    result = _call(*arguments, tmp_path / "a")
    assert result.exit_code == 0, result.output
    assert "no promise" in result.output.replace("\n", " ")
    assert json.loads(_call(*arguments, tmp_path / "b", "--json").output)["promise"] is False
    for more in ((), ("--judgments", judgments, "--audit", judgments)):
        result = _call("accept", out, "--min-precision", 0.3, "--output", tmp_path / "c", *more)
        assert result.exit_code == 2
        assert "either --audit, for a promise, or --judgments" in result.output
