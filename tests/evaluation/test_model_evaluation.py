"""Embedding models on judgments: files in, report out; what bad input gets; the evaluator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from files import write
from small_models import byte_tokenizer

from ssra_engine.cli import main
from ssra_engine.errors import ConfigError, DataError, EngineError
from ssra_engine.evaluation.embedding import (
    at_precision,
    check_dims,
    document_texts,
    embed,
    load_model,
    truncate,
)
from ssra_engine.evaluation.evaluator import GradedEvaluator, judged_columns
from ssra_engine.evaluation.measuring import Settings
from ssra_engine.evaluation.retrieval import evaluate_model, read_judged
from ssra_engine.judgments import read_judgments, read_split
from ssra_engine.schema import CORPUS

_WORDS = ("panda", "noodles", "garlic", "fox", "river", "小猫", "rain", "lazy dog")
_DIM = 16


def _static_model(seed: int, scale: float = 1.0, **options: Any) -> Any:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    tokenizer = byte_tokenizer().backend_tokenizer
    weights = np.random.default_rng(seed).normal(size=(tokenizer.get_vocab_size(), _DIM)) * scale
    module = StaticEmbedding(tokenizer, embedding_weights=weights.astype(np.float32))
    return SentenceTransformer(modules=[module], device="cpu", **options)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two models with random vectors of bytes: texts that share letters are near each other."""
    made = []
    for seed in (1, 2):
        folder = tmp_path_factory.mktemp(f"model{seed}")
        _static_model(seed).save_pretrained(str(folder), create_model_card=False)
        made.append(folder)
    return made[0], made[1]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """30 documents, 8 queries with 12 judgments each; the split is dev for the last 6."""
    folder = tmp_path_factory.mktemp("world")
    generator = np.random.default_rng(0)
    documents = [
        {"doc_id": f"d{row}", "title": f"{_WORDS[row % 8]} {_WORDS[row // 4]}", "text": f"{row}"}
        for row in range(30)
    ]
    judgments = [
        {
            "query": word,
            "doc_id": f"d{row}",
            "grade": int(word in documents[row]["title"]) * 2 + int(generator.integers(0, 2)),
            "split": "train" if number < 2 else "dev",
        }
        for number, word in enumerate(_WORDS)
        for row in generator.permutation(30)[:12]
    ]
    return (
        write(documents, folder / "corpus.parquet"),
        write(judgments, folder / "judgments.parquet"),
    )


def _invoke(*arguments: Any) -> Any:
    return CliRunner().invoke(main, ["evaluate", "model", *map(str, arguments)])


def _arguments(world: tuple[Path, Path], *more: Any) -> list[Any]:
    return ["--corpus", world[0], "--judgments", world[1], "--resamples", 30, *more]


def test_the_command_writes_a_report_and_the_figures_per_query(
    world: tuple[Path, Path], folders: tuple[Path, Path], tmp_path: Path
) -> None:
    arguments = _arguments(world, "--dims", "8,16", "--against", folders[1])
    result = _invoke(folders[0], *arguments, "--output", tmp_path / "one")
    assert result.exit_code == 0, result.output
    for shown in ("ndcg_exp@10", "ap_mean", "binary", "minus", "dim 8", "dim 16"):
        assert shown in result.output
    report = json.loads((tmp_path / "one/report.json").read_text())
    assert (report["queries"], report["pairs"], report["split"]) == (6, 72, "dev")
    keys = [(row["model"], row["dim"], row["precision"]) for row in report["results"]]
    expected = [
        (str(folder), dim, precision)
        for folder in folders
        for dim in (8, 16)
        for precision in ("float32", "int8", "binary")
    ]
    assert keys == expected
    assert len(report["comparisons"]) == 6
    rows = pq.read_table(tmp_path / "one/queries.parquet")
    assert len(rows) == 12 * 6
    first = report["results"][0]["per_query"]["ndcg_exp@10"]
    assert first["value"] == pytest.approx(np.mean(rows["ndcg_exp@10"].to_pylist()[:6]))
    assert first["low"] <= first["value"] <= first["high"]

    again = _invoke(folders[0], *arguments, "--output", tmp_path / "two", "--json")
    assert again.exit_code == 0
    for name in ("report.json", "queries.parquet"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_the_batch_size_changes_nothing(
    world: tuple[Path, Path], folders: tuple[Path, Path]
) -> None:
    judged = read_judged([world[0]], [world[1]], (0, 1, 2, 3), "dev", Settings())
    tables = [
        evaluate_model(folders[0], judged, Settings(resamples=0), batch_size=size).per_query
        for size in (1, 7)
    ]
    for name in tables[0].column_names[5:]:
        ours, theirs = (table[name].to_numpy() for table in tables)
        assert ours == pytest.approx(theirs, abs=1e-6, nan_ok=True)


def test_corpus_mode_searches_documents_that_nobody_judged(
    world: tuple[Path, Path], folders: tuple[Path, Path]
) -> None:
    result = _invoke(folders[0], *_arguments(world, "--mode", "corpus", "--json"))
    assert result.exit_code == 0, result.output
    report = json.loads(result.output[result.output.index("{") :])
    assert report["documents"] == 30
    figures = report["results"][0]["per_query"]
    assert 0 < figures["judged@10"]["value"] < 1
    assert figures["recall@10"]["value"] <= 1


def test_a_folder_of_transformers_alone_is_a_model(llama_folder: Path) -> None:
    vectors = embed(load_model(llama_folder), ["panda"], ["fox"])
    assert vectors[0].shape == (1, 64)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--dims", "8,17"], "dim 17 is not one of"),
        (["--dims", "0"], "not a list of numbers"),
        (["--split", "test"], "no row is in the split test; the splits are: dev, train"),
        (["--precisions", "int4"], "not a list of float32, int8, binary"),
        (["--min-list", "13"], "no query of the split dev has 13 judged documents"),
        (["--grades", "0,1"], "is not one of the grades 0, 1"),
        (["--against", "nowhere"], "there is no such folder"),
        (["--mode", "all"], "is not one of"),
    ],
)
def test_what_bad_options_get(
    world: tuple[Path, Path], folders: tuple[Path, Path], arguments: list[str], told: str
) -> None:
    result = _invoke(folders[0], *_arguments(world, *arguments))
    assert result.exit_code == 2
    assert told in result.output


def test_a_judged_document_that_is_not_in_the_corpus(
    world: tuple[Path, Path], folders: tuple[Path, Path], tmp_path: Path
) -> None:
    rows = [*pq.read_table(world[1]).to_pylist()[:20]]
    rows[7]["doc_id"] = "gone"
    judgments = write(rows, tmp_path / "judgments.jsonl")
    result = _invoke(folders[0], *_arguments((world[0], judgments)))
    assert result.exit_code == 2
    assert f"{judgments}, column 'doc_id', line 8: 'gone' is not in the corpus" in result.output


@pytest.mark.parametrize("content", [None, "{}", "[", '[{"type": "nothing.at.All"}]'])
def test_a_folder_that_is_no_model(
    world: tuple[Path, Path], tmp_path: Path, content: str | None
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    if content is not None:
        (folder / "modules.json").write_text(content)
    result = _invoke(folder, *_arguments(world))
    assert result.exit_code == 2, result.output
    assert str(folder) in result.output
    assert "Give the folder of a sentence-transformers model." in result.output


def test_a_model_that_gives_nan() -> None:
    with pytest.raises(EngineError, match="the model's vector of 'panda' holds NaN or infinity"):
        embed(_static_model(1, float("nan")), ["panda"], ["fox"])


def test_the_split_is_the_one_that_training_holds_out(tmp_path: Path) -> None:
    rows = [{"query": f"q{row % 40}", "doc_id": f"d{row}", "grade": row % 2} for row in range(200)]
    path = write(rows, tmp_path / "judgments.jsonl")
    whole = read_judgments([path], (0, 1), seed=3)
    dev = whole.filter(pa.compute.equal(whole["split"], "dev"))
    assert read_split([path], (0, 1), "dev", seed=3) == dev
    assert 0 < len(dev) < len(read_split([path], (0, 1), "all", seed=3)) == 200
    with pytest.raises(DataError, match="no row is in the split test"):
        read_split([path], (0, 1), "test")


def test_a_file_of_dev_rows_alone_will_do(tmp_path: Path) -> None:
    rows = [{"query": "q", "doc_id": "d", "grade": 1, "split": "dev"}]
    assert len(read_split([write(rows, tmp_path / "a.jsonl")], (0, 1), "dev")) == 1


def test_prefixes_are_of_unit_length_again() -> None:
    vectors = np.array([[3, 4, 12], [0, 0, 1]], np.float32)
    assert truncate(vectors, 2).tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0, 0]]
    assert check_dims((), 3, "m") == (3,)
    with pytest.raises(ConfigError, match="between 1 and 3"):
        check_dims((4,), 3, "m")


def test_int8_is_within_half_a_step_of_each_component() -> None:
    generator = np.random.default_rng(0)
    queries, documents = (truncate(generator.normal(size=(n, 24)), 24) for n in (5, 300))
    same, decoded = at_precision(queries, documents, "int8")
    assert same is queries
    step = np.ptp(documents, axis=0) / 255
    assert (np.abs(decoded - documents) <= step * 0.501).all()
    assert len(np.unique(decoded[:, 0])) <= 256
    # A component that is the same everywhere has no range.
    flat = np.full((3, 2), 0.5, np.float32)
    assert at_precision(flat, flat, "int8")[1] == pytest.approx(flat)


@pytest.mark.parametrize("dim", [8, 13])
def test_binary_scores_count_the_signs_that_differ(dim: int) -> None:
    generator = np.random.default_rng(0)
    queries, documents = (generator.normal(size=(n, dim)).astype(np.float32) for n in (5, 7))
    ours, theirs = at_precision(queries, documents, "binary")
    differ = ((queries > 0)[:, None] != (documents > 0)[None]).sum(2)
    assert ours @ theirs.T == pytest.approx(1 - 2 * differ / dim, abs=1e-6)


def test_documents_are_their_texts_line_by_line() -> None:
    rows = [
        {"doc_id": "a", "title": "Red  panda", "text": "", "ocr": " ", "asr": "eats\nbamboo"},
        {"doc_id": "b", "title": "", "text": "fox", "ocr": "", "asr": ""},
    ]
    texts = document_texts(pa.Table.from_pylist(rows, schema=CORPUS))
    assert texts.to_pylist() == ["Red panda\neats bamboo", "fox"]


def test_prompts_are_the_models_own_unless_given() -> None:
    model = _static_model(1, prompts={"query": "Q: ", "document": "D: "})
    plain = _static_model(1)
    own = embed(model, ["panda"], ["fox"])
    assert np.allclose(own[0], plain.encode(["Q: panda"]))
    assert np.allclose(own[1], plain.encode(["D: fox"]))
    given = embed(model, ["panda"], ["fox"], query_prompt="find ", document_prompt="")
    assert np.allclose(given[0], plain.encode(["find panda"]))
    assert np.allclose(given[1], plain.encode(["fox"]))


def test_the_evaluator_agrees_with_the_command(
    world: tuple[Path, Path], folders: tuple[Path, Path]
) -> None:
    judged = read_judged([world[0]], [world[1]], (0, 1, 2, 3), "dev", Settings())
    settings = Settings(dims=(8, 16), precisions=("float32",), resamples=0)
    results = evaluate_model(folders[0], judged, settings).report["results"]
    model = load_model(folders[0])
    evaluator = GradedEvaluator(judged, dims=(8, 16), name="dev")
    found = evaluator(model)
    assert evaluator.primary_metric == "dev_dim8_ndcg_exp@10"
    for row in results:
        before = f"dev_dim{row['dim']}_"
        value = row["per_query"]["ndcg_exp@10"]["value"]
        assert found[f"{before}ndcg_exp@10"] == pytest.approx(value)
        assert found[f"{before}ap_mean"] == pytest.approx(row["pooled"]["ap_mean"]["value"])
    # Called again, as the trainer does, the names stay.
    assert evaluator(model, None, 1, 10) == found


def test_the_evaluator_runs_inside_training(world: tuple[Path, Path], tmp_path: Path) -> None:
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    judged = read_judged([world[0]], [world[1]], (0, 1, 2, 3), "dev", Settings())
    model = _static_model(1)
    rows = {"anchor": list(_WORDS), "positive": [f"{word} video" for word in _WORDS]}
    trainer = SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(
            output_dir=str(tmp_path), max_steps=2, report_to=[], eval_strategy="steps",
            eval_steps=1, save_strategy="no", use_cpu=True, disable_tqdm=True,
        ),
        train_dataset=Dataset.from_dict(rows),
        loss=MultipleNegativesRankingLoss(model),
        evaluator=GradedEvaluator(judged, name="dev"),
    )  # fmt: skip
    trainer.train()
    logged = [row for row in trainer.state.log_history if "eval_dev_ndcg_exp@10" in row]
    assert len(logged) >= 2


def test_judged_columns_check_their_rows() -> None:
    judged = judged_columns(["a", "b", "a"], ["x", "x", "y"], [1, 0, 2])
    assert (judged.queries, judged.documents) == (["a", "b"], ["x", "y"])
    assert judged.pairs.document.tolist() == [0, 0, 1]
    with pytest.raises(DataError, match="1, 1 and 2 rows"):
        judged_columns(["a"], ["x"], [1, 2])
    with pytest.raises(DataError, match="row 1: -1 is below 0"):
        judged_columns(["a", "b"], ["x", "x"], [1, -1])
    with pytest.raises(DataError, match="row 2: this pair came before"):
        judged_columns(["a", "b", "a"], ["x", "x", "x"], [1, 1, 2])
    with pytest.raises(DataError, match="the longest list has 2"):
        GradedEvaluator(judged)
