"""Scoring and generating for four requests a document, beside plain transformers.

    pytest benchmarks/bench_engines.py
    SSRA_BENCH_MODELS=smollm2-135m.gguf:gemma-3-270m.gguf pytest benchmarks/bench_engines.py --full

The peer is called as well as it can be: prompts of like length in left-padded batches of 32, only
the last position's logits and no cache when scoring. Work: prompts of 163 tokens, 64 of them, 16
new tokens. Without SSRA_BENCH_MODELS (folders or GGUF files) the model is six layers of SmolLM2's
shape with random weights. Every engine's answers are compared with the peer's in float32 first.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import race
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from ssra_engine.engines import Request, load_engine
from ssra_engine.engines.torch_engine import multiplies_bfloat16
from ssra_engine.models.backbone import load_backbone, save_backbone

DOCUMENTS, PER_DOCUMENT, PREFIX, SUFFIX, NEW = 16, 4, 140, 23, 16
BATCH = 32
#: Largest distance of a label probability from float32, and least ratio to plain transformers.
MAX_DP = {"float32": 1e-3, "bfloat16": 0.05}
LEAST = {"score": 2.5, "generate": 2.0}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
TEXT = "the cat of paris lived near a river and cooked noodles with garlic for the old king"


@dataclass(frozen=True)
class Work:
    """Prompts in token ids, each a document and a suffix, and the tokens to score."""

    prompts: list[tuple[list[int], list[int]]]
    labels: list[int]

    @property
    def requests(self) -> list[Request]:
        return [Request(prefix, suffix) for prefix, suffix in self.prompts]


@pytest.fixture(scope="module", params=os.environ.get("SSRA_BENCH_MODELS", "").split(os.pathsep))
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model as a plain folder, which every contestant opens."""
    folder = tmp_path_factory.mktemp("model")
    if model:
        save_backbone(*load_backbone(model), folder)
        return folder
    tokenizer = Tokenizer(
        models.WordLevel(
            {word: i for i, word in enumerate(["</s>", *sorted(set(TEXT.split()))])}, "</s>"
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    torch.manual_seed(0)
    sizes = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 6}
    heads = {"num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True}
    random = AutoModelForCausalLM.from_config(
        LlamaConfig(vocab_size=49152, initializer_range=0.04, eos_token_id=0, **sizes, **heads)
    )
    save_backbone(
        random, PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>"), folder
    )
    return folder


@pytest.fixture(scope="module")
def work(folder: Path) -> Work:
    _, tokenizer = load_backbone(folder)
    rng = np.random.default_rng(0)

    def ids(length: int) -> list[int]:
        text = " ".join(rng.choice(TEXT.split(), 2 * length))
        return list(tokenizer(text, add_special_tokens=False)["input_ids"][:length])

    documents = [ids(PREFIX) for _ in range(DOCUMENTS)]
    return Work(
        [(document, ids(SUFFIX)) for document in documents for _ in range(PER_DOCUMENT)],
        sorted(set(ids(60)))[:4],
    )


class Plain:
    """transformers, as a careful user calls it."""

    def __init__(self, folder: Path, dtype: str, work: Work) -> None:
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPES[dtype]).eval()
        self.prompts = torch.tensor([[*prefix, *suffix] for prefix, suffix in work.prompts])
        self.labels = work.labels

    def score(self) -> np.ndarray:
        rows = []
        with torch.inference_mode():
            for part in self.prompts.split(BATCH):
                output = self.model(part, logits_to_keep=1, use_cache=False)
                rows.append(output.logits[:, -1, self.labels].float())
        return torch.cat(rows).numpy()

    def generate(self) -> list[list[int]]:
        rows: list[list[int]] = []
        for part in self.prompts.split(BATCH):
            whole = self.model.generate(
                part,
                attention_mask=torch.ones_like(part),
                max_new_tokens=NEW,
                min_new_tokens=NEW,
                do_sample=False,
                pad_token_id=0,
            )
            rows += whole[:, part.shape[1] :].tolist()
        return rows


class Ours:
    """The torch engine."""

    def __init__(self, folder: Path, dtype: str, work: Work) -> None:
        self.engine = load_engine(folder, "torch", dtype=dtype)
        self.requests, self.labels = work.requests, work.labels

    def score(self) -> np.ndarray:
        return self.engine.label_logits(self.requests, self.labels)

    def generate(self) -> list[list[int]]:
        rows = self.engine.generate(
            self.requests, max_new_tokens=NEW, min_new_tokens=NEW, temperature=0
        )
        return [list(completion.token_ids) for (completion,) in rows]


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest, full: bool) -> Iterator[int]:
    if request.param > 1 and not full:
        pytest.skip("more than one thread only with --full")
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_engines(
    model: str,
    folder: Path,
    work: Work,
    threads: int,
    full: bool,
    gate: Callable[[str, float, float], None],
    record: Callable[..., None],
) -> None:
    dtypes = ["float32", "bfloat16"] if multiplies_bfloat16() else ["float32"]
    contestants: dict[str, Any] = {
        f"{name} {dtype}": kind(folder, dtype, work)
        for dtype in dtypes
        for name, kind in (("transformers", Plain), ("torch", Ours))
    }
    reference = contestants["transformers float32"]
    exact, texts = _softmax(reference.score()), reference.generate()
    distance, agreement = {}, {}
    for name, contestant in contestants.items():
        distance[name] = float(np.abs(_softmax(contestant.score()) - exact).max())
        pairs = zip(contestant.generate(), texts, strict=True)
        agreement[name] = float(np.mean([found == text for found, text in pairs]))
    for dtype in dtypes:
        assert distance[f"torch {dtype}"] <= MAX_DP[dtype]
    assert agreement["torch float32"] >= 0.95
    assert np.ptp(exact) > 0.01

    for task, least in LEAST.items():
        runs = {name: getattr(contestant, task) for name, contestant in contestants.items()}
        times = race(runs, rounds=2)
        peer = times[f"transformers {dtypes[-1]}"].processor
        for name, timing in times.items():
            record(
                model=Path(model).stem or "random",
                threads=threads,
                task=task,
                engine=name,
                items_per_s=round(len(work.prompts) / timing.wall, 2),
                items_per_cpu_s=round(len(work.prompts) / timing.processor, 2),
                times_peer=round(peer / timing.processor, 2),
                max_dp=f"{distance[name]:.1e}",
                same_greedy_text=round(agreement[name], 2),
            )
        ours = times[f"torch {dtypes[-1]}"].processor
        gate(f"{task}, {threads} threads, {dtypes[-1]}, ours to plain", peer / ours, least)


def _softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)
