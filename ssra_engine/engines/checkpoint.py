"""Checkpoints for engines in other interpreters: folders that older transformers read rightly too.

Such an engine gets merged weights (a LoRA adapter and a GGUF file are expanded) and a configuration
that says the rotary embedding both ways. transformers 5 writes it as one mapping,
``rope_parameters``; transformers 4 looks for ``rope_theta``, ``rope_scaling`` and, in Gemma 3,
``rope_local_base_freq``, does not find them and computes with its defaults, silently. Each reads
its own and ignores the other.

Prepared folders are kept in a cache under a key of what went into them, so the second time nothing
is done, and a changed adapter makes only what depends on it. A lock keeps two processes from
writing one folder at once; a folder appears when it is whole, so a crash leaves nothing behind.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import xxhash

from ssra_engine.content import content_key
from ssra_engine.durable import locked, put_folder, writing
from ssra_engine.errors import EngineError

__all__ = ["cache_folder", "flat_config", "prepare_checkpoint"]

#: Part of every key; raise it when what is written changes.
_FORMAT = 1
_GLOBAL, _LOCAL = "full_attention", "sliding_attention"


def cache_folder() -> Path:
    """``$SSRA_CACHE``, else ``ssra-engine`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    if own := os.environ.get("SSRA_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ssra-engine"


def prepare_checkpoint(
    model: str | Path,
    *,
    adapter: str | Path | None = None,
    dtype: str = "bfloat16",
    trust_remote_code: bool = False,
    cache: Path | None = None,
) -> Path:
    """A folder of `model` for an engine in another interpreter.

    Args:
        model: a model folder (copied as it is, quantised weights too, but for its configuration) or
            a GGUF file.
        adapter: folder of a LoRA adapter, to be merged.
        dtype: float32 or bfloat16, of weights that are merged or expanded; merging is in float32.
        trust_remote_code: run model code from the folder.
        cache: where prepared folders are kept; `cache_folder` unless given.

    Raises:
        EngineError: the model or the adapter cannot be read.
        StoreError: the cache cannot be written.
    """
    model = Path(model)
    rewritten = adapter is not None or model.is_file()
    parts = [f"{_FORMAT}", content_key(model)]
    if rewritten:
        parts += [dtype, "" if adapter is None else content_key(adapter)]
    key = xxhash.xxh3_128_hexdigest(" ".join(parts).encode())
    folder = (cache or cache_folder()) / "checkpoints" / key

    def fill(target: Path) -> None:
        if rewritten:
            _rewrite(model, adapter, dtype, trust_remote_code, target)
        else:
            _copy(model, target)
        path = target / "config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(flat_config(config), indent=1), encoding="utf-8")

    with locked(folder):
        if not folder.exists():
            put_folder(folder, fill)
    return folder


def flat_config(config: dict[str, Any]) -> dict[str, Any]:
    """`config` with the rotary embedding in the words of transformers 4 beside those of 5."""
    flat = {
        key: flat_config(value) if isinstance(value, dict) and key.endswith("_config") else value
        for key, value in config.items()
    }
    rope = config.get("rope_parameters")
    if not isinstance(rope, dict):
        return flat
    if _GLOBAL in rope or _LOCAL in rope:
        local = rope.get(_LOCAL) or {}
        rope = rope.get(_GLOBAL) or local
        if "rope_theta" in local:
            flat["rope_local_base_freq"] = local["rope_theta"]
    for key in ("rope_theta", "partial_rotary_factor"):
        if key in rope:
            flat[key] = rope[key]
    scaling = {key: value for key, value in rope.items() if key not in flat}
    flat["rope_scaling"] = None if scaling.get("rope_type", "default") == "default" else scaling
    return flat


def _rewrite(
    model: Path, adapter: str | Path | None, dtype: str, trust_remote_code: bool, target: Path
) -> None:
    import torch

    from ssra_engine.models.backbone import load_backbone, save_backbone

    network, tokenizer = load_backbone(
        model, torch.float32, adapter=adapter, trust_remote_code=trust_remote_code
    )
    save_backbone(network.to(getattr(torch, dtype)), tokenizer, target)


def _copy(model: Path, target: Path) -> None:
    if not (model / "config.json").is_file():
        raise EngineError(f"{model}: not a model folder: config.json is missing.")
    if not any(model.glob("*.safetensors")):
        raise EngineError(f"{model}: no weights (*.safetensors) in this model folder.")
    with writing(target):
        for path in model.iterdir():
            if path.is_file():
                shutil.copyfile(path, target / path.name)
