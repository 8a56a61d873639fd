"""What the conformance suite does not ask of the openvino backend: its graphs and its cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peft import LoraConfig, get_peft_model
from small_models import sizes
from transformers import BloomConfig, Gemma2Config, Gemma3TextConfig, MistralConfig

from ssra_engine.engines import Engine, Request, load_engine
from ssra_engine.errors import EngineError
from ssra_engine.models.backbone import load_backbone

pytest.importorskip("openvino", reason="needs ssra-engine[openvino]")

#: Windows shorter than the documents, so that sliding layers hide a part of them.
ARCHITECTURES = {
    "gemma3": Gemma3TextConfig(
        **sizes(num_key_value_heads=1, head_dim=16, sliding_window=16),
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    ),
    "gemma2": Gemma2Config(**sizes(num_key_value_heads=2, head_dim=16, sliding_window=16)),
    "mistral": MistralConfig(**sizes(num_key_value_heads=2, sliding_window=16)),
}
DOCUMENTS = ["T:fox\n", "T:a short video about cooking noodles\nX:with garlic 小猫 at home\n", ""]
REQUESTS = [Request(d, s) for d in DOCUMENTS for s in ("Q:fox\nG:", "Q:noodles at home\nG:", "Q")]
LABELS = list(range(40))


def opened(folder: Path, **options: Any) -> Engine:
    return load_engine(folder, "openvino", dtype="float32", threads=1, **options)


def tokens(engine: Engine, **settings: Any) -> list[list[tuple[int, ...]]]:
    rows = engine.generate(REQUESTS, **settings)
    return [[completion.token_ids for completion in row] for row in rows]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_models_compute_as_with_torch(
    architecture: str, save_random: Callable[[Any], Path]
) -> None:
    folder = save_random(ARCHITECTURES[architecture])
    expected, engine = load_engine(folder, dtype="float32", batch_tokens=400), opened(folder)
    logits = engine.label_logits(REQUESTS, LABELS)
    assert np.abs(logits - expected.label_logits(REQUESTS, LABELS)).max() < 1e-3
    settings: dict[str, Any] = {"max_new_tokens": 10, "temperature": 0}
    assert tokens(engine, **settings) == tokens(expected, **settings)


@pytest.mark.parametrize("batch_tokens", [150, 100_000])
def test_a_seed_draws_what_it_draws_with_torch(llama_folder: Path, batch_tokens: int) -> None:
    """Branches of different lengths, so that rows and columns are cut out while decoding."""
    settings: dict[str, Any] = {"n": 5, "max_new_tokens": 24, "seed": 1, "stop": ["e", "1"]}
    expected = tokens(load_engine(llama_folder, dtype="float32"), **settings)
    lengths = [len(ids) for row in expected for ids in row]
    assert min(lengths) < 6
    assert max(lengths) > 20
    assert tokens(opened(llama_folder, batch_tokens=batch_tokens), **settings) == expected


def test_exported_once_for_each_adapter(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSRA_CACHE", str(tmp_path / "cache"))
    adapter = tmp_path / "adapter"
    model, _ = load_backbone(llama_folder)
    lora = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    get_peft_model(model, lora).save_pretrained(adapter)
    plain = opened(llama_folder).label_logits(REQUESTS, LABELS)
    adapted = opened(llama_folder, adapter=adapter).label_logits(REQUESTS, LABELS)
    expected = load_engine(llama_folder, dtype="float32", adapter=adapter)
    assert np.abs(adapted - expected.label_logits(REQUESTS, LABELS)).max() < 1e-3
    assert np.abs(adapted - plain).max() > 0.1
    assert len(list((tmp_path / "cache" / "openvino").iterdir())) == 2
    monkeypatch.delattr("ssra_engine.engines.openvino_graph.load_backbone")
    assert np.array_equal(opened(llama_folder).label_logits(REQUESTS, LABELS), plain)


def test_a_graph_that_computes_otherwise_is_refused(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSRA_CACHE", str(tmp_path))
    opened(llama_folder).close()
    (plain,) = tmp_path.glob("openvino/*/plain.npy")
    np.save(plain, np.load(plain)[:, ::-1])
    with pytest.raises(EngineError, match="cannot share a document between prompts"):
        opened(llama_folder)


def test_a_model_without_ordinary_attention_is_refused(
    save_random: Callable[[Any], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSRA_CACHE", str(tmp_path))
    folder = save_random(BloomConfig(vocab_size=384, hidden_size=64, n_layer=2, n_head=4))
    with pytest.raises(EngineError, match="models of type 'bloom' cannot"):
        opened(folder)


def test_bad_options(llama_folder: Path) -> None:
    with pytest.raises(EngineError, match="dtype must be auto, float32 or bfloat16"):
        load_engine(llama_folder, "openvino", dtype="int3")
    with pytest.raises(EngineError, match="batch_tokens must be at least 1"):
        opened(llama_folder, batch_tokens=0)
