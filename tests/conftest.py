from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# The same examples every time; `--hypothesis-profile=default` looks for others.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")

# Threads that wait for each other cost tiny models more than they bring, and on a busy machine a
# hundred times more. Read by torch when it is first imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Prepared checkpoints go where the tests go."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSRA_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    from small_models import byte_tokenizer

    return byte_tokenizer()


@pytest.fixture(scope="session")
def save_random(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Callable[[Any], Path]:
    """Save a model of random weights for a configuration; returns its folder."""
    import torch
    from transformers import AutoModelForCausalLM

    from ssra_engine.models.backbone import save_backbone

    def save(config: Any) -> Path:
        torch.manual_seed(1)
        folder = tmp_path_factory.mktemp(config.model_type)
        save_backbone(AutoModelForCausalLM.from_config(config), tokenizer, folder)
        return folder

    return save


@pytest.fixture(scope="session")
def llama_folder(save_random: Callable[[Any], Path]) -> Path:
    from small_models import sizes
    from transformers import LlamaConfig

    return save_random(LlamaConfig(**sizes(num_key_value_heads=2)))


@pytest.fixture(scope="session")
def llama(llama_folder: Path) -> Any:
    """The model of `llama_folder`, as transformers opens it: the reference."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(llama_folder, dtype=torch.float32).eval()
