"""Presets: settings that go under the user's own."""

from __future__ import annotations

from typing import Any

__all__ = ["PRESETS"]

#: By the name that `model.preset` takes.
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {
        "model": {
            "max_document_tokens": 96,
            "max_query_tokens": 24,
            "score": {
                "epochs": 4,
                "max_steps": 2000,
                "rate": 1e-3,
                "attention_rate": 0.3,
                "train_embeddings": False,
                "batch_rows": 8,
            },
            "compare": {
                "epochs": 4,
                "max_steps": 2000,
                "rate": 1e-3,
                "attention_rate": 0.3,
                "train_embeddings": False,
                "batch_rows": 8,
            },
            "query": {
                "epochs": 8,
                "max_steps": 2000,
                "rate": 1e-3,
                "attention_rate": 0.3,
                "batch_rows": 8,
            },
        },
        "synthesize": {"max_new_tokens": 24},
    }
}
