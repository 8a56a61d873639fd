"""Exports: each layout opened by the library it is for, and true to the run."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from documents import write_documents

from ssra_engine.audit import Draw
from ssra_engine.auditing.book import Book
from ssra_engine.auditing.pairs import draw_pairs
from ssra_engine.cli import main
from ssra_engine.config import load_config
from ssra_engine.corpus import open_corpus
from ssra_engine.errors import ConfigError, DataError, StoreError
from ssra_engine.export.layouts import LAYOUTS
from ssra_engine.export.write import export_run
from ssra_engine.keys import normalise
from ssra_engine.roles import fake_roles
from ssra_engine.run import run
from ssra_engine.schema import CORPUS

_SPLITS = ("train", "dev", "test")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in several shards whose kept queries repeat across documents and grades."""
    folder = tmp_path_factory.mktemp("exported")
    write_documents(folder / "corpus.arrow", 150)
    overrides = {"output.shard_documents": 37, "filter.duplicates": "document"}
    config = load_config(overrides={**overrides, "synthesize.per_grade": 2})
    run(config, [folder / "corpus.arrow"], fake_roles(config.grades), folder / "out")
    return folder / "out"


@pytest.fixture(scope="module")
def kept(out: Path) -> list[dict[str, Any]]:
    return pq.read_table(out / "synthetic").to_pylist()


@pytest.fixture(autouse=True)
def _no_cache_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def _load(folder: Path, *arguments: str, **options: Any) -> Any:
    from datasets import load_dataset

    return load_dataset(str(folder), *arguments, **options)


def _normal(query: str) -> str:
    return str(normalise(pa.array([query]))[0])


def _triples(rows: Any, grade: str = "grade") -> list[tuple[str, str, int]]:
    return [(row["query"], row["doc_id"], row[grade]) for row in rows]


def test_hf_loads_with_datasets_and_holds_every_kept_row(
    out: Path, kept: list[dict[str, Any]], tmp_path: Path
) -> None:
    assert export_run(out, "hf", tmp_path / "hf") == ["README.md", "data/train.parquet"]
    loaded = _load(tmp_path / "hf", split="train")
    assert _triples(loaded) == _triples(kept, "target")
    titles = {
        row["doc_id"]: " ".join(row["title"].split())
        for batch in open_corpus([out.parent / "corpus.arrow"]).batches()
        for row in batch.to_pylist()
    }
    assert all(row["document"].startswith(titles[row["doc_id"]]) for row in loaded)


def test_dataset_has_disjoint_splits_a_card_and_a_guideline(
    out: Path, kept: list[dict[str, Any]], tmp_path: Path
) -> None:
    folder = tmp_path / "dataset"
    export_run(out, "dataset", folder, dev=0.2, test=0.2)
    loaded = _load(folder)
    assert set(loaded) == set(_SPLITS)
    every = [row for name in _SPLITS for row in loaded[name]]
    assert sorted(_triples(every)) == sorted(_triples(kept, "target"))
    queries = {name: {_normal(row["query"]) for row in loaded[name]} for name in _SPLITS}
    together = set.union(*queries.values())
    assert sum(map(len, queries.values())) == len(together)
    assert all(0.1 < len(queries[name]) / len(together) < 0.3 for name in ("dev", "test"))
    assert len(_load(folder, "corpus", split="corpus")) == 150
    card = (folder / "README.md").read_text()
    assert f"| train | {sum(r['grade'] == 0 for r in loaded['train'])} |" in card
    assert "No person graded these pairs" in card
    assert "satisfies the intent precisely" in (folder / "GUIDELINE.md").read_text()
    again = tmp_path / "again"
    export_run(out, "dataset", again, dev=0.2, test=0.2)
    names = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    assert all((folder / name).read_bytes() == (again / name).read_bytes() for name in names)


def test_the_card_of_a_dataset_tells_the_agreement_of_an_audit(out: Path, tmp_path: Path) -> None:
    with Book(draw_pairs(out, Draw(5, 0)), tmp_path / "page") as book:
        for number, (key, pair) in enumerate(book.pairs.items()):
            book.answer("Anna Secret", key, str(pair.target))
            book.answer("Bo", key, str(pair.target if number % 2 else 0))
        for key in book.disagreements():
            book.adjudicate("Bo", key, "0")
    export_run(out, "dataset", tmp_path / "dataset", audit=tmp_path / "page")
    card = (tmp_path / "dataset/README.md").read_text()
    assert "## Agreement" in card
    assert "20 scored pairs" in card
    assert re.search(r"^\| 0 \| 100% \[\d+%, 100%\], \d of \d \|", card, re.MULTILINE)
    assert re.search(r"^\| 1 and 2 \| 20 \| \d+% \| 0\.\d\d \| ", card, re.MULTILINE)
    assert "Anna" not in card
    assert "No person graded" not in card
    with pytest.raises(ConfigError, match="leave out --audit"):
        export_run(out, "hf", tmp_path / "hf", audit=tmp_path / "page")


def test_pairs_train_and_evaluate_in_sentence_transformers(
    out: Path, kept: list[dict[str, Any]], tmp_path: Path
) -> None:
    from sentence_transformers.sentence_transformer.evaluation import (
        EmbeddingSimilarityEvaluator,
    )

    export_run(out, "pairs", tmp_path / "pairs")
    rows = _load(tmp_path / "pairs", split="train")
    assert rows.column_names == ["sentence1", "sentence2", "score"]
    assert rows["sentence1"] == [row["query"] for row in kept]
    assert rows["score"] == pytest.approx([row["target"] / 3 for row in kept])
    evaluator = EmbeddingSimilarityEvaluator(rows["sentence1"], rows["sentence2"], rows["score"])
    assert len(evaluator.scores) == len(kept)


def test_triplets_contrast_queries_of_one_document(
    out: Path, kept: list[dict[str, Any]], tmp_path: Path
) -> None:
    from sentence_transformers.sentence_transformer.evaluation import TripletEvaluator

    export_run(out, "triplets", tmp_path / "triplets")
    rows = _load(tmp_path / "triplets", split="train")
    of_documents: dict[str, list[dict[str, Any]]] = {}
    for row in kept:
        of_documents.setdefault(row["doc_id"], []).append(row)
    wanted = sorted(
        (one["query"], other["query"])
        for some in of_documents.values()
        for one in some
        for other in some
        if one["target"] >= 2 and one["target"] > other["target"]
    )
    assert wanted
    assert sorted(zip(rows["positive"], rows["negative"], strict=True)) == wanted
    assert len(TripletEvaluator(rows["anchor"], rows["positive"], rows["negative"]).anchors)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def test_beir_holds_each_query_once_and_qrels_that_name_them(
    out: Path, kept: list[dict[str, Any]], tmp_path: Path
) -> None:
    export_run(out, "beir", tmp_path / "beir")
    corpus = {row["_id"]: row for row in _lines(tmp_path / "beir/corpus.jsonl")}
    queries = list(_lines(tmp_path / "beir/queries.jsonl"))
    assert len(corpus) == 150
    assert set(corpus["doc-0"]) == {"_id", "title", "text"}
    assert len({row["_id"] for row in queries}) == len(queries)
    assert len(queries) == len({_normal(row["query"]) for row in kept}) < len(kept)
    texts = {row["_id"]: _normal(row["text"]) for row in queries}
    found = []
    for split in _SPLITS:
        with (tmp_path / f"beir/qrels/{split}.tsv").open(encoding="utf-8") as file:
            reader = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_MINIMAL)
            assert next(reader) == ["query-id", "corpus-id", "score"]
            found += [(texts[query], doc_id, int(score)) for query, doc_id, score in reader]
    assert {doc_id for _, doc_id, _ in found} <= set(corpus)
    wanted = [(_normal(row["query"]), row["doc_id"], row["target"]) for row in kept]
    assert sorted(found) == sorted(wanted)


def test_mteb_loads_by_configuration(out: Path, kept: list[dict[str, Any]], tmp_path: Path) -> None:
    folder = tmp_path / "mteb"
    export_run(out, "mteb", folder, dev=0)
    corpus = _load(folder, "corpus", split="corpus")
    queries = _load(folder, "queries", split="queries")
    qrels = _load(folder, "default")
    assert set(qrels) == {"train", "test"}
    assert set(qrels["test"].column_names) == {"query-id", "corpus-id", "score"}
    rows = [row for name in qrels for row in qrels[name]]
    assert len(rows) == len(kept)
    assert {row["query-id"] for row in rows} == set(queries["_id"])
    assert {row["corpus-id"] for row in rows} <= set(corpus["_id"])


@pytest.mark.parametrize("layout", ["pairs", "hf"])
def test_tables_open_in_duckdb_polars_and_pandas(
    out: Path, kept: list[dict[str, Any]], tmp_path: Path, layout: str
) -> None:
    import duckdb
    import pandas as pd
    import polars as pl

    export_run(out, layout, tmp_path / "out")
    (path,) = (tmp_path / "out").rglob("*.parquet")
    counted = duckdb.sql(f"SELECT count(*) FROM '{path}'").fetchall()[0][0]
    assert counted == len(pl.read_parquet(path)) == len(pd.read_parquet(path)) == len(kept)


def test_the_command_offers_every_layout_and_tells_mistakes(out: Path, tmp_path: Path) -> None:
    def call(*arguments: str | Path) -> Any:
        return CliRunner().invoke(main, ["export", *map(str, arguments)])

    done = call(out, "--format", "pairs", "--output", tmp_path / "p")
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{tmp_path / 'p' / 'train.parquet'}\n"
    assert all(
        f"'{name}'" in call(out, "--format", "x", "--output", "y").stderr for name in LAYOUTS
    )
    again = call(out, "--format", "pairs", "--output", tmp_path / "p")
    assert again.exit_code == 2
    assert "is there already" in again.stderr
    with pytest.raises(ConfigError, match="less than 1"):
        export_run(out, "beir", tmp_path / "b", dev=0.5, test=0.5)
    with pytest.raises(StoreError, match="not the output"):
        export_run(tmp_path, "beir", tmp_path / "b")
    other = write_documents(tmp_path / "other.arrow", 5)
    with pytest.raises(DataError, match="not the documents"):
        export_run(out, "beir", tmp_path / "b", corpus=[str(other)])
    tabbed = tmp_path / "tabbed"
    tabbed.mkdir()
    row = {"doc_id": "a\tb", "title": "t", "text": "", "ocr": "", "asr": ""}
    with pa.ipc.new_file(tabbed / "corpus.arrow", CORPUS) as writer:
        writer.write_table(pa.Table.from_pylist([row], schema=CORPUS))
    config = load_config()
    run(config, [tabbed / "corpus.arrow"], fake_roles(config.grades), tabbed / "out")
    with pytest.raises(DataError, match="a tab or a line break"):
        export_run(tabbed / "out", "beir", tmp_path / "b")
    assert not list(tmp_path.glob("b*"))
