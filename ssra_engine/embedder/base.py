"""The model that a training starts from: any folder of an encoder, a causal LM or an embedder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from ssra_engine.embedder.settings import TrainSettings
from ssra_engine.errors import ConfigError, EngineError

__all__ = ["add_lora", "checkpoint_activations", "merge_lora", "open_base", "prompts_of"]

_MEND = "Give the folder of an embedding model, an encoder or a causal language model."

#: Tokens of a text in a folder that is no sentence-transformers model yet: language models admit
#: far longer ones than anyone trains an embedder on.
_MAX_TOKENS = 512

#: What `SentenceTransformer.encode_document` looks for, in this order.
_DOCUMENT_PROMPTS = ("document", "passage", "corpus")


def open_base(folder: Path, settings: TrainSettings) -> SentenceTransformer:
    """Open a sentence-transformers folder, or put pooling on one of a transformer.

    Weights are read from safetensors only, into float32. Without a word on pooling, a causal LM
    gets that of the last token, its texts padded on the left, and an encoder the mean.

    Args:
        folder: local; nothing is downloaded.
        settings: pooling, prompts and max_tokens, which the model carries from here on.

    Raises:
        EngineError: it is no folder, or no model that can be opened.
        ConfigError: pooling is asked of a model that has its own, or dims beyond the model's.
    """
    if not folder.is_dir():
        raise EngineError(f"{folder}: there is no such folder. {_MEND}")
    whole = (folder / "modules.json").is_file()
    if whole and settings.pooling is not None:
        raise ConfigError(f"{folder}: the model has pooling of its own. Leave out --pooling.")
    if not whole and not (folder / "config.json").is_file():
        raise EngineError(f"{folder}: neither modules.json nor config.json is there. {_MEND}")
    try:
        model = _open_whole(folder) if whole else _open_transformer(folder, settings)
    except Exception as error:  # whatever a damaged folder makes its many readers raise
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise EngineError(f"{folder}: the model cannot be opened: {first_line}. {_MEND}") from error
    _limit(model, settings.max_tokens if whole else settings.max_tokens or _MAX_TOKENS)
    for name in ("query", "document"):
        prompt = getattr(settings, f"{name}_prompt")
        if prompt is not None:
            model.prompts[name] = prompt
    width = int(model.get_embedding_dimension() or 0)
    if any(dim > width for dim in settings.dims):
        raise ConfigError(f"dims must lie within 1 and {width}, got {list(settings.dims)}.")
    return model


def _options() -> dict[str, Any]:
    return {"dtype": torch.float32, "use_safetensors": True}


def _open_whole(folder: Path) -> SentenceTransformer:
    return SentenceTransformer(str(folder), local_files_only=True, model_kwargs=_options())


def _open_transformer(folder: Path, settings: TrainSettings) -> SentenceTransformer:
    local = {"local_files_only": True}
    kind = AutoConfig.from_pretrained(str(folder), **local).model_type
    causal = kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    causal = causal and kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    mode = settings.pooling or ("lasttoken" if causal else "mean")
    padding = {"padding_side": "left"} if mode == "lasttoken" else {}
    body = Transformer(
        str(folder),
        model_kwargs={**_options(), **local},
        processor_kwargs={**padding, **local},
        config_kwargs=dict(local),
    )
    if body.tokenizer.pad_token is None:
        body.tokenizer.pad_token = body.tokenizer.eos_token
    return SentenceTransformer(modules=[body, Pooling(body.get_embedding_dimension(), mode)])


def _limit(model: SentenceTransformer, tokens: int | None) -> None:
    if tokens is not None and isinstance(model[0], Transformer):
        model.max_seq_length = min(tokens, model.max_seq_length or tokens)


def prompts_of(model: SentenceTransformer) -> dict[str, str]:
    """What `encode_query` and `encode_document` put before a text: of `query` and `document`."""
    names = [name for name in _DOCUMENT_PROMPTS if name in model.prompts]
    document = model.prompts[names[0]] if names else None
    return {"query": model.prompts.get("query") or "", "document": document or ""}


def checkpoint_activations(model: SentenceTransformer) -> None:
    """Compute the transformer's activations again in the backward pass, and do not keep them.

    Raises:
        ConfigError: the model has no transformer.
    """
    if not isinstance(model[0], Transformer):
        raise ConfigError("the model has no transformer. Leave out --gradient-checkpointing.")
    body = model[0].auto_model
    # transformers has renamed it, and warns of the old name.
    enable = getattr(body, "activation_checkpointing_enable", body.gradient_checkpointing_enable)
    enable({"use_reentrant": False})


def add_lora(model: SentenceTransformer, settings: TrainSettings) -> None:
    """Freeze the transformer and put an adapter into each of its linear layers.

    Raises:
        ConfigError: the model has no transformer.
    """
    if not isinstance(model[0], Transformer):
        raise ConfigError("the model has no transformer that a LoRA could adapt. Leave out --lora.")
    from peft import LoraConfig

    model.add_adapter(
        LoraConfig(
            r=settings.lora_rank,
            lora_alpha=settings.lora_alpha or 2 * settings.lora_rank,
            lora_dropout=settings.lora_dropout,
            target_modules="all-linear",
        )
    )


def merge_lora(
    model: SentenceTransformer, base: Path, settings: TrainSettings, scratch: Path
) -> None:
    """Put the adapter of `add_lora` into the weights.

    Args:
        model: trained; changed in place.
        base: the folder it was opened from.
        settings: that it was opened with.
        scratch: an empty folder for the adapter.
    """
    from peft import PeftModel

    model[0].auto_model.save_pretrained(str(scratch))
    plain = open_base(base, settings)[0].auto_model
    merged = PeftModel.from_pretrained(plain, str(scratch)).merge_and_unload()
    model[0].model = merged.to(model.device)
