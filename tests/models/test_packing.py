from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ssra_engine.models.packing import IGNORED, Example, collate, pack
from ssra_engine.models.training import target_logits

PREFIXES = [[1, 2, 3, 4, 5], [1, 6, 7]]
EXAMPLES = [
    Example(0, (10, 11), (12,)),
    Example(1, (10,), (13, 14), weight=2.0),
    Example(0, (20, 21, 22), (23, 24, 25)),
    Example(0, (19,), (30, 31)),
]


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=40,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
        )
    ).eval()


def test_examples_of_a_document_share_a_sequence_up_to_the_limit() -> None:
    sequences = pack(PREFIXES, EXAMPLES, max_per_sequence=2)
    assert [(s.prefix[1], len(s.examples)) for s in sequences] == [(2, 2), (2, 1), (6, 1)]
    assert [len(s) for s in sequences] == [5 + 2 + 5, 5 + 2, 3 + 2]


def test_a_packed_question_is_answered_as_if_it_were_alone(model: LlamaForCausalLM) -> None:
    packed = collate(pack(PREFIXES, EXAMPLES), pad_id=0)
    with torch.no_grad():
        logits, chosen = target_logits(model, packed, None)
    targets = packed["targets"][chosen].tolist()
    order = [EXAMPLES[0], EXAMPLES[2], EXAMPLES[3], EXAMPLES[1]]
    assert targets == [token for example in order for token in example.target]
    alone = []
    for example in order:
        prompt = [*PREFIXES[example.document], *example.suffix]
        whole = torch.tensor([[*prompt, *example.target]])
        with torch.no_grad():
            alone.append(model(whole).logits[0, len(prompt) - 1 : -1])
    torch.testing.assert_close(logits, torch.cat(alone), atol=1e-4, rtol=1e-4)


def test_label_rows_of_the_head_are_the_rows_of_the_whole_head(model: LlamaForCausalLM) -> None:
    packed = collate(pack(PREFIXES, EXAMPLES), pad_id=0)
    labels = torch.tensor([12, 13, 30])
    with torch.no_grad():
        whole, _ = target_logits(model, packed, None)
        some, _ = target_logits(model, packed, labels)
    torch.testing.assert_close(some, whole[:, labels], atol=1e-5, rtol=1e-5)


def test_weights_are_those_of_the_example_spread_over_its_targets() -> None:
    packed = collate(pack(PREFIXES, EXAMPLES), pad_id=0)
    chosen = packed["targets"] != IGNORED
    np.testing.assert_allclose(
        packed["weights"][chosen].numpy(), [1, 1 / 3, 1 / 3, 1 / 3, 1 / 2, 1 / 2, 1, 1], rtol=1e-6
    )
    assert packed["weights"][~chosen].abs().sum() == 0


def test_padding_is_seen_by_nobody_else() -> None:
    mask = collate(pack(PREFIXES, EXAMPLES), pad_id=0)["attention_mask"][1, 0]
    used = 3 + 2
    assert not mask[:used, used:].any()
    assert mask.diagonal().all()
