"""TensorRT-LLM and vLLM themselves, in the interpreters SSRA_TRT_PYTHON and SSRA_VLLM_PYTHON.

The conformance suite, on a model whose attention heads are as wide as their kernels want them. What
TensorRT-LLM cannot do (see its `limits`) is left out: draws that follow seeds, minimal lengths.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import test_conformance as suite
import torch
from small_models import sizes
from transformers import AutoModelForCausalLM, LlamaConfig

from ssra_engine.engines import Engine, load_engine

TOLERANCE = {"tensorrt_llm": 0.05, "vllm": 1e-3}
DTYPES = {"tensorrt_llm": "bfloat16", "vllm": "float32"}
#: Of the suite, what holds without seeds and in bfloat16.
UNSEEDED = {
    "test_label_distributions_are_the_models",
    "test_identical_requests_get_identical_results",
    "test_no_requests",
    "test_stop_strings",
    "test_context_limit",
    "test_labels_must_be_one_token",
}
PYTHONS = {
    "tensorrt_llm": os.environ.get("SSRA_TRT_PYTHON"),
    "vllm": os.environ.get("SSRA_VLLM_PYTHON"),
}
MARKS = {"tensorrt_llm": [pytest.mark.gpu], "vllm": []}
if not any(PYTHONS.values()):
    pytest.skip("SSRA_TRT_PYTHON and SSRA_VLLM_PYTHON are not set", allow_module_level=True)

prompt_ids = suite.prompt_ids


@pytest.fixture(scope="module")
def llama_folder(save_random: Callable[[Any], Path]) -> Path:
    wide = sizes(hidden_size=256, num_key_value_heads=2, max_position_embeddings=200)
    return save_random(LlamaConfig(**wide))


@pytest.fixture(scope="module")
def llama(llama_folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(llama_folder, dtype=torch.float32).eval()


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=MARKS[name]) for name, python in PYTHONS.items() if python],
)
def engine(request: pytest.FixtureRequest, llama_folder: Path) -> Iterator[Engine]:
    options: dict[str, Any] = {
        "python": PYTHONS[request.param],
        "dtype": DTYPES[request.param],
        "memory": 0.3,
    }
    options |= {"block_reuse": False, "max_context_tokens": 192}
    engine = load_engine(llama_folder, request.param, **options)
    yield engine
    engine.close()


@pytest.fixture
def model_engine(engine: Engine) -> Engine:
    return engine


@pytest.fixture
def tolerance(engine: Engine) -> float:
    return TOLERANCE[engine.name]


@pytest.fixture(autouse=True)
def _what_it_can_do(request: pytest.FixtureRequest, engine: Engine) -> None:
    if engine.name == "tensorrt_llm" and request.function.__name__ not in UNSEEDED:
        pytest.skip("draws do not follow seeds, and bfloat16 is not float32")


test_label_distributions = suite.test_label_distributions_are_the_models
test_greedy_text = suite.test_greedy_text_is_the_models
test_scores_are_arrow = suite.test_scores_are_arrow
test_completions_are_arrow = suite.test_completions_are_arrow
test_order_and_neighbours = suite.test_order_and_neighbours_do_not_matter
test_seeds = suite.test_seeds
test_a_thousand_requests = suite.test_a_thousand_requests_and_one
test_identical_requests = suite.test_identical_requests_get_identical_results
test_the_same_prompt_with_other_seeds = suite.test_the_same_prompt_with_other_seeds
test_no_requests = suite.test_no_requests
test_stop_strings = suite.test_stop_strings
test_lengths = suite.test_lengths
test_context_limit = suite.test_context_limit
test_token_ids_as_prompts = suite.test_token_ids_as_prompts
test_labels_must_be_one_token = suite.test_labels_must_be_one_token
