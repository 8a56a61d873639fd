"""The openvino backend: token trees as in the torch backend, computed by OpenVINO on the CPU.

OpenVINO GenAI, with a scheduler, a paged cache and a sampler of its own, was tried first. It
generates somewhat faster, but it knows no labels, draws with its own random numbers, shares a
document only with prompts that come after it, and a prompt beside others that share its beginning
got other probabilities than alone. OpenVINO's runtime under our own scheduler and sampler has none
of these limits: a seed draws the same text as with torch, up to rounding.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ssra_engine.engines.openvino_graph import GraphFacts, export_graph
from ssra_engine.engines.openvino_model import OpenvinoTreeModel
from ssra_engine.engines.torch_engine import multiplies_bfloat16
from ssra_engine.engines.tree_engine import TreeEngine
from ssra_engine.errors import EngineError
from ssra_engine.models.prompt_tokens import PromptTokens

__all__ = ["OpenvinoEngine"]


class OpenvinoEngine(TreeEngine):
    """A causal language model on the CPU.

    Args:
        folder: a model folder, or a GGUF file; it is exported once, see `export_graph`.
        dtype: auto, float32 or bfloat16, of arithmetic, keys and values; see `TorchEngine`.
        batch_tokens: tokens in one batch, padding and tokens still to be generated included.
        threads: of OpenVINO, and of torch (of the whole process), which draws the tokens; None
            leaves both as they are.
        max_document_tokens: a longer document is cut at its end.
        max_context_tokens: prompt and completion together; default, what the model was made for.
        adapter: folder of a LoRA adapter, merged when the model is exported.
        trust_remote_code: run model code from the folder.

    Raises:
        EngineError: the folder is not a readable model, its architecture cannot share documents
            between prompts or not be expressed by OpenVINO, or an option is out of range.
        StoreError: the cache of exported models cannot be written.
    """

    name = "openvino"

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
        if dtype not in ("auto", "float32", "bfloat16"):
            raise EngineError(f"dtype must be auto, float32 or bfloat16, got '{dtype}'.")
        if dtype == "auto":
            dtype = "bfloat16" if multiplies_bfloat16() else "float32"
        if threads is not None:
            torch.set_num_threads(threads)
        exported = export_graph(folder, adapter=adapter, trust_remote_code=trust_remote_code)
        facts = GraphFacts.read(exported)
        super().__init__(
            OpenvinoTreeModel(exported, facts, dtype=dtype, threads=threads),
            PromptTokens(_tokenizer(exported, trust_remote_code), max_document_tokens),
            facts.end_ids,
            batch_tokens=batch_tokens,
            max_context_tokens=max_context_tokens,
        )
        self.stats.notes.append(f"{facts.size} when exported, computed in {dtype}")


def _tokenizer(exported: Path, trust_remote_code: bool) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(
        exported, local_files_only=True, trust_remote_code=trust_remote_code
    )
