"""Encoders whose tokenizer names no length: their positions bound a pair."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import byte_tokenizer, sizes
from tokenizers import processors
from transformers import BertConfig, BertModel, PreTrainedModel, RobertaConfig, RobertaModel

from ssra_engine.models.cross_encoder import open_cross_encoder, pair_logits


def _write(model: PreTrainedModel, folder: Path) -> Path:
    tokenizer = byte_tokenizer()
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> $B </s>",
        special_tokens=[("<s>", 1), ("</s>", 2)],
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("asked", [None, 1000, 20])
def test_a_pair_is_no_longer_than_the_positions(tmp_path: Path, asked: int | None) -> None:
    small = sizes(num_hidden_layers=1, hidden_size=32, max_position_embeddings=42)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        models = {
            # Positions of padding and of what comes before it are never used.
            40: RobertaModel(RobertaConfig(**{**small, "pad_token_id": 1})),
            42: BertModel(BertConfig(**small)),
        }
    for positions, model in models.items():
        folder = _write(model, tmp_path / str(positions))
        opened = open_cross_encoder(folder, grades=3, max_tokens=asked)
        most = min(positions, asked or positions)
        assert opened.max_seq_length == most
        logits, tokens = pair_logits(opened, ["fox"], ["a river bank " * 50], 1000)
        assert tokens == most
        assert np.isfinite(logits).all()
