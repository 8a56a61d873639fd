"""Backbones: causal language models read from a Hugging Face folder or a GGUF file, and saved.

Weights come from safetensors or GGUF only; pickled checkpoints run code when they are opened and
are refused. Nothing is downloaded.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ssra_engine.errors import EngineError

__all__ = ["load_backbone", "model_source", "save_backbone"]

_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def load_backbone(
    path: str | Path,
    dtype: torch.dtype = torch.float32,
    *,
    adapter: str | Path | None = None,
    trust_remote_code: bool = False,
) -> tuple[Any, Any]:
    """Read a causal language model and its tokenizer.

    Args:
        path: a folder with config.json, safetensors weights and a tokenizer; or a GGUF file, whose
            quantised weights are expanded to `dtype`: the model can be trained and saved.
        dtype: type of the weights in memory.
        adapter: folder of a LoRA adapter (peft), merged into the weights.
        trust_remote_code: run the model code that the folder brings.

    Returns:
        (transformers ``PreTrainedModel`` in evaluation mode, ``PreTrainedTokenizerFast``).

    Raises:
        EngineError: there is nothing at `path`, it is not a model, its weights are pickled only, or
            transformers cannot read it.
    """
    path = Path(path)
    source = model_source(path)
    if adapter is not None and not (Path(adapter) / "adapter_config.json").is_file():
        raise EngineError(f"{adapter}: no adapter_config.json; not a LoRA adapter folder.")
    if adapter is not None and not (Path(adapter) / "adapter_model.safetensors").is_file():
        raise EngineError(
            f"{adapter}: no adapter_model.safetensors. A pickled adapter is refused, since opening "
            "a pickle runs its code: convert it to safetensors."
        )
    options = {**source, "local_files_only": True, "trust_remote_code": trust_remote_code}
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with _no_progress_bars():
        try:
            tokenizer = AutoTokenizer.from_pretrained(**options)
            model = AutoModelForCausalLM.from_pretrained(
                **options, **_expanded(source), dtype=dtype, use_safetensors=True
            )
            if getattr(model, "hf_quantizer", None) is not None:
                # transformers neither trains nor saves what counts as quantised.
                model.hf_quantizer.remove_quantization_config(model)
            if adapter is not None:
                model = _merge(model, adapter)
        except Exception as error:  # readers of broken files raise a dozen kinds
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            raise EngineError(
                f"{path}: cannot be read as a causal language model: {reason}"
            ) from error
    if not getattr(tokenizer, "is_fast", False):
        raise EngineError(f"{path}: needs a fast tokenizer (tokenizer.json).")
    model.name_or_path = ""  # peft asks a model hub about models that have a name
    return model.to(dtype).eval(), tokenizer


def save_backbone(model: Any, tokenizer: Any, folder: str | Path) -> None:
    """Write a model and its tokenizer as a plain safetensors folder that `load_backbone` reads.

    Raises:
        EngineError: the folder cannot be written.
    """
    model.config.use_cache = True  # training turns it off
    with _no_progress_bars():
        try:
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        except OSError as error:
            raise EngineError(f"{folder}: the model cannot be written: {error}.") from error


def model_source(path: Path) -> dict[str, Any]:
    """Where transformers' ``from_pretrained`` finds a model folder or a GGUF file.

    Raises:
        EngineError: there is nothing at `path`, it is not a model, or its weights are pickled only.
    """
    return _gguf_source(path) if path.is_file() else _folder_source(path)


def _expanded(source: dict[str, Any]) -> dict[str, Any]:
    """Ask for plain weights of a GGUF file, where transformers may leave them packed."""
    from transformers.utils import quantization_config

    if "gguf_file" not in source or not hasattr(quantization_config, "GgufConfig"):
        return {}
    return {"quantization_config": quantization_config.GgufConfig(dequantize=True)}


def _gguf_source(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise EngineError(f"{path}: not a GGUF file; give a GGUF file or a model folder.")
    return {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}


def _folder_source(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise EngineError(f"{path}: no such model folder or GGUF file.")
    if not (path / "config.json").is_file():
        hint = (
            " It is a LoRA adapter: give its base model, and this folder as the adapter."
            if (path / "adapter_config.json").is_file()
            else ""
        )
        raise EngineError(f"{path}: not a model folder: config.json is missing.{hint}")
    if not any(path.glob("*.safetensors")):
        if any(file for pattern in _PICKLED for file in path.glob(pattern)):
            raise EngineError(
                f"{path}: the weights are pickled, and opening a pickle runs its code. "
                "Convert them to safetensors."
            )
        raise EngineError(f"{path}: no weights (*.safetensors) in this model folder.")
    if not any((path / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        raise EngineError(f"{path}: no tokenizer.json in this model folder.")
    return {"pretrained_model_name_or_path": str(path)}


def _merge(model: Any, adapter: str | Path) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()


@contextlib.contextmanager
def _no_progress_bars() -> Iterator[None]:
    from transformers import modeling_gguf_pytorch_utils as gguf_reader
    from transformers.utils import logging

    shown, bar = logging.is_progress_bar_enabled(), gguf_reader.tqdm
    logging.disable_progress_bar()
    gguf_reader.tqdm = functools.partial(bar, disable=True)  # heeds no setting of its own
    try:
        yield
    finally:
        gguf_reader.tqdm = bar
        if shown:
            logging.enable_progress_bar()
