"""What makes the commands pleasant for people and usable for machines."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from ssra_engine.build import BuildReport
from ssra_engine.cli import main
from ssra_engine.commands.notices import told_once
from ssra_engine.config import Config, load_config


def _call(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture
def world(tmp_path: Path) -> Path:
    folder = tmp_path / "world"
    told = json.loads(_call("simulate", "--documents", "40", "--output", folder, "--json").stdout)
    assert told["simulated"]
    assert all(Path(file).is_file() for file in told["files"])
    return folder


def _run(world: Path, *more: str | Path) -> Result:
    inputs = ("--input", world / "corpus.arrow", "--backend", "fake")
    return _call("run", *inputs, "--output", world / "out", *more)


def test_a_run_for_machines(world: Path) -> None:
    plan = json.loads(_run(world, "--dry-run", "--json", "--grades", "1,2").stdout)
    assert (plan["documents"], plan["targets"]) == (40, [1, 2])
    result = _run(world, "--json")
    told = json.loads(result.stdout)
    assert told == {
        "output": str(world / "out"),
        **json.loads((world / "out/summary.json").read_text()),
    }
    assert "final" in result.stderr
    audit = json.loads(
        _call("audit", world / "out", "--output", world / "audit.csv", "--json").stdout
    )
    assert set(audit) == {"file", "drawn", "labelled"}


def test_a_quiet_run_says_nothing(world: Path) -> None:
    result = _run(world, "--quiet")
    assert result.output == ""
    assert (world / "out/summary.json").is_file()
    told = _run(world, "--quiet", "--json")
    assert told.stderr == ""
    assert json.loads(told.stdout)["documents"] == 40


@pytest.mark.parametrize(("flag", "said"), [("--json", True), ("--quiet", False)])
def test_a_build_for_machines(
    world: Path, monkeypatch: pytest.MonkeyPatch, flag: str, said: bool
) -> None:
    engines = world / "engines"
    report = BuildReport(engines, {"pairs": 3}, False)
    monkeypatch.setattr("ssra_engine.build.build", lambda *_, **__: report)
    files = ("--corpus", world / "corpus.arrow", "--judgments", world / "judgments.arrow")
    result = _call("build", *files, "--preset", "tiny", "--output", engines, flag)
    expected = {"output": str(engines), "did_nothing": False, "figures": {"pairs": 3}}
    assert (json.loads(result.stdout) == expected) if said else result.output == ""


def test_each_command_names_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = _call("simulate", "--documents", "5", "--output", tmp_path).stdout
    (command,) = [line[6:] for line in told.splitlines() if line.startswith("Next: ")]
    figures = {"documents": 5, "judgments": {"train": 9, "dev": 0}, "pairs": 0, "score": {}}
    report = BuildReport(Path("engines"), figures, False)
    monkeypatch.setattr("ssra_engine.build.build", lambda *_, **__: report)
    told = _call(*command.split()[1:]).stdout
    assert f"Next: ssra-engine run --input {tmp_path}/corpus.arrow --engines engines" in told
    out = tmp_path / "out"
    inputs = ("--input", tmp_path / "corpus.arrow", "--backend", "fake")
    told = _call("run", *inputs, "--output", out).stdout
    assert f"Next: ssra-engine evaluate samples {out}" in told


def test_the_settings_are_shown_whole(tmp_path: Path) -> None:
    assert yaml.safe_load(_call("config", "show").stdout) == Config().model_dump(mode="json")
    (tmp_path / "my.yaml").write_text("seed: 7\nrefine: {rounds: 2}\n")
    shown = tmp_path / "shown.yaml"
    shown.write_text(_call("config", "show", "--config", tmp_path / "my.yaml").stdout)
    assert load_config(shown) == load_config(tmp_path / "my.yaml")
    assert load_config(shown).refine.rounds == 2


def test_the_schema_knows_every_setting_and_no_other() -> None:
    schema = json.loads(_call("config", "schema").stdout)
    _check(schema, schema, Config().model_dump(mode="json"))
    seed = schema["properties"]["seed"]
    assert (seed["minimum"], seed["type"], seed["default"]) == (0, "integer", 0)


def _check(schema: dict[str, object], node: dict[str, object], tree: dict[str, object]) -> None:
    if "$ref" in node:
        node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    assert node["additionalProperties"] is False
    assert node["properties"].keys() == tree.keys()
    for name, value in tree.items():
        if isinstance(value, dict) and "$ref" in node["properties"][name]:
            _check(schema, node["properties"][name], value)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_can_complete_commands(shell: str) -> None:
    environment = {
        "_SSRA_ENGINE_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": "ssra-engine sim",
        "COMP_CWORD": "1" if shell != "fish" else "sim",
    }
    result = CliRunner().invoke(main, [], env=environment, prog_name="ssra-engine")
    assert "simulate" in result.output
    assert "doctor" not in result.output


def test_a_notice_about_judgments_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("ssra_engine.judgments")
    with told_once():
        for count in (1, 1, 2):
            log.warning("%d judgments were merged", count)
    log.warning("%d judgments were merged", 1)
    assert [record.args for record in caplog.records] == [(1,), (2,), (1,)]
