from __future__ import annotations

from pathlib import Path

import pytest

from ssra_engine.config import Config, load_config
from ssra_engine.errors import ConfigError
from ssra_engine.presets import PRESETS


def test_yaml_reads_back_to_an_equal_tree(tmp_path: Path) -> None:
    tree = load_config(None, {"synthesize.per_grade": 2, "grades": [0, 1, 2], "seed": 7})
    path = tmp_path / "config.yaml"
    path.write_text(tree.to_yaml(), encoding="utf-8")
    assert load_config(path) == tree
    assert tree.synthesize.per_grade == 2


def test_flags_win_over_the_file_and_absent_flags_do_not(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("seed: 3\nrefine: {rounds: 2}\n", encoding="utf-8")
    tree = load_config(path, {"seed": 4, "refine.rounds": None})
    assert (tree.seed, tree.refine.rounds) == (4, 2)


def test_a_preset_lies_under_what_the_user_says() -> None:
    tree = load_config(None, {"model.preset": "tiny", "model.score.epochs": 1})
    preset = PRESETS["tiny"]["model"]
    assert tree.model.score.epochs == 1
    assert tree.model.score.rate == preset["score"]["rate"]
    assert tree.model.query.epochs == preset["query"]["epochs"]
    assert PRESETS["tiny"]["model"]["score"]["epochs"] != 1, "the preset itself must not change"
    assert load_config(None).model.score == Config().model.score


@pytest.mark.parametrize(
    ("overrides", "place"),
    [
        ({"synthesize.per_grade": 0}, "synthesize.per_grade"),
        ({"no_such.setting": 1}, "no_such: no such setting"),
        ({"grades": [0, 2]}, "grades"),
        ({"grades": [0]}, "grades"),
        ({"synthesize.grades": [4]}, "synthesize.grades"),
        ({"synthesize.grades": [1, 1]}, "synthesize.grades"),
        ({"model.preset": "tiny", "model.backbone": "x"}, "not both"),
        ({"model.preset": "huge"}, "model.preset"),
        ({"model.score_model": "cross-encoder"}, "give --score-backbone"),
        ({"model.cross_encoder.backbone": "x"}, "for --score-model cross-encoder"),
    ],
)
def test_a_bad_setting_is_named(overrides: dict[str, object], place: str) -> None:
    with pytest.raises(ConfigError, match=place):
        load_config(None, overrides)


@pytest.mark.parametrize(
    ("text", "words"),
    [("- a\n", "mapping"), ("a: [", "YAML"), ("seed: {a: 1}\n", "seed"), ("model: 3\n", "model")],
)
def test_a_bad_file_is_named(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=words) as error:
        load_config(path)
    assert "bad.yaml" in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: no such file"):
        load_config(tmp_path / "none.yaml")


def test_targets_default_to_the_whole_scale() -> None:
    assert Config().targets == (0, 1, 2, 3)
    assert load_config(None, {"synthesize.grades": [3, 1]}).targets == (1, 3)
