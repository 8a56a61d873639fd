"""Audits and acceptances read back for reports: only those of the run, counted again."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from documents import write_documents

from ssra_engine.acceptance import Terms, accept_audited
from ssra_engine.audit import NO_GRADE, Draw, draw_audit
from ssra_engine.auditing.book import Book
from ssra_engine.auditing.findings import acceptances_of, audit_of
from ssra_engine.auditing.pairs import draw_pairs
from ssra_engine.config import load_config
from ssra_engine.errors import DataError
from ssra_engine.evaluation.outputs import open_outputs
from ssra_engine.roles import fake_roles
from ssra_engine.run import run

_DRAW = Draw(10, 0)
_LABELS = ("0", "1", "2", "3", NO_GRADE)


def _run(folder: Path, documents: int) -> Path:
    folder.mkdir()
    write_documents(folder / "corpus.arrow", documents)
    config = load_config(overrides={"output.shard_documents": 20})
    run(config, [folder / "corpus.arrow"], fake_roles(config.grades), folder / "out")
    return folder / "out"


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _run(tmp_path_factory.mktemp("found") / "run", 60)


def _label(file: Path) -> dict[str, str]:
    """Fill in labels that go round; gives them by the key of the pair."""
    with file.open(encoding="utf-8-sig", newline="") as opened:
        rows = list(csv.DictReader(opened))
    for number, row in enumerate(rows):
        row["label"] = _LABELS[number % len(_LABELS)]
    with file.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.DictWriter(opened, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return {row["sample_key"]: row["label"] for row in rows}


@pytest.fixture(scope="module")
def labelled(out: Path) -> tuple[Path, dict[str, str]]:
    file = out.parent / "labelled.csv"
    draw_audit(out, _DRAW, file)
    return file, _label(file)


def test_figures_are_those_of_the_pairs_counted_one_by_one(
    out: Path, labelled: tuple[Path, dict[str, str]]
) -> None:
    file, labels = labelled
    found = audit_of(open_outputs(out), file)
    assert found is not None
    assert (found["file"], found["per_grade"], found["seed"]) == ("labelled.csv", 10, 0)
    assert (found["labelled"], found["no_grade"]) == (len(labels), len(labels) // 5)
    pairs = draw_pairs(out, _DRAW).pairs
    for row in found["targets"]:
        mine = [pair for pair in pairs if pair.target == row["target"]]
        for name, some in {
            "all": [pair.target for pair in mine],
            "predicted": [pair.predicted for pair in mine],
        }.items():
            right = sum(labels[p.key] == str(g) for p, g in zip(mine, some, strict=True))
            assert (row[name]["right"], row[name]["of"]) == (right, len(mine))
        kept = [pair for pair in mine if pair.kept]
        assert row["kept"]["right"] == sum(labels[p.key] == str(p.target) for p in kept)
        assert row["rejected"]["of"] == len(mine) - len(kept)
    assert found["annotators"] == {}
    assert found["kappa"] == []


def test_the_folder_of_a_page_tells_who_agreed(out: Path, tmp_path: Path) -> None:
    with Book(draw_pairs(out, _DRAW), tmp_path / "page") as book:
        for number, (key, pair) in enumerate(book.pairs.items()):
            book.answer("Anna", key, str(pair.target))
            if number < 7:
                book.answer("Bo", key, "0")
        with pytest.raises(DataError, match="label is missing"):
            audit_of(open_outputs(out), tmp_path / "page")
        for key in book.disagreements():
            book.adjudicate("Anna", key, str(book.pairs[key].target))
        found = audit_of(open_outputs(out), tmp_path / "page")
        targets = [pair.target for pair in book.pairs.values()]
    assert found is not None
    assert found["annotators"] == {"Anna": len(targets), "Bo": 7}
    assert [row["pairs"] for row in found["kappa"]] == [7]
    assert found["kappa"][0]["agree"] == targets[:7].count(0) / 7
    assert all(row["all"]["right"] == row["all"]["of"] for row in found["targets"])


def test_defaults_are_taken_only_where_they_are_of_the_run(
    out: Path,
    labelled: tuple[Path, dict[str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    outputs, other = open_outputs(out), open_outputs(_run(tmp_path / "other", 40))
    assert audit_of(outputs) is None
    assert acceptances_of(outputs) == []
    Path("audit.csv").write_bytes(labelled[0].read_bytes())
    report = accept_audited(out, Terms(0.1), "audit.csv", "accepted")
    mine = audit_of(outputs)
    assert mine is not None
    assert mine["labelled"] == len(labelled[1])
    (accepted,) = acceptances_of(outputs)
    assert not {"run", "run_key"} & accepted.keys()
    text = Path("accepted/report.json").read_text()
    key = json.loads(text)["run_key"]
    Path("foreign").mkdir()
    Path("foreign/report.json").write_text(text.replace(key, key[::-1]))
    assert accepted["grades"] == json.loads(json.dumps(report["grades"]))
    assert audit_of(other) is None
    assert acceptances_of(other) == []
    for wrong in (
        lambda: audit_of(other, "audit.csv"),
        lambda: acceptances_of(other, ["accepted"]),
        lambda: acceptances_of(outputs, ["other"]),
        lambda: acceptances_of(outputs, ["foreign"]),
    ):
        _refused(wrong)


def _refused(call: Any) -> None:
    with pytest.raises(DataError):
        call()
