from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from small_models import sizes
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    CohereConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoConfig,
    GPTNeoXConfig,
    GraniteConfig,
    MambaConfig,
    MistralConfig,
    Phi3Config,
    Qwen3Config,
)

from ssra_engine.engines import Request, Sampling, load_engine
from ssra_engine.errors import EngineError

_GPT2 = {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 192, "initializer_range": 0.2}
_NEO = {"hidden_size": 64, "num_layers": 2, "num_heads": 4, "window_size": 24}
#: Windows shorter than the documents, so that sliding layers hide a part of them.
ARCHITECTURES = {
    "qwen3": Qwen3Config(**sizes(num_key_value_heads=2, head_dim=16)),
    "gemma3": Gemma3TextConfig(
        **sizes(num_key_value_heads=1, head_dim=16, sliding_window=16),
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    ),
    "gemma2": Gemma2Config(**sizes(num_key_value_heads=2, head_dim=16, sliding_window=16)),
    "mistral": MistralConfig(**sizes(num_key_value_heads=2, sliding_window=16)),
    "gpt2": GPT2Config(vocab_size=384, bos_token_id=1, eos_token_id=2, **_GPT2),
    "gpt-neox": GPTNeoXConfig(**sizes()),
    "cohere": CohereConfig(**sizes(num_key_value_heads=2)),
    "granite": GraniteConfig(**sizes(num_key_value_heads=2, logits_scaling=3.0)),
}
#: Position biases from the mask's shape, layers with a state, and windows that ignore the mask.
UNSHARABLE = {
    "bloom": BloomConfig(vocab_size=384, hidden_size=64, n_layer=2, n_head=4),
    "mamba": MambaConfig(vocab_size=384, hidden_size=64, num_hidden_layers=2),
    "gpt-neo": GPTNeoConfig(
        vocab_size=384,
        attention_types=[[["global", "local"], 1]],
        bos_token_id=1,
        eos_token_id=2,
        **_NEO,
    ),
}
DOCUMENTS = ["T:fox\n", "T:a short video about cooking noodles\nX:with garlic 小猫 at home\n", ""]
REQUESTS = [Request(d, s) for d in DOCUMENTS for s in ("Q:fox\nG:", "Q:noodles at home\nG:", "Q")]
LABELS = list(range(40))


def _reference(model: Any, tokenizer: Any, requests: list[Request]) -> list[list[int]]:
    prefixes = tokenizer([r.prefix for r in requests])["input_ids"]
    suffixes = tokenizer([r.suffix for r in requests], add_special_tokens=False)["input_ids"]
    return [[*prefix, *suffix] for prefix, suffix in zip(prefixes, suffixes, strict=True)]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sharing_changes_nothing(
    architecture: str, save_random: Callable[[Any], Path], tokenizer: Any
) -> None:
    folder = save_random(ARCHITECTURES[architecture])
    engine = load_engine(folder, dtype="float32", batch_tokens=400)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    prompts = _reference(model, tokenizer, REQUESTS)
    assert max(map(len, prompts)) > 2 * 16  # the window
    with torch.inference_mode():
        plain = [model(torch.tensor([ids])).logits[0, -1, LABELS] for ids in prompts]
    logits = engine.label_logits(REQUESTS, LABELS)
    assert np.ptp(logits) > 0.5
    assert np.abs(logits - torch.stack(plain).numpy()).max() < 1e-4
    completions = engine.generate(REQUESTS, max_new_tokens=10, temperature=0)
    for ids, (completion,) in zip(prompts, completions, strict=True):
        prompt = torch.tensor([ids])
        whole = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=10, do_sample=False
        )
        assert completion.token_ids == tuple(whole[0, len(ids) :].tolist())


@pytest.mark.parametrize("architecture", UNSHARABLE)
def test_a_model_that_cannot_share_is_refused(
    architecture: str, save_random: Callable[[Any], Path]
) -> None:
    folder = save_random(UNSHARABLE[architecture])
    with pytest.raises(EngineError, match="cannot share a document between prompts"):
        load_engine(folder, dtype="float32")


@pytest.mark.parametrize("batch_tokens", [1, 150, 100_000])
def test_batches_of_any_size(llama_folder: Path, batch_tokens: int) -> None:
    """Branches of different lengths, so that rows and columns are cut out while decoding."""
    usual = load_engine(llama_folder, dtype="float32")
    engine = load_engine(llama_folder, dtype="float32", batch_tokens=batch_tokens)
    settings: dict[str, Any] = {"n": 5, "max_new_tokens": 24, "seed": 1, "stop": ["e", "1"]}
    expected = usual.generate(REQUESTS, **settings)
    lengths = [len(completion.token_ids) for row in expected for completion in row]
    assert min(lengths) < 6
    assert max(lengths) > 20
    found = engine.generate(REQUESTS, **settings)
    assert [[c.token_ids for c in row] for row in found] == [
        [c.token_ids for c in row] for row in expected
    ]


def test_logprob_is_of_the_model_whatever_the_temperature(
    llama_folder: Path, llama: Any, tokenizer: Any
) -> None:
    engine = load_engine(llama_folder, dtype="float32")
    prompts = _reference(llama, tokenizer, REQUESTS)
    rows = engine.generate(REQUESTS, max_new_tokens=8, temperature=0.5, top_p=0.7, seed=4)
    for ids, (completion,) in zip(prompts, rows, strict=True):
        whole = torch.tensor([[*ids, *completion.token_ids]])
        with torch.inference_mode():
            logprobs = llama(whole).logits[0, len(ids) - 1 : -1].log_softmax(-1)
        picked = logprobs[range(len(completion.token_ids)), list(completion.token_ids)]
        assert completion.logprob == pytest.approx(float(picked.sum()), abs=1e-3)


def test_sharing_is_counted(llama_folder: Path, tokenizer: Any) -> None:
    engine = load_engine(llama_folder, dtype="float32")
    document, suffixes = "T:quick brown fox\n", ["Q:fox\nG:", "Q:dog\nG:", "Q:fox\nG:"]
    engine.label_logits([Request(document, suffix) for suffix in suffixes], ["0", "1"])
    prefix = len(tokenizer(document)["input_ids"])
    lengths = [len(tokenizer(s, add_special_tokens=False)["input_ids"]) for s in suffixes]
    assert engine.stats.notes[0] == "0.1 million parameters in float32, 1 MiB"
    assert engine.stats.requests == 3
    assert engine.stats.prompt_tokens == 3 * prefix + sum(lengths)
    assert engine.stats.shared_tokens == 2 * prefix + lengths[0]
    assert engine.stats.generated_tokens == 0
    rows = engine.generate([Request(document, "Q:")], n=3, max_new_tokens=4)
    assert engine.stats.generated_tokens == sum(len(c.token_ids) for c in rows[0])
    assert engine.stats.seconds > 0


def test_long_documents_are_cut(llama_folder: Path) -> None:
    engine = load_engine(llama_folder, dtype="float32", max_document_tokens=9)
    scores = engine.label_logits(
        [Request("fox " * 20, "G:"), Request("fox " * 50, "G:"), Request("dog", "G:")], LABELS
    )
    assert np.array_equal(scores[0], scores[1])
    assert not np.allclose(scores[0], scores[2])
    short = load_engine(llama_folder, max_context_tokens=20)
    assert "at most 20 tokens" in short.limits()[0]
    with pytest.raises(EngineError, match="context of 20"):
        short.generate([Request("", "Q:")], max_new_tokens=19)


def test_bfloat16_where_the_cpu_has_it(llama_folder: Path, monkeypatch: Any) -> None:
    module = "ssra_engine.engines.torch_engine.multiplies_bfloat16"
    for native, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(module, lambda native=native: native)
        engine: Any = load_engine(llama_folder)
        assert engine._model.dtype == dtype


def test_threads_are_left_alone_unless_given(llama_folder: Path) -> None:
    load_engine(llama_folder)
    assert torch.get_num_threads() == 1
    try:
        load_engine(llama_folder, threads=2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n": 0}, "n and max_new_tokens"),
        ({"max_new_tokens": 0}, "n and max_new_tokens"),
        ({"min_new_tokens": 33}, "min_new_tokens"),
        ({"temperature": -1.0}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"stop": [""]}, "stop string"),
    ],
)
def test_bad_sampling(llama_folder: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        load_engine(llama_folder).generate(REQUESTS, **settings)


def test_bad_requests(llama_folder: Path) -> None:
    engine = load_engine(llama_folder)
    nulls = pa.RecordBatch.from_pydict({"prefix": ["a", None], "suffix": ["b", "c"]})
    numbers = pa.RecordBatch.from_pydict({"prefix": ["a"], "suffix": [1.5]})
    missing = pa.RecordBatch.from_pydict({"prefix": ["a"]})
    for batch, message in ((nulls, "nulls"), (numbers, "double"), (missing, "'suffix'")):
        with pytest.raises(EngineError, match=message):
            list(engine.score_batches([batch], ["0"]))
    with pytest.raises(EngineError, match="request 0: the prompt is empty"):
        list(engine.generate([Request([], [])]))


def test_bad_options(llama_folder: Path) -> None:
    for options, message in (
        ({"backend": "magic"}, "no engine backend 'magic'; choose auto, torch"),
        ({"colour": 1}, "no option 'colour'"),
        ({"dtype": "int3"}, "dtype must be auto, float32 or bfloat16"),
        ({"batch_tokens": 0}, "batch_tokens must be at least 1"),
    ):
        with pytest.raises(EngineError, match=message):
            load_engine(llama_folder, **options)
    with pytest.raises(EngineError, match="torch backend needs a model folder"):
        load_engine(None)


def test_a_missing_package_names_what_to_install(
    llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssra_engine.engines.backends.find_spec", lambda name: None)
    with pytest.raises(EngineError, match="needs torch, transformers: pip install 'ssra-engine'"):
        load_engine(llama_folder)


def test_generation_may_end_between_batches(llama_folder: Path) -> None:
    """A generator of batches is read one at a time."""
    engine = load_engine(llama_folder)
    read: list[int] = []

    def batches() -> Any:
        for number in range(3):
            read.append(number)
            yield pa.RecordBatch.from_pydict(
                {"prefix": ["fox"], "suffix": ["Q:"], "seed": pa.array([number], pa.uint64())}
            )

    rows = engine.generate_batches(batches(), Sampling(max_new_tokens=2))
    next(rows)
    assert read == [0]


def test_with_longrope_too_no_prompt_changes_its_neighbours(
    save_random: Callable[[Any], Path],
) -> None:
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "factor": 8.0}
    rope |= {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8}
    config = Phi3Config(
        **sizes(num_key_value_heads=2, max_position_embeddings=512),
        original_max_position_embeddings=64,
        rope_parameters={**rope, "original_max_position_embeddings": 64},
    )
    engine = load_engine(save_random(config), dtype="float32")
    short = Request("T:fox\n", "Q:fox\nG:")
    alone = engine.label_logits([short], [5, 6])
    for words in (8, 200):  # a document of 200 words is cut to what fits
        other = Request("T:" + "fox " * words + "\n", "Q:fox\nG:")
        beside = engine.label_logits([short, other], [5, 6])[:1]
        np.testing.assert_allclose(beside, alone, atol=1e-5)
