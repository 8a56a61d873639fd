from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import sizes
from transformers import AutoModelForCausalLM, Gemma3TextConfig

from ssra_engine.engines.checkpoint import cache_folder, flat_config, prepare_checkpoint
from ssra_engine.errors import EngineError


def test_rotary_embedding_in_the_words_of_transformers_4() -> None:
    plain = {"rope_parameters": {"rope_theta": 1e5, "rope_type": "default"}, "hidden_size": 8}
    assert flat_config(plain) == {**plain, "rope_theta": 1e5, "rope_scaling": None}
    llama3 = {"rope_theta": 5e5, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0}
    found = flat_config({"rope_parameters": llama3})
    assert found["rope_theta"] == 5e5
    assert found["rope_scaling"] == {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0}
    partial = {"rope_theta": 1e4, "rope_type": "default", "partial_rotary_factor": 0.5}
    assert flat_config({"rope_parameters": partial})["partial_rotary_factor"] == 0.5
    old = {"rope_theta": 1e4, "hidden_size": 8}
    assert flat_config(old) == old


def test_rotary_embedding_of_gemma() -> None:
    gemma = {
        "text_config": {
            "rope_parameters": {
                "full_attention": {"rope_theta": 1e6, "rope_type": "linear", "factor": 8.0},
                "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"},
            }
        }
    }
    found = flat_config(gemma)["text_config"]
    assert found["rope_theta"] == 1e6
    assert found["rope_local_base_freq"] == 1e4
    assert found["rope_scaling"] == {"rope_type": "linear", "factor": 8.0}
    assert found["rope_parameters"] == gemma["text_config"]["rope_parameters"]


def test_a_prepared_folder_is_the_same_model(save_random: Callable[[Any], Path]) -> None:
    rope = {
        "full_attention": {"rope_theta": 50_000.0, "rope_type": "linear", "factor": 2.0},
        "sliding_attention": {"rope_theta": 500.0, "rope_type": "default"},
    }
    folder = save_random(
        Gemma3TextConfig(
            **sizes(num_key_value_heads=1, head_dim=16, sliding_window=16),
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
            rope_parameters=rope,
        )
    )
    prepared = prepare_checkpoint(folder)
    config = json.loads((prepared / "config.json").read_text())
    assert (config["rope_theta"], config["rope_local_base_freq"]) == (50_000.0, 500.0)
    ids = torch.arange(3, 43)[None]
    with torch.inference_mode():
        first, second = (
            AutoModelForCausalLM.from_pretrained(f, dtype=torch.float32).eval()(ids).logits
            for f in (folder, prepared)
        )
    assert torch.equal(first, second)


def test_the_second_time_nothing_is_done(llama_folder: Path, tmp_path: Path) -> None:
    folder = prepare_checkpoint(llama_folder, cache=tmp_path)
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert prepare_checkpoint(llama_folder, cache=tmp_path) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == times
    # Weights that are copied have the type they had.
    assert prepare_checkpoint(llama_folder, dtype="float32", cache=tmp_path) == folder


def test_adapters_are_merged_and_told_apart(llama_folder: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    model = AutoModelForCausalLM.from_pretrained(llama_folder, dtype=torch.float32)
    torch.manual_seed(0)
    tuned = get_peft_model(
        model, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    )
    tuned.save_pretrained(tmp_path / "adapter")
    plain = prepare_checkpoint(llama_folder, cache=tmp_path)
    merged = prepare_checkpoint(
        llama_folder, adapter=tmp_path / "adapter", dtype="float32", cache=tmp_path
    )
    half = prepare_checkpoint(llama_folder, adapter=tmp_path / "adapter", cache=tmp_path)
    assert len({plain, merged, half}) == 3
    assert not list(merged.glob("adapter*"))
    ids = torch.arange(3, 23)[None]
    found = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32)
    with torch.inference_mode():
        assert torch.allclose(found(ids).logits, tuned.eval()(ids).logits, atol=1e-4)
    assert json.loads((half / "config.json").read_text())["dtype"] == "bfloat16"
    (tmp_path / "adapter" / "README.md").write_text("another")
    assert prepare_checkpoint(llama_folder, adapter=tmp_path / "adapter", cache=tmp_path) != half
    assert prepare_checkpoint(llama_folder, cache=tmp_path) == plain


def test_two_processes_at_once(llama_folder: Path, tmp_path: Path) -> None:
    """And what a crash has left is cleared away."""
    folder = prepare_checkpoint(llama_folder, cache=tmp_path)
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    left = folder.with_name(folder.name + ".tmp")
    folder.rename(left)
    (left / "half").write_text("")
    code = (
        "import sys; from pathlib import Path;"
        "from ssra_engine.engines.checkpoint import prepare_checkpoint as prepare;"
        "print(prepare(sys.argv[1], cache=Path(sys.argv[2])))"
    )
    command = [sys.executable, "-c", code, str(llama_folder), str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = [process.communicate()[0].strip() for process in both]
    assert told == [str(folder)] * 2
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole
    assert not left.exists()


def test_what_cannot_be_prepared(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no such file or folder"):
        prepare_checkpoint(tmp_path / "nothing", cache=tmp_path / "cache")
    model = tmp_path / "model"
    model.mkdir()
    with pytest.raises(EngineError, match=r"config\.json is missing"):
        prepare_checkpoint(model, cache=tmp_path / "cache")
    (model / "config.json").write_text("{}")
    with pytest.raises(EngineError, match=r"no weights \(\*\.safetensors\)"):
        prepare_checkpoint(model, cache=tmp_path / "cache")


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSRA_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("SSRA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "ssra-engine"
