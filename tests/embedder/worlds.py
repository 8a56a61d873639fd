"""A small world to train embedders on: its files, and folders of tiny models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from files import write

THINGS = ("tram", "otter", "piano", "garlic", "noodles", "river", "fox", "sea")


def write_world(folder: Path) -> tuple[Path, Path]:
    """64 documents `a-b`, and judgments of 24 queries `a in b`, every fourth of them dev."""
    generator = np.random.default_rng(0)
    pairs = [(a, b) for a in THINGS for b in THINGS]
    documents = [
        {"doc_id": f"{a}-{b}", "title": f"a film  about {a}", "text": f"in {b}"} for a, b in pairs
    ]
    judgments = []
    for number in range(24):
        a, b = pairs[number * 5 % len(pairs)]
        others = [
            pairs[row] for row in generator.permutation(len(pairs))[:9] if pairs[row] != (a, b)
        ]
        for x, y in [(a, b), *others]:
            grade = 3 if (x, y) == (a, b) else int(x == a) + int(y == b)
            split = "train" if number % 4 else "dev"
            row = {"query": f"{a} in {b}", "doc_id": f"{x}-{y}", "grade": grade, "split": split}
            judgments.append(row)
    return (
        write(documents, folder / "corpus.parquet"),
        write(judgments, folder / "judgments.parquet"),
    )


def save_encoder(folder: Path, **changes: Any) -> Path:
    """A tiny BERT of random weights, as transformers saves it."""
    import torch
    from small_models import byte_tokenizer, sizes
    from transformers import BertConfig, BertModel

    torch.manual_seed(1)
    BertModel(BertConfig(**sizes(num_hidden_layers=2, **changes))).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder
