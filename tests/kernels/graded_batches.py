"""Batches for the graded loss, and what it makes of them."""

from __future__ import annotations

import torch
from torch import Tensor

from ssra_engine.kernels.loss import graded_infonce

__all__ = ["Batch", "batch", "in_double", "value_and_gradients"]

Batch = dict[str, Tensor | None]


def batch(seed: int, b: int, d: int, m: int = 0) -> Batch:
    """Queries near their positives, so that the margin has something to leave out."""
    draw = torch.Generator().manual_seed(seed)
    query = torch.randn(b, d, generator=draw)
    return {
        "query": query,
        "positive": 0.5 * query + torch.randn(b, d, generator=draw),
        "grades": torch.randint(0, 4, (b,), generator=draw).float(),
        "negatives": torch.randn(m, d, generator=draw) if m else None,
    }


def value_and_gradients(inputs: Batch, **settings: object) -> list[Tensor]:
    """The loss, then its gradients for query, positive, negatives and temperature."""
    leaves = {
        name: tensor.clone().requires_grad_() if tensor is not None and name != "grades" else tensor
        for name, tensor in inputs.items()
    }
    wide = leaves["query"].dtype == torch.float64  # type: ignore[union-attr]
    heat = torch.tensor(
        settings.pop("temperature", 0.05),
        dtype=torch.float64 if wide else torch.float32,
        requires_grad=True,
    )
    loss = graded_infonce(temperature=heat, **leaves, **settings)  # type: ignore[arg-type]
    loss.backward()  # type: ignore[no-untyped-call]
    grads = [leaves[name] for name in ("query", "positive", "negatives")]
    return [
        loss.detach(),
        *(x.grad for x in [*grads, heat] if x is not None and x.grad is not None),
    ]


def in_double(inputs: Batch) -> Batch:
    return {name: None if x is None else x.double() for name, x in inputs.items()}
