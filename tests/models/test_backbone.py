from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFWriter
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
from transformers.trainer_utils import validate_quantization_for_training

from ssra_engine.errors import EngineError
from ssra_engine.models.backbone import load_backbone, save_backbone

IDS = torch.tensor([[1, 5, 9, 30, 7]])


def _logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(IDS).logits[0].float()


def test_a_saved_model_is_the_same_model(llama_folder: Path, llama: Any, tmp_path: Path) -> None:
    model, tokenizer = load_backbone(llama_folder)
    assert not model.training
    save_backbone(model, tokenizer, tmp_path / "copy")
    again, same_tokenizer = load_backbone(tmp_path / "copy")
    assert torch.equal(_logits(again), _logits(llama))
    text = "fox 小猫\n12 </s>"
    assert same_tokenizer(text)["input_ids"] == tokenizer(text)["input_ids"]
    files = {path.name for path in (tmp_path / "copy").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= files
    assert not any(name.endswith((".bin", ".pt")) for name in files)


def test_dtype(llama_folder: Path, llama: Any) -> None:
    model, _ = load_backbone(llama_folder, torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert (_logits(model) - _logits(llama)).abs().max() < 0.3


def test_an_adapter_is_merged(llama_folder: Path, tmp_path: Path) -> None:
    model, _ = load_backbone(llama_folder)
    torch.manual_seed(0)
    config = LoraConfig(
        r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False, task_type="CAUSAL_LM"
    )
    tuned = get_peft_model(model, config).eval()
    expected = _logits(tuned)
    tuned.save_pretrained(tmp_path)
    merged, _ = load_backbone(llama_folder, adapter=tmp_path)
    assert torch.allclose(_logits(merged), expected, atol=1e-4)
    plain, _ = load_backbone(llama_folder)
    assert not torch.allclose(_logits(plain), expected, atol=0.1)
    with pytest.raises(EngineError, match="give its base model, and this folder as the adapter"):
        load_backbone(tmp_path)
    with pytest.raises(EngineError, match="not a LoRA adapter folder"):
        load_backbone(llama_folder, adapter=llama_folder)


def test_a_gguf_model_can_be_trained_and_saved(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "tiny.gguf"
    _write_gguf(file)
    model, tokenizer = load_backbone(file)
    assert capfd.readouterr().err == ""
    assert model.name_or_path == ""
    validate_quantization_for_training(model)
    assert {weights.dtype for weights in model.parameters()} == {torch.float32}
    assert load_backbone(file, torch.bfloat16)[0].dtype == torch.bfloat16
    assert capfd.readouterr().err == ""
    save_backbone(model, tokenizer, tmp_path / "plain")
    again, same_tokenizer = load_backbone(tmp_path / "plain")
    assert again.config.use_cache
    assert getattr(again.config, "quantization_config", None) is None
    assert torch.equal(_logits(again), _logits(model))
    assert same_tokenizer("ab")["input_ids"] == tokenizer("ab")["input_ids"]


def test_what_is_not_a_model(llama_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"PK\x03\x04")
    empty = tmp_path / "empty"
    empty.mkdir()
    for path, message in (
        (tmp_path / "absent", "no such model folder or GGUF file"),
        (file, "not a GGUF file"),
        (empty, "config.json is missing"),
        (_copy(llama_folder, tmp_path / "a", "model.safetensors"), "no weights"),
        (_copy(llama_folder, tmp_path / "b", "tokenizer.json"), "no tokenizer.json"),
    ):
        with pytest.raises(EngineError, match=message) as caught:
            load_backbone(path)
        assert str(path) in str(caught.value)


def test_broken_models(llama_folder: Path, tmp_path: Path) -> None:
    truncated = _copy(llama_folder, tmp_path / "truncated")
    weights = truncated / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    unknown = _copy(llama_folder, tmp_path / "unknown")
    (unknown / "config.json").write_text('{"model_type": "no_such_thing"}')
    garbage = _copy(llama_folder, tmp_path / "garbage")
    (garbage / "config.json").write_text("{")
    gguf = tmp_path / "short.gguf"
    gguf.write_bytes(b"GGUF\x03\x00")
    for path in (truncated, unknown, garbage, gguf):
        with pytest.raises(EngineError, match="cannot be read as a causal language model"):
            load_backbone(path)


def test_pickled_weights_are_refused(llama_folder: Path, tmp_path: Path) -> None:
    folder = _copy(llama_folder, tmp_path / "pickled", "model.safetensors")
    model = AutoModelForCausalLM.from_pretrained(llama_folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(EngineError, match=r"pickled.*Convert them to safetensors"):
        load_backbone(folder)


def test_code_of_a_model_folder_is_not_run(llama_folder: Path, tmp_path: Path) -> None:
    folder = _copy(llama_folder, tmp_path / "remote")
    mark = tmp_path / "was-run"
    (folder / "code.py").write_text(f"open({str(mark)!r}, 'w')\n")
    config = (folder / "config.json").read_text()
    auto = '{"auto_map": {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"}, '
    (folder / "config.json").write_text(
        auto + config.strip()[1:].replace('"model_type": "llama"', '"model_type": "mine"')
    )
    with pytest.raises(EngineError, match="cannot be read as a causal language model"):
        load_backbone(folder)
    assert not mark.exists()


def test_an_unwritable_folder(llama_folder: Path, tmp_path: Path) -> None:
    model, tokenizer = load_backbone(llama_folder)
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError, match="cannot be written"):
        save_backbone(model, tokenizer, tmp_path / "file" / "model")


def _copy(source: Path, target: Path, *without: str) -> Path:
    shutil.copytree(source, target)
    for name in without:
        (target / name).unlink()
    return target


def _write_gguf(file: Path) -> None:
    """A one-layer Llama with a tokenizer of single letters."""
    width, inner, heads = 32, 64, 2
    pieces = ["<unk>", "<s>", "</s>", "▁", *"abcdefghijklmnopqrstuvwxyz0123456789"]
    writer = GGUFWriter(str(file), "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(pieces))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(pieces)
    writer.add_token_scores([0.0] * len(pieces))
    writer.add_token_types([2, 3, 3, *[1] * (len(pieces) - 3)])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    random = torch.Generator().manual_seed(0)
    shapes = {
        "token_embd": (len(pieces), width),
        "output_norm": (width,),
        "output": (len(pieces), width),
        **{f"blk.0.attn_{part}": (width, width) for part in ("q", "k", "v", "output")},
        "blk.0.attn_norm": (width,),
        "blk.0.ffn_norm": (width,),
        "blk.0.ffn_gate": (inner, width),
        "blk.0.ffn_up": (inner, width),
        "blk.0.ffn_down": (width, inner),
    }
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", torch.randn(shape, generator=random).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
