"""What a whole run keeps and learns from: filters, quotas and splits, seen in its output.

The filters have tests of their own. These ask what would be in the output if one of them were left
out somewhere: in the final synthesis, in a later wave, before a quota is counted.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from alike_engine import AlikeEngine
from documents import make_documents, write_documents

from ssra_engine.building.data import read_data
from ssra_engine.config import load_config
from ssra_engine.corpus import open_corpus
from ssra_engine.engines.engine import Engine
from ssra_engine.engines.fake import FakeEngine
from ssra_engine.keys import normalise
from ssra_engine.roles import Roles, fake_roles
from ssra_engine.run import run
from ssra_engine.stages.annotate import score_requests
from ssra_engine.stages.filter import score

_LABELS = ("0", "1", "2", "3")


def _run(tmp_path: Path, roles: Roles, documents: int = 60, **settings: Any) -> Path:
    corpus = write_documents(tmp_path / "corpus.arrow", documents)
    defaults = {"refine__documents": 30, "output__shard_documents": 25}
    tree = {name.replace("__", "."): value for name, value in (defaults | settings).items()}
    config = load_config(overrides=tree)
    out = tmp_path / "out"
    run(config, [corpus], roles, out)
    return out


def _rows(*folders: Path) -> list[dict[str, Any]]:
    paths = [path for folder in folders for path in sorted(folder.glob("*.parquet"))]
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


@pytest.fixture(scope="module")
def learned() -> list[pa.Table]:
    """What each round taught the query model."""
    return []


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, learned: list[pa.Table]) -> Path:
    """Two rounds of refinement, three waves of sampling."""
    fake = fake_roles((0, 1, 2, 3))

    def retrain(d2q: pa.Table, folder: Path, seed: int) -> None:
        learned.append(d2q)
        fake.retrain(d2q, folder, seed)

    roles = dataclasses.replace(fake, retrain=retrain)
    settings = {"refine__rounds": 2, "synthesize__per_grade": 2, "synthesize__attempts": 3}
    return _run(tmp_path_factory.mktemp("kept"), roles, **settings)


_KEPT = ("rounds/1/kept", "rounds/2/kept", "synthetic")


@pytest.mark.parametrize("part", _KEPT)
def test_the_score_model_gives_every_kept_query_its_target_when_asked_again(
    out: Path, part: str
) -> None:
    rows = _rows(out / part)
    assert len(rows) > 100
    roles, documents = fake_roles((0, 1, 2, 3)), make_documents(60)
    prefixes = dict(
        zip(
            documents.column("doc_id").to_pylist(),
            roles.template.documents(documents).to_pylist(),
            strict=True,
        )
    )
    asked = pa.table(
        {
            "document": [prefixes[row["doc_id"]] for row in rows],
            "query": [row["query"] for row in rows],
        }
    )
    requests = score_requests(asked, roles.template, 4)
    probs = score(FakeEngine(), requests, _LABELS, roles.calibration, lambda _: None)
    targets = [row["target"] for row in rows]
    assert probs.argmax(axis=1).tolist() == targets == [row["grade"] for row in rows]
    np.testing.assert_allclose(probs, [row["probs"] for row in rows], atol=1e-6)


@pytest.mark.parametrize("number", [1, 2])
def test_a_round_teaches_what_it_kept_and_nothing_else(
    out: Path, learned: list[pa.Table], number: int
) -> None:
    kept = [(r["doc_id"], r["query"], r["target"]) for r in _rows(out / f"rounds/{number}/kept")]
    taught = learned[number - 1].select(["doc_id", "query", "grade"]).to_pylist()
    assert [tuple(row.values()) for row in taught] == kept
    assert len(_rows(out / f"rounds/{number}/rejected")) > 50, "the filters had work"


def _written_by(engine: Engine) -> Roles:
    return dataclasses.replace(fake_roles((0, 1, 2, 3)), open_query=lambda _: engine)


@pytest.mark.parametrize("engine", [FakeEngine(), AlikeEngine(2)])
def test_a_cell_that_the_filters_left_short_was_asked_in_every_wave(
    tmp_path: Path, engine: Engine
) -> None:
    settings = {
        "refine__rounds": 0,
        "synthesize__per_grade": 2,
        "synthesize__attempts": 4,
        "filter__duplicates": "document",
        "filter__comparator": "none",  # which may drop what an earlier wave had kept
    }
    out = _run(tmp_path, _written_by(engine), **settings)
    rejected = _rows(out / "rejected")
    kept = Counter((row["doc_id"], row["target"]) for row in _rows(out / "synthetic"))
    asked = kept + Counter((row["doc_id"], row["target"]) for row in rejected)
    short = [cell for cell in asked if kept[cell] < 2]
    assert len(asked) == 60 * 4
    assert len(short) > 3
    assert all(asked[cell] >= 2 + 3 for cell in short)
    assert max(kept.values()) == 2
    if isinstance(engine, AlikeEngine):
        assert Counter(row["reason"] for row in rejected)["near_duplicate"] > 0


def test_without_the_score_filter_a_query_of_a_document_still_has_one_target(
    tmp_path: Path,
) -> None:
    settings = {
        "refine__rounds": 0,
        "filter__scored": False,
        "filter__comparator": "none",
        "filter__near_duplicates": "none",
    }
    out = _run(tmp_path, _written_by(AlikeEngine(2)), **settings)
    rows = _rows(out / "synthetic", out / "rejected")
    pairs = {(row["doc_id"], row["query"], row["target"]) for row in rows}
    assert len(pairs) > len({pair[:2] for pair in pairs}), "the engine repeats itself"
    kept = _rows(out / "synthetic")
    assert len({(row["doc_id"], row["query"]) for row in kept}) == len(kept) > 0


@pytest.mark.parametrize("split", ["dev", "test"])
def test_a_held_out_query_teaches_nothing_however_it_is_written(tmp_path: Path, split: str) -> None:
    corpus = write_documents(tmp_path / "corpus.arrow", 8)
    judgments, pairs = tmp_path / "judgments.parquet", tmp_path / "pairs.parquet"
    judged = {
        "query": ["red panda", "rain", "snow", "Held  Out"],
        "doc_id": [f"doc-{n}" for n in range(4)],
        "grade": [3, 0, 2, 1],
        "split": ["train", "train", "dev", split],
    }
    pq.write_table(pa.table(judged), judgments)
    written = ["held out", "HELD OUT ", "\uff48\uff45\uff4c\uff44 out", "another", "rain"]
    pq.write_table(pa.table({"query": written, "doc_id": ["doc-7"] * 5}), pairs)
    config = load_config(overrides={"model.preset": "tiny"})
    data = read_data(config, open_corpus([corpus]), [judgments], [pairs])
    for learned in (data.train["query"], data.pairs["query"]):
        forms = normalise(learned.combine_chunks()).to_pylist()
        assert forms
        assert "held out" not in forms
    assert data.pairs["query"].to_pylist() == ["another", "rain"]
    assert data.pairs_of_held_out_queries == 3
