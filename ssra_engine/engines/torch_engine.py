"""The torch backend: always there, and the reference for the others.

Only the labels' rows of the head are computed when scoring.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ssra_engine.engines.causal_lm import CausalTreeModel
from ssra_engine.engines.tree_engine import TreeEngine
from ssra_engine.errors import EngineError
from ssra_engine.models.backbone import load_backbone
from ssra_engine.models.prompt_tokens import PromptTokens

__all__ = ["TorchEngine", "end_ids", "model_size", "multiplies_bfloat16"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class TorchEngine(TreeEngine):
    """A causal language model on the CPU.

    Args:
        folder: a model folder, or a GGUF file; see `load_backbone`.
        dtype: auto, float32 or bfloat16. auto is bfloat16 where the CPU multiplies it natively and
            float32 elsewhere. With bfloat16, label probabilities are off by up to about 0.03.
        batch_tokens: tokens in one batch, padding and tokens still to be generated included.
        threads: threads of torch (of the whole process); None leaves them as they are.
        max_document_tokens: a longer document is cut at its end.
        max_context_tokens: prompt and completion together; default, what the model was made for.
        adapter: folder of a LoRA adapter, merged when loading.
        trust_remote_code: run model code from the folder.

    Raises:
        EngineError: the folder is not a readable model, its architecture cannot share documents
            between prompts, or an option is out of range.
    """

    name = "torch"

    def __init__(
        self,
        folder: str | Path,
        *,
        dtype: str = "auto",
        batch_tokens: int = 8192,
        threads: int | None = None,
        max_document_tokens: int | None = None,
        max_context_tokens: int | None = None,
        adapter: str | Path | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        model, tokenizer = load_backbone(
            folder, _dtype(dtype), adapter=adapter, trust_remote_code=trust_remote_code
        )
        ends = end_ids(model, tokenizer)
        size = model_size(model)
        super().__init__(
            CausalTreeModel(model),
            PromptTokens(tokenizer, max_document_tokens),
            ends,
            batch_tokens=batch_tokens,
            max_context_tokens=max_context_tokens,
        )
        self.stats.notes.append(size)


def model_size(model: Any) -> str:
    """How large a torch model is, for people."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    megabytes = sum(p.numel() * p.element_size() for p in model.parameters()) / 2**20
    dtype = str(model.dtype).removeprefix("torch.")
    return f"{parameters / 1e6:.1f} million parameters in {dtype}, {megabytes:.0f} MiB"


def _dtype(name: str) -> torch.dtype:
    if name == "auto":
        return torch.bfloat16 if multiplies_bfloat16() else torch.float32
    if name not in _DTYPES:
        raise EngineError(f"dtype must be auto, {' or '.join(_DTYPES)}, got '{name}'.")
    return _DTYPES[name]


def multiplies_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 natively; elsewhere it is slower than float32."""
    # Older versions of torch lack one check or the other.
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, check, bool)() for check in checks)


def end_ids(model: Any, tokenizer: Any) -> list[int]:
    """Tokens that end a completion, by the model, its generation settings and its tokenizer."""
    ids = {tokenizer.eos_token_id}
    for config in (model.generation_config, model.config):
        value = getattr(config, "eos_token_id", None)
        ids.update(value if isinstance(value, list) else [value])
    vocabulary = model.get_output_embeddings().weight.shape[0]
    return sorted(int(i) for i in ids if i is not None and 0 <= i < vocabulary)
