"""What every engine must do. The reference is transformers in float32, one prompt at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch_worker_engine import TorchWorkerEngine

from ssra_engine.engines import Completion, Engine, Request, Sampling, load_engine
from ssra_engine.engines.engine import GENERATED, REQUESTS, scored_schema
from ssra_engine.errors import EngineError

#: Largest distance of a label probability from float32.
TOLERANCE = {
    "torch-float32": 1e-5,
    "torch-bfloat16": 0.05,
    "openvino-float32": 1e-5,
    "openvino-bfloat16": 0.05,
    "worker-float32": 1e-5,
}
LABELS = ["0", "1", "2", "3"]
DOCUMENTS = [
    "T:The quick brown fox\n",
    "T:a short video about cooking noodles\nX:with garlic and ginger at home\n",
    "T:你好，世界\nX:小猫在河边睡觉\n",
    "T:party 🎉🎉 time 👩‍👩‍👧\n",
    "",
]
SCORES = [Request(d, f"Q:{q}\nG:") for d in DOCUMENTS for q in ("fox", "garlic noodles", "小猫 🎉")]
QUERIES = [Request(d, f"G:{grade}\nQ:") for d in DOCUMENTS for grade in range(4)]

Ids = Callable[[Request], list[int]]


@pytest.fixture(scope="module", params=list(TOLERANCE))
def flavour(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def tolerance(flavour: str) -> float:
    return TOLERANCE[flavour]


@pytest.fixture(scope="module")
def model_engine(flavour: str, llama_folder: Path) -> Iterator[Engine]:
    backend, _, dtype = flavour.partition("-")
    engine = _open(backend, llama_folder, dtype=dtype, batch_tokens=700)
    yield engine
    engine.close()


@pytest.fixture(scope="module", params=["torch", "openvino", "worker", "fake"])
def engine(request: pytest.FixtureRequest, llama_folder: Path) -> Iterator[Engine]:
    options = {} if request.param == "fake" else {"dtype": "float32", "batch_tokens": 700}
    engine = _open(request.param, llama_folder, **options)
    yield engine
    engine.close()


def _open(backend: str, folder: Path, **options: Any) -> Engine:
    """A backend, or `worker`: the torch engine in a process of its own."""
    if backend == "worker":
        return TorchWorkerEngine(folder, **options)
    if backend == "openvino":
        pytest.importorskip("openvino", reason="needs ssra-engine[openvino]")
        options["threads"] = 1
    return load_engine(folder, backend, **options)


@pytest.fixture(scope="module")
def prompt_ids(tokenizer: Any) -> Ids:
    """Special tokens and document, then the suffix, tokenised apart."""

    def ids(request: Request) -> list[int]:
        prefix, suffix = (tokenizer(t)["input_ids"] for t in (request.prefix, request.suffix))
        assert prefix[0] == suffix[0] == tokenizer.bos_token_id
        return [*prefix, *suffix[1:]]

    return ids


def _softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def _reference(model: Any, prompts: list[list[int]], labels: list[int]) -> np.ndarray:
    with torch.inference_mode():
        rows = [model(torch.tensor([ids])).logits[0, -1, labels] for ids in prompts]
    return torch.stack(rows).numpy()


def _greedy(model: Any, ids: list[int], new: int) -> tuple[int, ...]:
    prompt = torch.tensor([ids])
    whole = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=new, do_sample=False
    )
    return tuple(whole[0, len(ids) :].tolist())


def _texts(completions: list[list[Completion]]) -> list[list[str]]:
    return [[completion.text for completion in row] for row in completions]


def test_label_distributions_are_the_models(
    model_engine: Engine, tolerance: float, llama: Any, tokenizer: Any, prompt_ids: Ids
) -> None:
    labels = [tokenizer(label, add_special_tokens=False)["input_ids"][0] for label in LABELS]
    expected = _reference(llama, [prompt_ids(request) for request in SCORES], labels)
    logits = model_engine.label_logits(SCORES, LABELS)
    assert logits.dtype == np.float32
    assert np.abs(_softmax(logits) - _softmax(expected)).max() <= tolerance
    assert np.array_equal(model_engine.label_logits(SCORES, labels), logits)
    assert np.ptp(_softmax(expected), axis=0).min() > 0.2  # otherwise any answer would do


def test_greedy_text_is_the_models(engine: Engine, llama: Any, prompt_ids: Ids) -> None:
    if engine.name == "fake":
        pytest.skip("the fake engine has no model")
    completions = engine.generate(QUERIES, max_new_tokens=12, temperature=0)
    for request, (completion,) in zip(QUERIES, completions, strict=True):
        ids = prompt_ids(request)
        assert completion.token_ids == _greedy(llama, ids, 12)
        with torch.inference_mode():
            whole = torch.tensor([[*ids, *completion.token_ids]])
            logprobs = llama(whole).logits[0, len(ids) - 1 : -1].log_softmax(-1)
        picked = logprobs[range(len(completion.token_ids)), list(completion.token_ids)]
        assert completion.logprob == pytest.approx(float(picked.sum()), rel=1e-4, abs=1e-4)


def test_scores_are_arrow(engine: Engine) -> None:
    batch = _batch(SCORES)
    rows = list(engine.score_batches(iter([batch, batch.slice(3, 4), batch.slice(0, 0)]), LABELS))
    assert [row.num_rows for row in rows] == [len(SCORES), 4, 0]
    assert all(row.schema == scored_schema(4) for row in rows)
    part = np.array(rows[1].column("logits").to_pylist())
    assert np.allclose(part, np.array(rows[0].column("logits").to_pylist())[3:7], atol=1e-4)


def test_completions_are_arrow(engine: Engine) -> None:
    batch = _batch(QUERIES)
    sampling = Sampling(n=2, max_new_tokens=5)
    whole, part, empty = engine.generate_batches([batch, batch.slice(4, 3), batch[:0]], sampling)
    assert whole.schema == part.schema == empty.schema == GENERATED
    assert whole.column("request").to_pylist() == [r for r in range(len(QUERIES)) for _ in "ab"]
    assert whole.column("sample").to_pylist() == [0, 1] * len(QUERIES)
    assert part.column("token_ids").equals(whole.column("token_ids").slice(8, 6))
    assert empty.num_rows == 0


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_order_and_neighbours_do_not_matter(engine: Engine, temperature: float) -> None:
    settings: dict[str, Any] = {"n": 2, "max_new_tokens": 10, "seed": 5, "top_p": 0.9}
    whole = _texts(engine.generate(QUERIES, temperature=temperature, **settings))
    order = np.random.default_rng(0).permutation(len(QUERIES)).tolist()
    shuffled = engine.generate([QUERIES[i] for i in order], temperature=temperature, **settings)
    assert _texts(shuffled) == [whole[i] for i in order]
    alone = engine.generate([QUERIES[7]], temperature=temperature, **settings)
    assert _texts(alone) == [whole[7]]
    scores = engine.label_logits(SCORES, LABELS)
    assert np.allclose(engine.label_logits(SCORES[::-1], LABELS)[::-1], scores, atol=1e-4)


def test_seeds(engine: Engine) -> None:
    def texts(seed: int, n: int = 3) -> list[list[str]]:
        return _texts(engine.generate(QUERIES, n=n, max_new_tokens=10, seed=seed))

    first = texts(1)
    assert texts(1) == first
    different = sum(a != b for a, b in zip(texts(2), first, strict=True))
    assert different > 0.8 * len(QUERIES)
    assert [row[:2] for row in first] == texts(1, 2)
    assert sum(len(set(row)) == 3 for row in first) > 0.8 * len(QUERIES)


def test_a_thousand_requests_and_one(engine: Engine) -> None:
    many = [Request(f"T:fox {i % 40}\n", f"Q:{i % 125}\nG:") for i in range(1000)]
    scores = engine.label_logits(many, LABELS)
    assert scores.shape == (1000, 4)
    alone = [engine.label_logits([many[i]], LABELS)[0] for i in (0, 499, 999)]
    assert np.allclose(scores[[0, 499, 999]], alone, atol=1e-4)
    assert len(engine.generate(many, max_new_tokens=2)) == 1000


def test_identical_requests_get_identical_results(engine: Engine) -> None:
    twice = [SCORES[4], SCORES[5], SCORES[4]]
    scores = engine.label_logits(twice, LABELS)
    assert np.array_equal(scores[0], scores[2])
    first, _, third = engine.generate(twice, n=2, max_new_tokens=6)
    assert first == third


def test_the_same_prompt_with_other_seeds(engine: Engine) -> None:
    batch = pa.RecordBatch.from_arrays(
        [
            pa.array(["T:fox\n"] * 20).dictionary_encode(),
            pa.array(["Q:"] * 20),
            pa.array([7, *range(19)], pa.uint64()),
        ],
        schema=REQUESTS,
    )
    (rows,) = engine.generate_batches([batch], Sampling(max_new_tokens=8))
    texts = rows.column("text").to_pylist()
    assert texts[0] == texts[8]
    assert len(set(texts)) > 15


def test_no_requests(engine: Engine) -> None:
    assert engine.label_logits([], LABELS).shape == (0, 4)
    assert engine.generate([]) == []


def test_stop_strings(model_engine: Engine) -> None:
    free = model_engine.generate(QUERIES, max_new_tokens=16, temperature=0)
    text = max((row[0].text for row in free), key=len)
    stop = text[3:5]
    stopped = model_engine.generate(QUERIES, max_new_tokens=16, temperature=0, stop=[stop, "€"])
    assert any(stop in whole.text for (whole,) in free)
    for (whole,), (cut,) in zip(free, stopped, strict=True):
        assert cut.text == whole.text.split(stop)[0]
        assert whole.token_ids[: len(cut.token_ids)] == cut.token_ids
        if stop in whole.text:
            assert cut.finish_reason == "stop"
            assert len(cut.token_ids) <= len(whole.token_ids)
        else:
            assert cut.finish_reason == whole.finish_reason


def test_lengths(model_engine: Engine, tokenizer: Any) -> None:
    free = model_engine.generate(QUERIES, n=4, max_new_tokens=7)
    for completion in chain.from_iterable(free):
        assert 1 <= len(completion.token_ids) <= 7
        assert (completion.finish_reason == "length") == (completion.token_ids[-1] != 2)
    least = model_engine.generate(QUERIES, n=4, max_new_tokens=7, min_new_tokens=5, stop=["e", "o"])
    for completion in chain.from_iterable(least):
        assert len(completion.token_ids) >= 5
        assert not set(completion.token_ids[:4]) & {2}
        assert not set(tokenizer.decode(completion.token_ids[:4])) & {"e", "o"}


def test_context_limit(
    model_engine: Engine, tolerance: float, llama: Any, tokenizer: Any, prompt_ids: Ids
) -> None:
    """At the limit nothing is cut; beyond it the document's end goes, whatever the neighbours."""
    suffix = "Q:fox\nG:"
    words = "fox dog " * 100
    room = 192 - len(tokenizer(suffix, add_special_tokens=False)["input_ids"])
    fits = tokenizer.decode(tokenizer(words)["input_ids"][1:room])
    requests = [Request(fits, suffix), Request(fits + " river", suffix), Request("fox", suffix)]
    ids = [prompt_ids(request) for request in requests[:2]]
    assert len(ids[0]) == 192
    assert len(ids[1]) > 192
    labels = [tokenizer(label, add_special_tokens=False)["input_ids"][0] for label in LABELS]
    expected = _softmax(_reference(llama, [ids[0], ids[0]], labels))
    found = _softmax(model_engine.label_logits(requests, LABELS))[:2]
    assert np.abs(found - expected).max() <= tolerance
    (longest,), _, _ = model_engine.generate(requests, max_new_tokens=20, temperature=0)
    assert (
        longest.token_ids
        == model_engine.generate(
            [Request(ids[0][: room - 20], ids[0][room:])], max_new_tokens=20, temperature=0
        )[0][0].token_ids
    )
    with pytest.raises(EngineError, match=r"request 1: the suffix of \d+ tokens .* context of 192"):
        model_engine.label_logits([Request("", "Q:"), Request("", words)], LABELS)


def test_token_ids_as_prompts(model_engine: Engine, prompt_ids: Ids, tokenizer: Any) -> None:
    def halves(request: Request) -> Request:
        ids = prompt_ids(request)
        length = len(tokenizer(request.prefix)["input_ids"])
        return Request(ids[:length], ids[length:])

    as_ids = [halves(request) for request in SCORES]
    assert np.array_equal(
        model_engine.label_logits(as_ids, LABELS), model_engine.label_logits(SCORES, LABELS)
    )


def test_labels_must_be_one_token(engine: Engine) -> None:
    with pytest.raises(EngineError):
        engine.label_logits(SCORES, ["0", "a river bank"])


def _batch(requests: list[Request]) -> pa.RecordBatch:
    prefixes = pa.array([request.prefix for request in requests]).dictionary_encode()
    return pa.RecordBatch.from_arrays(
        [
            prefixes,
            pa.array([request.suffix for request in requests]),
            pa.array(range(len(requests)), pa.uint64()),
        ],
        schema=REQUESTS,
    )
