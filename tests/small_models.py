"""Tokenizers and models small enough to make and run in a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

LINES = [
    "The quick brown fox jumps over the lazy dog near the old river bank.",
    "Q: 2\nG: 1\n0 1 2 3 4 5 6 7 8 9",
    "a short video about cooking noodles at home with garlic and ginger",
]


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE: every text has tokens, and digits and line breaks stand alone."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(LINES, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


def sizes(**changes: Any) -> dict[str, Any]:
    """Configuration of a tiny model. Wide random weights, so that its logits differ clearly."""
    return {
        "vocab_size": 384,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 192,
        "initializer_range": 0.2,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        **changes,
    }


def write_encoder(folder: Path) -> Path:
    """A BERT with random weights that reads pairs as ``<s> a </s> b </s>``, in a new folder."""
    tokenizer = byte_tokenizer()
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> $B:1 </s>:1",
        special_tokens=[("<s>", 1), ("</s>", 2)],
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertModel(BertConfig(**sizes(num_hidden_layers=2, hidden_size=32)))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
