from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from scipy.stats import chi2

from ssra_engine.audit import NO_GRADE, Draw, draw_audit, drawn, read_audit, read_labels
from ssra_engine.config import load_config
from ssra_engine.errors import ConfigError, DataError
from ssra_engine.evaluation.outputs import open_outputs
from ssra_engine.reasons import KEPT, encode_reasons
from ssra_engine.roles import fake_roles
from ssra_engine.run import run
from ssra_engine.scored import Scored, read_scored, take_rows
from ssra_engine.simulate import oracle_grade, simulate, write

_GRADES = (0, 1, 2, 3)
_DRAW = Draw(20, 0)
_Change = Callable[[list[dict[str, str]]], None]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run over a simulated world, in several shards."""
    folder = tmp_path_factory.mktemp("audited")
    write(simulate(240, 4), folder)
    settings = {"refine.rounds": 0, "output.shard_documents": 100, "synthesize.per_grade": 2}
    config = load_config(overrides=settings)
    run(config, [folder / "corpus.arrow"], fake_roles(config.grades), folder / "out")
    return folder / "out"


@pytest.fixture(scope="module")
def scored(out: Path) -> Scored:
    return read_scored(open_outputs(out))


def _rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8-sig", newline="") as text:
        return list(csv.DictReader(text))


def _write(file: Path, rows: list[dict[str, str]]) -> Path:
    with file.open("w", encoding="utf-8", newline="") as text:
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return file


def _labelled(out: Path, file: Path, draw: Draw) -> list[dict[str, str]]:
    """An audit in which every label is 1."""
    draw_audit(out, draw, file)
    return [row | {"label": "1"} for row in _rows(file)]


def test_scored_samples_are_those_that_may_be_accepted(out: Path, scored: Scored) -> None:
    rejected = pq.read_table(out / "rejected")
    table = pa.concat_tables(take_rows(open_outputs(out), scored.row))
    assert table.column("target").to_numpy().tolist() == scored.target.tolist()
    assert table.column("seed").to_numpy().tolist() == scored.seed.tolist()
    assert table.column("confidence").to_numpy().tolist() == scored.confidence.tolist()
    assert len(set(_tuples(table, ["query", "target"]))) == len(table)
    reasons = dict(
        zip(
            rejected.column("seed").to_pylist(),
            rejected.column("reason").cast(pa.string()).to_pylist(),
            strict=True,
        )
    )
    found = {reasons.get(seed) for seed in scored.seed.tolist()}
    assert {None, "score_mismatch"} <= found
    assert found <= {None, "score_mismatch", "low_confidence", "duplicate"}
    assert "pairwise_inconsistent" in reasons.values()
    kept = [seed not in reasons for seed in scored.seed.tolist()]
    assert scored.kept.tolist() == kept


def test_every_pair_that_was_kept_is_there_or_a_surer_one_is(out: Path, scored: Scored) -> None:
    names = ["query", "target", "confidence"]
    table = pa.concat_tables(take_rows(open_outputs(out), scored.row))
    sure = {(q, t): c for q, t, c in _tuples(table, names)}
    for query, target, confidence in _tuples(pq.read_table(out / "synthetic"), names):
        assert sure[query, target] >= confidence


def _tuples(table: pa.Table, names: list[str]) -> list[tuple[Any, ...]]:
    return list(zip(*(table.column(name).to_pylist() for name in names), strict=True))


def test_the_file_is_blind_and_shuffled(out: Path, scored: Scored, tmp_path: Path) -> None:
    report = draw_audit(out, Draw(25, 3), tmp_path / "audit.csv")
    assert report.drawn == dict.fromkeys(_GRADES, 25)
    rows = _rows(report.file)
    assert len(rows) == 100
    columns = ["query", "doc_id", "title", "text", "ocr", "asr", "label", "sample_key", "draw"]
    assert list(rows[0]) == columns
    assert {row["label"] for row in rows} == {""}
    assert len({row["draw"] for row in rows}) == 1
    corpus = pa.ipc.open_file(out.parent / "corpus.arrow").read_all()
    texts = dict(zip(corpus["doc_id"].to_pylist(), corpus["title"].to_pylist(), strict=True))
    assert all(row["title"] == texts[row["doc_id"]] for row in rows)
    keys = [row["sample_key"] for row in rows]
    assert keys == sorted(keys)
    target = _targets(out, scored, rows)
    runs = 1 + int((target[1:] != target[:-1]).sum())
    assert runs > 50  # 75 are expected of a shuffle, 4 of no shuffle


def _targets(out: Path, scored: Scored, rows: list[dict[str, str]]) -> np.ndarray:
    """Targets of audit rows, found by their text."""
    table = pa.concat_tables(take_rows(open_outputs(out), scored.row))
    named = _tuples(table, ["query", "doc_id", "target"])
    target = {(query, doc_id): target for query, doc_id, target in named}
    return np.array([target[row["query"], row["doc_id"]] for row in rows])


def test_a_draw_does_not_depend_on_shards(out: Path, tmp_path: Path) -> None:
    config = load_config(overrides={"refine.rounds": 0, "synthesize.per_grade": 2})
    run(config, [out.parent / "corpus.arrow"], fake_roles(config.grades), tmp_path / "out")
    for folder, name in ((out, "a.csv"), (tmp_path / "out", "b.csv")):
        draw_audit(folder, Draw(15, 1), tmp_path / name)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    draw_audit(out, Draw(15, 2), tmp_path / "c.csv")
    shared = {row["query"] for row in _rows(tmp_path / "a.csv")}
    assert len(shared & {row["query"] for row in _rows(tmp_path / "c.csv")}) < 40


def test_each_sample_is_drawn_equally_often(scored: Scored) -> None:
    times = np.zeros(len(scored))
    redraws, per_grade = 600, 60
    for seed in range(redraws):
        times += drawn(scored, Draw(per_grade, seed))[1]
    for target in _GRADES:
        mine = times[scored.target == target]
        share = per_grade / len(mine)
        assert mine.sum() == redraws * per_grade
        statistic = ((mine - redraws * share) ** 2 / (redraws * share * (1 - share))).sum()
        # One sum less is free; without replacement the variance is that of (N - 1) / N of it.
        low, high = chi2.ppf([0.0005, 0.9995], len(mine) - 1)
        assert low < statistic * (len(mine) - 1) / len(mine) < high


def test_the_surest_share(scored: Scored) -> None:
    population, chosen = drawn(scored, Draw(30, 0, 0.25))
    assert (chosen & ~population).sum() == 0
    for target in _GRADES:
        mine = scored.target == target
        assert population[mine].mean() == pytest.approx(0.25, abs=0.02)
        confidence = scored.confidence
        assert confidence[mine & population].min() >= confidence[mine & ~population].max()
        assert chosen[mine].sum() == 30


def test_labels_come_back(out: Path, scored: Scored, tmp_path: Path) -> None:
    rows = _labelled(out, tmp_path / "a.csv", Draw(30, 5, 0.5))
    truth = _targets(out, scored, rows)
    for number, (row, target) in enumerate(zip(rows, truth.tolist(), strict=True)):
        row["label"] = [str(target), f" {target}.0 ", NO_GRADE, str((target + 1) % 4)][number % 4]
    found = read_audit(_write(tmp_path / "b.csv", rows[::-1]), scored, _GRADES)
    assert found.draw == Draw(30, 5, 0.5)
    assert found.audited.sum() == len(rows)
    assert found.right.sum() == len([n for n in range(len(rows)) if n % 4 < 2])
    assert not (found.right & ~found.audited).any()
    assert (found.population == drawn(scored, Draw(30, 5, 0.5))[0]).all()


def test_labels_come_back_as_parquet(out: Path, scored: Scored, tmp_path: Path) -> None:
    rows = _labelled(out, tmp_path / "a.csv", _DRAW)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert read_audit(tmp_path / "a.parquet", scored, _GRADES).audited.sum() == 80


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[2].update(label=""), r"column 'label', line 4: the label is missing"),
        (lambda rows: rows[0].update(label="4"), r"line 2: '4' is not one of the grades 0, 1, 2"),
        (lambda rows: rows[0].update(label="1.5"), r"'1\.5' is not one of the grades"),
        (lambda rows: rows[0].update(label="²"), "'²' is not one of the grades"),
        (lambda rows: rows.pop(), r"1 of the 80 rows that were drawn are missing"),
        (lambda rows: rows.append(rows[0]), r"line 82: '\w{16}' was not drawn .* or stands here"),
        (lambda rows: rows[1].update(sample_key="x"), r"line 3: 'x' was not drawn from this run"),
        (
            lambda rows: rows[1].update(draw="mine"),
            r"column 'draw', line 3: 'mine' is not the",
        ),
        (lambda rows: [row.pop("label") for row in rows], r"'label': the column is missing"),
    ],
)
def test_bad_labels(
    out: Path, scored: Scored, tmp_path: Path, change: _Change, message: str
) -> None:
    rows = _labelled(out, tmp_path / "a.csv", _DRAW)
    change(rows)
    with pytest.raises(DataError, match=message):
        read_audit(_write(tmp_path / "b.csv", rows), scored, _GRADES)


def test_another_draw_than_the_rows_say_is_noticed(
    out: Path, scored: Scored, tmp_path: Path
) -> None:
    """Fewer rows and a draw to match would let a labeller leave out what looks bad."""
    rows = _labelled(out, tmp_path / "a.csv", _DRAW)
    for row in rows:
        row["draw"] = row["draw"].replace("20 per", "10 per")
    with pytest.raises(DataError, match="was not drawn from this run"):
        read_audit(_write(tmp_path / "b.csv", rows), scored, _GRADES)


def test_labels_of_several_audits_are_read_to_learn_from(tmp_path: Path) -> None:
    pair = {"query": "q", "doc_id": "a", "sample_key": "1", "draw": "any"}
    first = [
        pair | {"label": "2"},
        pair | {"doc_id": "b", "label": NO_GRADE},
        pair | {"query": "nobody labelled it", "label": ""},
    ]
    second = [pair | {"label": "3"}, pair | {"query": "r", "label": "0.0"}]
    folder = tmp_path / "page"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(second), folder / "audit.parquet")
    files = [_write(tmp_path / "first.csv", first), folder]
    labels = read_labels(files, _GRADES, pa.array(["a", "b"]))
    assert labels.to_pylist() == [
        {"query": "q", "doc_id": "a", "label": 2},
        {"query": "q", "doc_id": "b", "label": -1},
        {"query": "r", "doc_id": "a", "label": 0},
    ]
    assert read_labels([], _GRADES, pa.array(["a"])).schema == labels.schema
    with pytest.raises(DataError, match="'b' is not in the corpus"):
        read_labels(files, _GRADES, pa.array(["a"]))
    with pytest.raises(DataError, match="'3' is not one of the grades 0, 1, 2"):
        read_labels(files, (0, 1, 2), pa.array(["a", "b"]))


def test_the_oracle_labels(out: Path, tmp_path: Path) -> None:
    report = draw_audit(out, Draw(10, 0), tmp_path / "a.csv", oracle=True)
    assert report.labelled
    corpus = pa.ipc.open_file(out.parent / "corpus.arrow").read_all()
    facets = dict(zip(corpus["doc_id"].to_pylist(), corpus["facets"].to_pylist(), strict=True))
    for row in _rows(report.file):
        grade = oracle_grade(row["query"], {"facets": facets[row["doc_id"]]})
        assert row["label"] == (NO_GRADE if grade is None else str(grade))


def test_no_oracle_without_a_simulation(tmp_path: Path) -> None:
    rows = [{"doc_id": f"d{n}", "title": f"title {n}"} for n in range(5)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "corpus.parquet")
    config = load_config(overrides={"refine.rounds": 0, "synthesize.attempts": 1})
    inputs = [str(tmp_path / "corpus.parquet")]
    run(config, inputs, fake_roles(config.grades), tmp_path / "out")
    with pytest.raises(ConfigError, match="the oracle grades simulated documents only"):
        draw_audit(tmp_path / "out", Draw(2, 0), tmp_path / "a.csv", oracle=True)
    assert not (tmp_path / "a.csv").exists()
    assert sum(draw_audit(tmp_path / "out", Draw(9, 0), tmp_path / "a.csv").drawn.values()) <= 20


def test_labels_are_never_overwritten(out: Path, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("my labels")
    with pytest.raises(ConfigError, match="may hold labels"):
        draw_audit(out, Draw(5, 0), tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == "my labels"


def test_another_corpus_is_refused(out: Path, tmp_path: Path) -> None:
    write(simulate(30, 9), tmp_path)
    with pytest.raises(DataError, match="not the documents of"):
        draw_audit(out, Draw(5, 0), tmp_path / "a.csv", corpus=[str(tmp_path / "corpus.arrow")])


def test_missing_parts(out: Path, tmp_path: Path) -> None:
    shutil.copytree(out, tmp_path / "out")
    (tmp_path / "out/rejected/part-00000.parquet").unlink()
    with pytest.raises(Exception, match="parts of the rows are missing"):
        read_scored(open_outputs(tmp_path / "out"))
    (tmp_path / "out/rejected/part-00000.parquet").write_bytes(b"PAR1")
    with pytest.raises(Exception, match="cannot be read"):
        read_scored(open_outputs(tmp_path / "out"))


def test_arrow_outputs(out: Path, scored: Scored, tmp_path: Path) -> None:
    settings = {"refine.rounds": 0, "synthesize.per_grade": 2, "output.format": "arrow"}
    config = load_config(overrides=settings)
    run(config, [out.parent / "corpus.arrow"], fake_roles(config.grades), tmp_path / "out")
    found = read_scored(open_outputs(tmp_path / "out"))
    assert sorted(found.seed.tolist()) == sorted(scored.seed.tolist())


def test_duplicates_within_documents_only(out: Path, scored: Scored, tmp_path: Path) -> None:
    settings = {
        "refine.rounds": 0,
        "synthesize.per_grade": 2,
        "filter.duplicates": "document",
    }
    config = load_config(overrides=settings)
    run(config, [out.parent / "corpus.arrow"], fake_roles(config.grades), tmp_path / "out")
    found = read_scored(open_outputs(tmp_path / "out"))
    assert set(scored.seed.tolist()) < set(found.seed.tolist())
    codes = encode_reasons(pq.read_table(tmp_path / "out/rejected").column("reason"))
    assert KEPT not in codes
