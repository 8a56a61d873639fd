"""`ssra-engine mine`: files in, hard negatives out; graded by a score model; made once."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from files import write
from small_models import byte_tokenizer

from ssra_engine.cli import main
from ssra_engine.config import Config
from ssra_engine.corpus import open_corpus
from ssra_engine.engines import Request, load_engine
from ssra_engine.evaluation.embedding import document_texts
from ssra_engine.hard_negatives import METADATA, RELEVANT
from ssra_engine.judgments import read_judgments, read_split
from ssra_engine.negatives import slices
from ssra_engine.negatives.slices import SlicedModel
from ssra_engine.negatives.tables import mine_negatives
from ssra_engine.prompts import TEMPLATES
from ssra_engine.schema import NEGATIVES

_WORDS = ("panda", "noodles", "garlic", "fox", "river", "小猫", "rain", "lazy dog")
_BIAS = (0.0, 0.5, 0.25, 0.5)


@pytest.fixture(scope="module")
def model() -> Any:
    """Random vectors of bytes: texts that share letters are near each other."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    tokenizer = byte_tokenizer().backend_tokenizer
    weights = np.random.default_rng(0).normal(size=(tokenizer.get_vocab_size(), 16))
    module = StaticEmbedding(tokenizer, embedding_weights=weights.astype(np.float32))
    return SentenceTransformer(modules=[module], device="cpu")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, model: Any) -> Path:
    """30 documents, two of which are alike, and 8 queries with 8 judgments each; 2 are dev."""
    folder = tmp_path_factory.mktemp("world")
    generator = np.random.default_rng(0)
    documents = [
        {"doc_id": f"d{row}", "title": f"{_WORDS[row % 8]} {_WORDS[row // 4]}", "text": f"{row}"}
        for row in range(29)
    ]
    documents.append({**documents[3], "doc_id": "copy"})
    judgments = [
        {
            "query": word,
            "doc_id": f"d{row}",
            "grade": int(word in documents[row]["title"]) * 2 + int(generator.integers(0, 2)),
            "split": "train" if number < 6 else "dev",
        }
        for number, word in enumerate(_WORDS)
        for row in generator.permutation(29)[:8].tolist()
    ]
    write(documents, folder / "corpus.parquet")
    write(judgments, folder / "judgments.parquet")
    model.save_pretrained(str(folder / "model"), create_model_card=False)
    return folder


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory, llama_folder: Path) -> Path:
    """An engines folder with a score model of random weights."""
    folder = tmp_path_factory.mktemp("engines")
    shutil.copytree(llama_folder, folder / "score")
    (folder / "query").mkdir()
    (folder / "d2q.arrow").touch()
    (folder / "config.yaml").write_text(Config().to_yaml())
    manifest = {
        "version": 2,
        "fingerprint": "",
        "grades": [0, 1, 2, 3],
        "template": "plain",
        "figures": {"score": {"temperature": 1.5, "bias": list(_BIAS)}},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "settings.yaml").write_text("engine: {dtype: float32, threads: 1}")
    return folder


def mine(world: Path, *more: Any) -> Any:
    data = ["--corpus", world / "corpus.parquet", "--judgments", world / "judgments.parquet"]
    arguments = ["mine", *data, "--model", world / "model", *more]
    return CliRunner().invoke(main, [str(one) for one in arguments])


def done(world: Path, *more: Any) -> str:
    result = mine(world, *more)
    assert result.exit_code == 0, result.output
    return str(result.output)


def test_the_table_is_that_of_mine_negatives_in_either_format(
    world: Path, model: Any, tmp_path: Path
) -> None:
    parquet, arrow = tmp_path / "deep/negatives.parquet", tmp_path / "negatives.arrow"
    told = done(world, "--negatives", 2, "--output", parquet)
    done(world, "--negatives", 2, "--output", arrow)
    from ssra_engine.negatives.settings import Settings

    judged = read_split([world / "judgments.parquet"], (0, 1, 2, 3), "train")
    corpus = open_corpus([world / "corpus.parquet"]).table()
    expected = mine_negatives(judged, corpus, model, Settings(num_negatives=2))
    for table in (pq.read_table(parquet), pa.ipc.open_file(arrow).read_all()):
        assert table.equals(expected)
        assert table.schema.equals(NEGATIVES)
        tree = json.loads(table.schema.metadata[METADATA])
        assert tree["made_of"]["settings"]["num_negatives"] == 2
        assert tree["figures"]["pairs"]["with_negatives"] == len(expected)
    assert set(expected["query"].to_pylist()) == set(_WORDS[:6])
    assert f"{len(expected)}" in told


def test_the_same_again_does_nothing_and_other_settings_replace_the_file(
    world: Path, tmp_path: Path
) -> None:
    output = tmp_path / "negatives.parquet"
    done(world, "--output", output)
    before = output.stat().st_mtime_ns
    assert "nothing was done" in done(world, "--output", output, "--batch-size", 3)
    assert output.stat().st_mtime_ns == before
    first = pq.read_table(output)
    for change in (["--max-score", "0.9"], ["--document-prompt", "about: "], ["--split", "all"]):
        assert "nothing was done" not in done(world, "--output", output, *change)
        assert not pq.read_table(output).equals(first)
    assert [path.name for path in tmp_path.iterdir()] == [output.name]


def test_the_cache_changes_nothing(world: Path, tmp_path: Path) -> None:
    tables = []
    for number in range(2):
        output = tmp_path / f"{number}.parquet"
        done(world, "--cache", tmp_path / "cache", "--output", output)
        tables.append(pq.read_table(output))
    assert tables[0].equals(tables[1])
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 2


def test_the_cache_keeps_models_apart(world: Path, model: Any, tmp_path: Path) -> None:
    shutil.copytree(world, tmp_path / "other")
    parameters = dict(model.named_parameters())
    changed = copy.deepcopy(model)
    for name, parameter in changed.named_parameters():
        parameter.data = parameters[name].data.flip(0)
    changed.save_pretrained(str(tmp_path / "other/model"), create_model_card=False)
    cache = ("--cache", tmp_path / "cache", "--output")
    done(world, *cache, tmp_path / "one.parquet")
    done(tmp_path / "other", *cache, tmp_path / "two.parquet")
    one, two = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("one", "two"))
    assert not one.column("score").equals(two.column("score"))


def score_model_grades(world: Path, engines: Path, pairs: Sequence[tuple[str, str]]) -> list[int]:
    """A pair at a time, through the engine's own convenience form."""
    corpus = open_corpus([world / "corpus.parquet"]).table()
    prefixes = TEMPLATES["plain"].documents(corpus).to_pylist()
    row = {doc_id: number for number, doc_id in enumerate(corpus["doc_id"].to_pylist())}
    suffixes = TEMPLATES["plain"].score_suffixes(pa.array([query for query, _ in pairs]), 4)
    engine = load_engine(engines / "score", dtype="float32", threads=1)
    grades = []
    for (_, doc_id), suffix in zip(pairs, suffixes.to_pylist(), strict=True):
        request = Request(prefixes[row[doc_id]], suffix)
        logits = engine.label_logits([request], ["0", "1", "2", "3"])[0]
        grades.append(int(np.argmax(logits / 1.5 + np.asarray(_BIAS))))
    engine.close()
    return grades


def test_the_score_model_decides_what_is_a_negative_and_what_is_relevant(
    world: Path, engines: Path, tmp_path: Path
) -> None:
    output, relevant = tmp_path / "negatives.parquet", tmp_path / "relevant.arrow"
    arguments = ["--engines", engines, "--config", engines / "settings.yaml"]
    arguments += ["--output", output, "--relevant", relevant]
    told = done(world, *arguments)
    table = pq.read_table(output)
    judged = read_judgments([world / "judgments.parquet"], (0, 1, 2, 3)).to_pylist()
    grade_of = {(row["query"], row["doc_id"]): row["grade"] for row in judged}

    mined = [
        (grade_of[row["query"], row["doc_id"]], (row["query"], doc_id), grade)
        for row in table.to_pylist()
        for doc_id, grade in zip(row["negative_doc_ids"], row["negative_grades"], strict=True)
    ]
    assert mined
    assert all(grade < floor for floor, _, grade in mined)
    unjudged = [(pair, grade) for _, pair, grade in mined if pair not in grade_of]
    assert [grade for _, grade in unjudged] == score_model_grades(
        world, engines, [pair for pair, _ in unjudged]
    )

    found = pa.ipc.open_file(relevant).read_all()
    assert found.schema.equals(RELEVANT)
    pairs = list(zip(found["query"].to_pylist(), found["doc_id"].to_pylist(), strict=True))
    assert pairs
    assert len(set(pairs)) == len(pairs)
    assert not set(pairs) & set(grade_of)
    assert found["grade"].to_pylist() == score_model_grades(world, engines, pairs)
    for (query, _), grade in zip(pairs, found["grade"].to_pylist(), strict=True):
        assert grade >= min(g for (q, _), g in grade_of.items() if q == query and g > 0)
    probs = np.stack(found["probs"].to_numpy())
    assert probs.sum(1) == pytest.approx(1)
    assert "graded" in told

    both = [world / "judgments.parquet", relevant]
    joined = read_judgments(both, (0, 1, 2, 3))
    assert len(joined) == len(judged) + len(found)
    assert pc.unique(joined["split"]).to_pylist() == ["train", "dev"]

    assert "nothing was done" in done(world, *arguments)
    relevant.unlink()
    assert "nothing was done" not in done(world, *arguments)
    assert pa.ipc.open_file(relevant).read_all().equals(found)


def test_samples_of_a_run_are_pairs_unless_they_are_held_out_or_judged(
    world: Path, tmp_path: Path
) -> None:
    judged = read_split([world / "judgments.parquet"], (0, 1, 2, 3), "train").to_pylist()
    samples = [
        {"query": "a wholly new query", "doc_id": "d7", "target": 2},
        {"query": _WORDS[7].upper(), "doc_id": "d8", "target": 3},  # of dev
        {"query": judged[0]["query"], "doc_id": judged[0]["doc_id"], "target": 3},
    ]
    accepted = tmp_path / "accepted"
    accepted.mkdir()
    write(samples, accepted / "part-00000.parquet")
    plain, more = tmp_path / "plain.parquet", tmp_path / "more.parquet"
    done(world, "--output", plain)
    done(world, "--synthetic", accepted, "--output", more)
    rows = pq.read_table(more)
    new = pc.equal(rows["query"], "a wholly new query")
    assert rows.filter(new)["doc_id"].to_pylist() == ["d7"]
    assert rows.filter(pc.invert(new)).equals(pq.read_table(plain))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "negatives.csv"], "must end with .parquet or .arrow"),
        (["--relevant", "r.parquet"], "Add --engines"),
        (["--split", "test"], "no row is in the split test"),
        (["--grades", "0,1"], "not one of the grades 0, 1"),
        (["--model", "nowhere"], "nowhere: "),
        (["--synthetic", "nowhere"], "no such folder"),
        (["--negatives", "3", "--range-max", "2"], "widen the range"),
        (["--min-score", "nan"], "not a number"),
        (["--output", "taken.parquet"], "not written by `ssra-engine mine`"),
    ],
)
def test_mistakes_are_told(
    world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    pq.write_table(pa.table({"a": [1]}), "taken.parquet")
    before = Path("taken.parquet").read_bytes()
    result = mine(world, *arguments)
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert Path("taken.parquet").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["taken.parquet"]


def test_a_judged_document_that_is_missing_is_told(world: Path, tmp_path: Path) -> None:
    rows = [
        {"query": "fox", "doc_id": "d1", "grade": 1},
        {"query": "fox", "doc_id": "?", "grade": 0},
    ]
    extra = write(rows, tmp_path / "more.jsonl")
    result = mine(world, "--judgments", extra)
    assert result.exit_code == 2
    assert "more.jsonl" in result.output
    assert "'?' is not in the corpus" in result.output


def test_slices_give_the_vectors_of_the_whole(
    model: Any, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Told:
        def __init__(self) -> None:
            self.steps: list[tuple[str, int, int]] = []

        def begin(self, name: str, documents: int, done: int) -> None:
            self.steps.append((name, documents, done))

        def update(self, done: float) -> None:
            self.steps.append(("", 0, int(done)))

    monkeypatch.setattr(slices, "_SLICE", 11)
    texts = document_texts(open_corpus([world / "corpus.parquet"]).table()).to_pylist()
    told = Told()
    sliced = SlicedModel(model, told)
    ours = sliced.encode_document(texts, normalize_embeddings=True, convert_to_numpy=True)
    theirs = model.encode_document(texts, normalize_embeddings=True, convert_to_numpy=True)
    assert ours == pytest.approx(theirs, abs=1e-6)
    assert told.steps == [("embed the documents", 30, 0), ("", 0, 11), ("", 0, 22), ("", 0, 30)]
    assert sliced.similarity_fn_name == "cosine"
