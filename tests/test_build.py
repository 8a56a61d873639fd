from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ssra_engine.build import build
from ssra_engine.config import Config, load_config
from ssra_engine.engine_folder import open_roles, read_engines
from ssra_engine.errors import ConfigError, DataError, EngineError, StoreError
from ssra_engine.run import run
from ssra_engine.simulate import simulate, write

SMALL: dict[str, Any] = {
    "model.preset": "tiny",
    "model.tiny.vocabulary": 600,
    "model.tiny.width": 32,
    "model.tiny.layers": 1,
    "model.tiny.heads": 2,
    "model.tiny.pretrain_tokens": 1000,
    "model.score.epochs": 1,
    "model.score.max_steps": 2,
    "model.query.max_steps": 2,
    "refine.rounds": 1,
    "refine.documents": 8,
    "output.shard_documents": 16,
    "synthesize.max_new_tokens": 8,
}


def config(**changes: Any) -> Config:
    return load_config(None, SMALL | {key.replace("__", "."): v for key, v in changes.items()})


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write(simulate(120, 0), folder)
    return folder


@pytest.fixture(scope="module")
def inputs(world: Path) -> dict[str, list[Path]]:
    return {name: [world / f"{name}.arrow"] for name in ("corpus", "judgments", "pairs")}


@pytest.fixture(scope="module")
def engines(inputs: dict[str, list[Path]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "engines"
    report = build(config(), **inputs, output=folder)
    assert not report.did_nothing
    return folder


def test_the_folder_says_what_it_is_made_of(engines: Path) -> None:
    opened = read_engines(engines)
    assert opened.grades == (0, 1, 2, 3)
    assert opened.config == config()
    figures = opened.manifest["figures"]
    with pa.ipc.open_file(engines / "d2q.arrow") as reader:
        d2q = reader.read_all()
    assert sum(map(sum, figures["d2q"].values())) == len(d2q)
    assert figures["score"]["held_out"]["rows"] == figures["judgments"]["dev"]
    assert sum(figures["judgments"]["train_grades"]) == figures["judgments"]["train"]
    assert not (engines / "backbone").exists()


def test_rows_that_are_not_train_are_not_trained_on(
    engines: Path, inputs: dict[str, list[Path]]
) -> None:
    with pa.ipc.open_file(inputs["judgments"][0]) as reader:
        rows = reader.read_all().to_pylist()
    train = {(row["query"], row["doc_id"]) for row in rows if row["split"] == "train"}
    with pa.ipc.open_file(engines / "d2q.arrow") as reader:
        learned = reader.read_all().to_pylist()
    judged = {(r["query"], r["doc_id"]) for r in learned if r["source"] == "judgment"}
    assert judged
    assert judged <= train


def test_pairs_of_held_out_queries_teach_nothing(
    engines: Path, inputs: dict[str, list[Path]]
) -> None:
    tables = {}
    for name in ("judgments", "pairs"):
        with pa.ipc.open_file(inputs[name][0]) as reader:
            tables[name] = reader.read_all().to_pylist()
    held_out = {row["query"] for row in tables["judgments"] if row["split"] != "train"}
    assert held_out & {row["query"] for row in tables["pairs"]}, "the world must try to leak"
    with pa.ipc.open_file(engines / "d2q.arrow") as reader:
        learned = set(reader.read_all()["query"].to_pylist())
    assert not held_out & learned
    figures = read_engines(engines).manifest["figures"]
    leaked = sum(row["query"] in held_out for row in tables["pairs"])
    assert figures["pairs_of_held_out_queries"] == leaked
    assert figures["pairs"] == len(tables["pairs"]) - leaked


def test_audits_teach_what_the_judgments_do_not_hold_out(
    engines: Path,
    inputs: dict[str, list[Path]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ssra_engine.models import role_models

    taught: list[dict[str, Any]] = []
    make = role_models._unclear_sequences

    def watched(encoder: Any, rows: pa.Table, *rest: Any) -> Any:
        taught.extend(rows.to_pylist())
        return make(encoder, rows, *rest)

    monkeypatch.setattr(role_models, "_unclear_sequences", watched)
    with pa.ipc.open_file(inputs["judgments"][0]) as reader:
        judged = reader.read_all().to_pylist()
    held_out = next(row for row in judged if row["split"] == "test")
    other = next(row for row in judged if row["query"] != held_out["query"])
    train = next(row for row in judged if row["split"] == "train")
    labelled = [
        {"query": "a new one", "doc_id": "v0000001", "label": "2"},
        {"query": "no query at all", "doc_id": "v0000001", "label": "-"},
        {"query": held_out["query"].upper(), "doc_id": other["doc_id"], "label": "1"},
        {"query": train["query"], "doc_id": train["doc_id"], "label": str(3 - train["grade"])},
    ]
    audit = tmp_path / "audit.jsonl"
    audit.write_text("".join(json.dumps(row) + "\n" for row in labelled))
    figures = build(config(), **inputs, audits=[audit], output=tmp_path / "engines").figures
    before = read_engines(engines).manifest["figures"]["judgments"]
    assert figures["judgments"] == before | {
        "train": before["train"] + 1,
        "train_grades": [n + (grade == 2) for grade, n in enumerate(before["train_grades"])],
        "of_audits": 1,
        "unclear": 1,
    }
    with pa.ipc.open_file(tmp_path / "engines" / "d2q.arrow") as reader:
        learned = reader.read_all().select(["query", "doc_id", "grade", "source"]).to_pylist()
    assert {**labelled[0], "grade": 2, "source": "judgment"} in [
        {**row, "label": "2"} for row in learned
    ]
    wrong = {(row["query"], row["grade"]) for row in learned}
    assert [row["query"] for row in taught] == ["no query at all"]
    assert "no query at all" not in {query for query, _ in wrong}
    assert (labelled[2]["query"], 1) not in wrong
    pair = (train["query"], train["doc_id"])
    assert [r["grade"] for r in learned if (r["query"], r["doc_id"]) == pair] == [train["grade"]]
    again = dict(inputs, audits=[audit])
    assert build(config(), **again, output=tmp_path / "engines").did_nothing
    audit.write_text(json.dumps(labelled[0]) + "\n")
    assert not build(config(), **again, output=tmp_path / "engines").did_nothing


def test_a_file_behind_a_glob_that_changed_is_noticed(
    inputs: dict[str, list[Path]], tmp_path: Path
) -> None:
    folder = tmp_path / "judged"
    folder.mkdir()
    copy = folder / "judgments.arrow"
    copy.write_bytes(inputs["judgments"][0].read_bytes())
    globbed: dict[str, Any] = inputs | {"judgments": [str(folder / "*.arrow")]}
    output = tmp_path / "engines"
    assert not build(config(), **globbed, output=output).did_nothing
    assert build(config(), **globbed, output=output).did_nothing
    with pa.ipc.open_file(copy) as reader:
        table = reader.read_all()
    with pa.OSFile(str(copy), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.slice(1))
    assert not build(config(), **globbed, output=output).did_nothing


def test_how_the_corpus_is_read_belongs_to_what_was_built(
    inputs: dict[str, list[Path]], tmp_path: Path
) -> None:
    output = tmp_path / "engines"
    build(config(), **inputs, output=output)
    assert not build(config(input__limit=120), **inputs, output=output).did_nothing
    assert build(config(input__limit=120), **inputs, output=output).did_nothing


def test_built_again_with_nothing_changed_it_does_nothing(
    engines: Path, inputs: dict[str, list[Path]]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in engines.rglob("*")}
    report = build(config(), **inputs, output=engines)
    assert report.did_nothing
    assert report.figures == read_engines(engines).manifest["figures"]
    assert {path: path.stat().st_mtime_ns for path in engines.rglob("*")} == before


def _folder_state(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "training_args.bin"
    }


def test_only_what_depends_on_a_change_is_built_again(
    engines: Path,
    inputs: dict[str, list[Path]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import shutil

    from ssra_engine.building import models as building
    from ssra_engine.models import role_models

    output = tmp_path / "engines"
    shutil.copytree(engines, output)
    made = []

    def telling(module: Any, name: str, step: str) -> None:
        original = getattr(module, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            made.append(step)
            return original(*args, **kwargs)

        monkeypatch.setattr(module, name, call)

    telling(role_models, "train_score_model", "score")
    telling(role_models, "train_query_model", "query")
    telling(building, "grade_pairs", "grades")

    def steps_for(given: dict[str, Any] = inputs, **changes: Any) -> list[str]:
        made.clear()
        assert not build(config(**changes), **given, output=output).did_nothing
        return list(made)

    before = _folder_state(output)
    assert steps_for(model__query__rate=2e-3) == ["query"]
    after = _folder_state(output)
    score = [name for name in before if name.startswith("score/")]
    assert len(score) > 2
    assert all(before[name] == after[name] for name in [*score, "d2q.arrow"])
    assert before["query/model.safetensors"] != after["query/model.safetensors"]
    assert steps_for(annotate__min_confidence=0.3) == ["grades", "query"]
    assert steps_for(model__score__rate=2e-3) == ["score", "grades", "query"]
    assert steps_for(inputs | {"pairs": []}) == ["score", "grades", "query"]
    fresh = tmp_path / "fresh"
    build(config(), **inputs | {"pairs": []}, output=fresh)
    assert _folder_state(fresh) == _folder_state(output)


def test_two_processes_that_build_the_same_folder(
    engines: Path, inputs: dict[str, list[Path]], tmp_path: Path
) -> None:
    """The second waits for the first, and then finds nothing to do."""
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_build import build, config
inputs = {{name: [path] for name, path in zip(("corpus", "judgments", "pairs"), sys.argv[2:])}}
print(build(config(), **inputs, output=sys.argv[1]).did_nothing)
"""
    output = tmp_path / "engines"
    command = [sys.executable, "-c", script, str(output)]
    command += [str(inputs[name][0]) for name in ("corpus", "judgments", "pairs")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in "ab"]
    answers = [process.communicate(timeout=120)[0].split()[-1] for process in both]
    assert sorted(answers) == ["False", "True"]
    assert _folder_state(output) == _folder_state(engines)
    assert [path.name for path in tmp_path.iterdir()] == ["engines"]


def test_a_build_that_fails_leaves_nothing_behind(
    inputs: dict[str, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ssra_engine.models import role_models

    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(role_models, "train_query_model", fail)
    with pytest.raises(MemoryError):
        build(config(), **inputs, output=tmp_path / "engines")
    assert not list(tmp_path.iterdir())


def test_one_seed_builds_one_folder_and_another_replaces_it(
    engines: Path, inputs: dict[str, list[Path]], tmp_path: Path
) -> None:
    again = tmp_path / "engines"
    build(config(), **inputs, output=again)
    for name in ("score/model.safetensors", "query/model.safetensors", "d2q.arrow"):
        assert (again / name).read_bytes() == (engines / name).read_bytes(), name
    report = build(config(seed=1), **inputs, output=again)
    assert not report.did_nothing
    weights = "query/model.safetensors"
    assert (again / weights).read_bytes() != (engines / weights).read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["engines"]


def test_engines_run_with_refinement_and_a_second_run_has_nothing_to_do(
    engines: Path, inputs: dict[str, list[Path]], tmp_path: Path
) -> None:
    settings = config(input__limit=24)
    roles = open_roles(engines, settings)
    result = run(settings, inputs["corpus"], roles, tmp_path / "out")
    assert (tmp_path / "out/rounds/1/query/model.safetensors").is_file()
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["documents"] == 24
    assert result.failed_documents == 0
    assert run(settings, inputs["corpus"], roles, tmp_path / "out").already_finished


def test_a_changed_model_is_another_fingerprint(engines: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(engines, copy)
    same = open_roles(copy, config()).fingerprint
    assert same == open_roles(engines, config()).fingerprint
    weights = copy / "score/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert open_roles(copy, config()).fingerprint != same


def test_no_backbone_is_an_error(inputs: dict[str, list[Path]], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--preset tiny"):
        build(Config(), **inputs, output=tmp_path / "engines")


def test_a_folder_of_something_else_is_left_alone(
    inputs: dict[str, list[Path]], tmp_path: Path
) -> None:
    (tmp_path / "letter.txt").write_text("keep me")
    with pytest.raises(StoreError, match="not an engines folder"):
        build(config(), **inputs, output=tmp_path)
    assert (tmp_path / "letter.txt").read_text() == "keep me"


def test_bad_judgments_are_found_before_anything_is_trained(
    inputs: dict[str, list[Path]], tmp_path: Path
) -> None:
    table = pa.table({"query": ["q", "r"], "doc_id": ["nowhere", "nobody"], "grade": [0, 1]})
    path = tmp_path / "judgments.arrow"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(DataError, match=r"judgments\.arrow.*doc_id.*row 0"):
        build(config(), corpus=inputs["corpus"], judgments=[path], output=tmp_path / "engines")
    assert not (tmp_path / "engines").exists()


def test_a_cross_encoder_plays_the_score_model(
    inputs: dict[str, list[Path]], tmp_path: Path
) -> None:
    """The grades of `build`, `run` and held-out judgments are those that the model itself gives."""
    import numpy as np
    import pyarrow.parquet as pq
    from sentence_transformers import CrossEncoder
    from small_models import write_encoder

    from ssra_engine.calibration import Calibration
    from ssra_engine.evaluation.embedding import document_texts
    from ssra_engine.evaluation.outputs import open_outputs
    from ssra_engine.held_out import score_judgments
    from ssra_engine.negatives.score_model import ScoreModel
    from ssra_engine.steps import NoProgress

    encoder = {
        "model__score_model": "cross-encoder",
        "model__cross_encoder__backbone": str(write_encoder(tmp_path / "encoder")),
        "model__cross_encoder__epochs": 1,
    }
    built = tmp_path / "engines"
    figures = build(config(**encoder), **inputs, output=built).figures
    card = figures["score"]
    assert card["held_out"]["rows"] == figures["judgments"]["dev"]
    roles = open_roles(built, config(**encoder))
    settings = config(**encoder, input__limit=16, filter__scored=False)
    run(settings, inputs["corpus"], roles, tmp_path / "out")
    parts = [pq.read_table(path) for path in sorted((tmp_path / "out").rglob("part-*.parquet"))]
    rows = [r for part in parts for r in part.to_pylist() if r["probs"] is not None]
    with pa.ipc.open_file(inputs["corpus"][0]) as reader:
        corpus = reader.read_all()
    prefixes = roles.template.documents(corpus).to_pylist()
    texts = dict(zip(corpus["doc_id"].to_pylist(), prefixes, strict=True))
    model = CrossEncoder(str(built / "score"), device="cpu", local_files_only=True)

    def expected(pairs: list[tuple[str, str]]) -> np.ndarray:
        logits = model.predict([(query, texts[doc_id]) for query, doc_id in pairs])
        return Calibration(card["temperature"], tuple(card["bias"])).probs(logits)

    assert rows
    probs = expected([(row["query"], row["doc_id"]) for row in rows])
    np.testing.assert_allclose(probs, [row["probs"] for row in rows], atol=1e-4)
    with pa.ipc.open_file(built / "d2q.arrow") as reader:
        learned = [row for row in reader.read_all().to_pylist() if row["source"] == "score"]
    annotated = expected([(row["query"], row["doc_id"]) for row in learned]).argmax(axis=1)
    assert annotated.tolist() == [row["grade"] for row in learned]
    grader = ScoreModel(roles, corpus, NoProgress())
    some = corpus.slice(0, len(rows[:9]))
    graded = grader([row["query"] for row in rows[:9]], document_texts(some).to_pylist())
    pairs = zip([row["query"] for row in rows], some["doc_id"].to_pylist(), strict=False)
    assert graded.tolist() == expected(list(pairs)).argmax(axis=1).tolist()
    outputs = open_outputs(tmp_path / "out")
    held_out, grades = score_judgments(
        outputs, [str(inputs["judgments"][0])], corpus=[str(inputs["corpus"][0])], engines=built
    )
    confusion = np.zeros((4, 4), int)
    np.add.at(confusion, (grades, held_out.argmax(axis=1)), 1)
    assert confusion.tolist() == card["held_out_evened"]["confusion"]


@pytest.mark.parametrize("missing", ["manifest.json", "d2q.arrow", "score"])
def test_an_engines_folder_that_is_not_whole_is_refused(
    engines: Path, tmp_path: Path, missing: str
) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(engines, copy)
    whole = copy / missing
    if whole.is_dir():
        shutil.rmtree(whole)
    else:
        whole.unlink()
    with pytest.raises(EngineError, match="ssra-engine build"):
        open_roles(copy, config())


def test_any_model_folder_may_compare(
    engines: Path, inputs: dict[str, list[Path]], tmp_path: Path
) -> None:
    settings = config(filter__comparator=str(engines / "score"), refine__rounds=0, input__limit=6)
    roles = open_roles(engines, settings)
    assert roles.fingerprint != open_roles(engines, config()).fingerprint
    run(settings, inputs["corpus"], roles, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"filter\.comparator: 'nowhere' does not exist"):
        open_roles(engines, config(filter__comparator="nowhere"))


def test_a_comparator_is_trained_kept_and_asked(
    engines: Path, inputs: dict[str, list[Path]], tmp_path: Path
) -> None:
    import shutil

    built = tmp_path / "engines"
    shutil.copytree(engines, built)
    wanted = {"model__train_comparator": True, "model__compare__max_steps": 2}
    figures = build(config(**wanted), **inputs, output=built).figures
    assert figures["comparator"]["pairs"] > 0
    weights = (built / "comparator/model.safetensors").read_bytes()
    assert (built / "score/model.safetensors").read_bytes() == (
        engines / "score/model.safetensors"
    ).read_bytes()
    build(config(**wanted, model__query__rate=2e-3), **inputs, output=built)
    assert (built / "comparator/model.safetensors").read_bytes() == weights
    settings = config(
        filter__comparator="trained",
        filter__scored=False,
        filter__near_duplicates="none",
        refine__rounds=0,
        input__limit=24,
    )
    summary = run(settings, inputs["corpus"], open_roles(built, settings), tmp_path / "out").summary
    assert summary["comparator"]["pairs"] > 0
    assert 0 <= summary["comparator"]["flip_rate"] <= 1
    with pytest.raises(ConfigError, match="has no trained comparator"):
        open_roles(engines, settings)


def test_no_pair_to_train_a_comparator_on(inputs: dict[str, list[Path]], tmp_path: Path) -> None:
    with pa.ipc.open_file(inputs["judgments"][0]) as reader:
        table = reader.read_all()
    alone = tmp_path / "judgments.arrow"
    docs = table["doc_id"].to_pylist()
    first = pa.array([docs.index(doc_id) == row for row, doc_id in enumerate(docs)])
    with pa.OSFile(str(alone), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.filter(first))
    given: dict[str, Any] = inputs | {"judgments": [alone]}
    with pytest.raises(ConfigError, match="no document has two judged queries"):
        build(config(model__train_comparator=True), **given, output=tmp_path / "engines")
    assert not (tmp_path / "engines").exists()


def test_a_backend_in_another_interpreter_gets_its_checkpoints_once(
    engines: Path,
    inputs: dict[str, list[Path]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is left to be graded, so an interpreter that only finds vllm will do."""
    (tmp_path / "vllm.py").write_text("")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setenv("SSRA_CACHE", str(tmp_path / "cache"))
    settings = config(engine__backend="vllm", engine__python=str(python))
    assert build(settings, **inputs, output=engines).did_nothing
    made = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert sum(path.name == "model.safetensors" for path in made) == 2
    times = [path.stat().st_mtime_ns for path in made if path.suffix != ".lock"]
    assert build(settings, **inputs, output=engines).did_nothing
    assert [path.stat().st_mtime_ns for path in made if path.suffix != ".lock"] == times
    without = config(engine__backend="vllm", engine__python=sys.executable)
    with pytest.raises(EngineError, match="lacks vllm"):
        build(without, **inputs, output=engines)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"engine.backend": "fake"}, "the fake backend cannot grade pairs"),
        ({"model.preset": None, "model.backbone": "nowhere.gguf"}, "'nowhere.gguf' does not exist"),
        (
            {"model.score_model": "cross-encoder", "model.cross_encoder.backbone": "nowhere"},
            "'nowhere' is no folder",
        ),
    ],
)
def test_what_cannot_be_built_with_is_refused_before_data_are_read(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    settings = load_config(None, {k: v for k, v in (SMALL | changes).items() if v is not None})
    with pytest.raises(ConfigError, match=message):
        build(settings, corpus=["none"], judgments=["none"], output=tmp_path / "engines")
