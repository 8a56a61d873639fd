from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from documents import write_documents

from ssra_engine import __version__
from ssra_engine.build import BuildReport
from ssra_engine.cli import main
from ssra_engine.config import Config, load_config


def _call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def _mistake(*arguments: str | Path) -> str:
    """The one message of a command that is called wrongly."""
    result = _call(*arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert result.stdout == ""
    (message,) = re.findall(r"^Error: (.*)$", result.stderr, re.MULTILINE)
    assert isinstance(message, str)
    return message


@pytest.fixture
def world(tmp_path: Path) -> Path:
    folder = tmp_path / "world"
    assert _call("simulate", "--documents", "120", "--output", folder).exit_code == 0
    return folder


def _run(world: Path, out: Path, *more: str) -> Result:
    return _call(
        *("run", "--input", world / "corpus.arrow", "--backend", "fake", "--output", out), *more
    )


def _engines(folder: Path, grades: int) -> Path:
    """As much of an engines folder as is looked at before a model is."""
    for part in ("score", "query"):
        (folder / part).mkdir(parents=True)
    (folder / "d2q.arrow").touch()
    config = load_config(overrides={"grades": tuple(range(grades))})
    (folder / "config.yaml").write_text(config.to_yaml())
    manifest = {
        "version": 2,
        "grades": list(range(grades)),
        "template": "plain",
        "fingerprint": {},
        "figures": {"score": {"temperature": 1.0, "bias": []}},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_help_shows_the_path_and_loads_no_heavy_package() -> None:
    code = (
        "import sys\n"
        "from ssra_engine.cli import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "heavy = {'torch', 'transformers', 'pyarrow', 'pydantic', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    places = [done.stdout.index(f"ssra-engine {name} ") for name in ("simulate", "build", "run")]
    assert places == sorted(places)
    assert "ssra-engine evaluate samples" in done.stdout


def test_alone_it_shows_help() -> None:
    result = _call()
    assert result.exit_code == 0
    assert result.stdout == _call("--help").stdout


def test_version() -> None:
    assert __version__ in _call("--version").stdout


@pytest.mark.parametrize(
    "command",
    [
        ["simulate"],
        ["build"],
        ["rewrite"],
        ["rationale"],
        ["run"],
        ["evaluate"],
        ["evaluate", "samples"],
        ["inspect"],
        ["doctor"],
    ],
)
def test_every_command_has_an_example(command: list[str]) -> None:
    result = _call(*command, "--help")
    assert result.exit_code == 0
    assert re.search(rf"Examples?:\n +ssra-engine {command[0]}", result.stdout)


def test_simulate_says_that_it_is_a_simulation(tmp_path: Path) -> None:
    result = _call("simulate", "--documents", "20", "--output", tmp_path)
    assert "simulated" in result.stdout
    assert {path.name for path in tmp_path.iterdir()} == {
        "corpus.arrow",
        "judgments.arrow",
        "pairs.arrow",
    }


def test_the_whole_path_with_the_fake_engine(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = _run(world, out, "--per-grade", "2", "--shard-documents", "50", "--seed", "3")
    assert first.exit_code == 0, first.output
    assert "simulation" in first.stdout
    assert str(out / "synthetic") in first.stdout
    assert "final: 120/120 (100%)" in first.stderr
    settings = load_config(out / "config.yaml")
    assert (settings.synthesize.per_grade, settings.seed) == (2, 3)
    assert settings.output.shard_documents == 50
    again = _run(world, out, "--per-grade", "2", "--shard-documents", "50", "--seed", "3")
    assert again.exit_code == 0
    assert "has ended before, nothing was left to do" in again.stdout
    evaluated = _call("evaluate", "samples", out)
    assert evaluated.exit_code == 0, evaluated.output
    assert "simulation" in evaluated.stdout
    assert "oracle" in evaluated.stdout
    report = json.loads(_call("evaluate", "samples", out, "--json").stdout)
    summary = json.loads((out / "summary.json").read_text())
    assert [part["part"] for part in report["funnel"]] == ["round 1", "final"]
    assert report["funnel"][1]["grades"] == summary["grades"]
    assert report["funnel"][0]["grades"] == summary["rounds"][0]["grades"]


def test_a_run_tells_how_often_its_comparator_contradicts_itself(
    world: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    asked = _run(world, out, "--comparator", "somebody", "--rounds", "0")
    assert asked.exit_code == 0, asked.output
    told = json.loads((out / "summary.json").read_text())["comparator"]
    assert told["pairs"] > 0
    assert f"asked about {told['pairs']:,} pairs" in asked.stdout
    assert f"with their order in {told['flip_rate']:.0%} (" in asked.stdout
    assert "comparator was asked" not in _run(world, tmp_path / "none", "--rounds", "0").stdout


def test_every_flag_of_a_run_has_its_place_in_the_configuration(
    world: Path, tmp_path: Path
) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("filter: {comparator: none}\nrefine: {rounds: 3}\n")
    flags = "--grades 1,2 --rounds 0 --format arrow --limit 50 --on-error reject --threads 1"
    result = _run(world, tmp_path / "out", "--config", str(file), *flags.split())
    assert result.exit_code == 0, result.output
    settings = load_config(tmp_path / "out/config.yaml")
    assert settings.filter.comparator == "none"
    assert settings.refine.rounds == 0
    assert settings.targets == (1, 2)
    assert (settings.input.limit, settings.input.on_error) == (50, "reject")
    assert settings.engine.threads == 1
    table = pa.ipc.open_file((tmp_path / "out/synthetic/part-00000.arrow").read_bytes()).read_all()
    assert set(table.column("target").to_pylist()) == {1, 2}


def test_a_dry_run_writes_nothing(world: Path, tmp_path: Path) -> None:
    result = _run(world, tmp_path / "out", "--dry-run", "--rounds", "2", "--per-grade", "3")
    assert result.exit_code == 0, result.output
    assert re.search(r"documents +120\n", result.stdout)
    assert re.search(rf"queries asked for +{4 * 120 * (2 * 2 + 3):,}\n", result.stdout)
    assert {path.name for path in tmp_path.iterdir()} == {"world"}


def test_inputs_repeat(tmp_path: Path) -> None:
    table = pa.table({"doc_id": ["a"], "title": ["red panda"]})
    pq.write_table(table, tmp_path / "one.parquet")
    (tmp_path / "two.jsonl").write_text('{"doc_id": "b", "text": "a video about rain"}\n')
    inputs = ["--input", tmp_path / "one.parquet", "--input", tmp_path / "two.jsonl"]
    result = _call("run", *inputs, "--backend", "fake", "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "out/summary.json").read_text())["documents"] == 2
    assert "simulation" not in result.stdout
    evaluated = _call("evaluate", "samples", tmp_path / "out")
    assert "simulat" not in evaluated.stdout
    assert "oracle" not in evaluated.stdout


def test_failed_documents_have_an_exit_code_of_their_own(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"doc_id": "a", "title": "rain"}\n{"doc_id": "b", "title": " "}\n')
    command = ["run", "--input", corpus, "--backend", "fake", "--output", tmp_path / "out"]
    assert "line 2" in _mistake(*command)
    for _ in range(2):
        result = _call(*command, "--on-error", "reject")
        assert result.exit_code == 3
        assert "1 documents failed" in result.stdout


def test_inspect(world: Path) -> None:
    assert "judgments" in _call("inspect", world / "judgments.arrow").stdout
    report = json.loads(_call("inspect", world / "judgments.arrow", "--json").stdout)
    assert report["kind"] == "judgments"
    assert report["simulated"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "none.arrow"
    for command in (
        ["inspect", missing],
        ["run", "--input", missing, "--backend", "fake", "--output", tmp_path / "out"],
        ["run", "--input", missing, "--config", missing, "--backend", "fake"],
    ):
        assert str(missing) in _mistake(*command)
    assert not (tmp_path / "out").exists()


def test_mistakes_on_the_command_line(world: Path, tmp_path: Path) -> None:
    corpus = ("run", "--input", world / "corpus.arrow", "--output", tmp_path / "out")
    assert "--input" in _mistake("run")
    assert "--nothing" in _mistake("run", "--nothing")
    assert "nothing" in _mistake("nothing")
    assert "names a grade twice" in _mistake(*corpus, "--grades", "1,1")
    assert "not a list of grades" in _mistake(*corpus, "--grades", "high")
    assert "--per-grade" in _mistake(*corpus, "--per-grade", "0")
    assert "no backend 'abacus'" in _mistake(*corpus, "--backend", "abacus")
    assert "--trt-python" in _mistake(*corpus, "--backend", "tensorrt-llm")
    assert "[0, 1, 2, 3]" in _mistake(*corpus, "--backend", "fake", "--grades", "7")
    assert "not an engines folder" in _mistake(*corpus, "--engines", tmp_path / "none")
    assert "not the output of a run" in _mistake("evaluate", "samples", world)
    assert "--judgments" in _mistake("build", "--corpus", world / "corpus.arrow")


def test_another_run_in_the_output_folder(world: Path, tmp_path: Path) -> None:
    assert _run(world, tmp_path / "out").exit_code == 0
    message = _mistake(
        *("run", "--input", world / "corpus.arrow", "--backend", "fake"),
        *("--output", tmp_path / "out", "--seed", "1"),
    )
    assert "config seed: 0 -> 1" in message


def test_grades_are_those_of_the_engines(world: Path, tmp_path: Path) -> None:
    engines = _engines(tmp_path / "engines", 3)
    corpus = ("run", "--input", world / "corpus.arrow", "--engines", engines)
    message = _mistake(*corpus, "--grades", "1,3")
    assert "1,3" in message
    assert "0,1,2" in message
    file = tmp_path / "settings.yaml"
    file.write_text("grades: [0, 1, 2, 3]\n")
    message = _mistake(*corpus, "--config", file)
    assert "0,1,2,3" in message
    assert "grade on 0,1,2." in message
    planned = _call(*corpus, "--dry-run")
    assert planned.exit_code == 0, planned.output
    assert re.search(r"target grades +0,1,2\n", planned.stdout)


def test_the_preset_of_the_engines_lays_under_a_run(world: Path, tmp_path: Path) -> None:
    engines = _engines(tmp_path / "engines", 4)
    tiny = load_config(overrides={"model.preset": "tiny"})
    (engines / "config.yaml").write_text(tiny.to_yaml())
    given = {"--output": tmp_path / "out", "--backend": "fake", "--rounds": "0"}
    flags = [part for pair in given.items() for part in pair]
    result = _call("run", "--input", world / "corpus.arrow", "--engines", engines, *flags)
    assert result.exit_code == 0, result.output
    settings = load_config(tmp_path / "out/config.yaml")
    assert settings.synthesize == tiny.synthesize
    assert settings.synthesize != load_config().synthesize


@pytest.mark.parametrize("did_nothing", [False, True])
def test_build_passes_on_what_it_is_given(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, did_nothing: bool
) -> None:
    calls: list[tuple[Config, dict[str, Any]]] = []

    def build(config: Config, **given: Any) -> BuildReport:
        calls.append((config, given))
        sizes = {"documents": 120, "judgments": {"train": 90, "dev": 0}, "pairs": 1200}
        return BuildReport(given["output"], {**sizes, "score": {}}, did_nothing)

    monkeypatch.setattr("ssra_engine.build.build", build)
    files = [str(world / f"{name}.arrow") for name in ("corpus", "judgments", "pairs")]
    inputs = ["--corpus", files[0], "--judgments", files[1], "--pairs", files[2]]
    result = _call("build", *inputs, "--preset", "tiny", "--grades", "0,1,2", "--seed", "7")
    assert result.exit_code == 0, result.output
    ((config, given),) = calls
    assert (config.model.preset, config.grades, config.seed) == ("tiny", (0, 1, 2), 7)
    assert [given[name] for name in ("corpus", "judgments", "pairs")] == [(f,) for f in files]
    assert given["output"] == Path("engines")
    assert "120 documents, 90 judgments learned from, 0 held out, 1,200 pairs" in result.stdout
    assert "simulation" in result.stdout
    assert ("nothing was done" in result.stdout) == did_nothing


def test_build_without_a_backbone(world: Path, tmp_path: Path) -> None:
    files = ("--corpus", world / "corpus.arrow", "--judgments", world / "judgments.arrow")
    command = ("build", *files, "--output", tmp_path / "engines")
    assert "--preset tiny" in _mistake(*command)
    assert "not both" in _mistake(*command, "--preset", "tiny", "--backbone", "folder")
    assert not (tmp_path / "engines").exists()


def test_a_fault_is_one_line_and_its_traceback_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("ssra_engine.steps.synthesize_shard", fail)
    corpus = write_documents(tmp_path / "corpus.arrow", 10)
    out = tmp_path / "out"
    result = _call("run", "--input", corpus, "--backend", "fake", "--output", out)
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    assert f"RuntimeError: a bug (traceback in {out / 'run.log'})" in result.stderr
    assert "Traceback" in (out / "run.log").read_text()

    monkeypatch.setattr("ssra_engine.inspection.inspect_input", lambda *_, **__: fail())
    result = _call("inspect", corpus)
    assert result.exit_code == 1
    (log,) = tmp_path.glob("ssra-engine-*.log")
    assert str(log) in result.stderr
    assert "a bug" in log.read_text()


def test_an_interrupted_run_goes_on(
    tmp_path: Path, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ssra_engine.steps.synthesize_shard", interrupt)
        result = _run(world, tmp_path / "out")
    assert result.exit_code == 130
    assert "Traceback" not in result.output
    assert _run(world, tmp_path / "out").exit_code == 0
