"""`graded_infonce` about vectors near the shortest length, 1e-12, below which it is a constant."""

from __future__ import annotations

import pytest
import torch
from graded_batches import Batch, batch, in_double, value_and_gradients
from torch import Tensor

from ssra_engine.kernels.loss import graded_infonce

DIMS = [3, 8]
#: Lengths of the vectors, or of their first three columns.
LENGTHS = [0.0, 1e-13, 5e-13, 9.9e-13, 1.1e-12, 2e-12, 1.0]


def scaled(vectors: Tensor, dim: int) -> Tensor:
    """Rows whose first `dim` columns have the LENGTHS, in turn."""
    lengths = torch.tensor(LENGTHS, dtype=torch.float64).repeat(len(vectors) // len(LENGTHS) + 1)
    wide = vectors.double()
    wide[:, :dim] *= (lengths[: len(wide)] / wide[:, :dim].norm(dim=1))[:, None]
    return wide.to(vectors.dtype)


def short_batch(side: str, dim: int) -> Batch:
    inputs = batch(11, 3 * len(LENGTHS), DIMS[-1], 7)
    inputs[side] = scaled(inputs[side], dim)  # type: ignore[arg-type]
    return inputs


@pytest.mark.parametrize("side", ["query", "positive", "negatives"])
@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("self_contrast", [False, True])
def test_gradients_of_short_vectors(isa: str, side: str, dim: int, self_contrast: bool) -> None:
    """Row by row, as gradients of short vectors are 1e12 times those of others."""
    inputs = short_batch(side, dim)
    settings = {"dims": DIMS, "self_contrast": self_contrast, "temperature": 0.3}
    got = value_and_gradients(inputs, **settings)[1:4]
    expected = value_and_gradients(in_double(inputs), **settings)[1:4]
    for ours, theirs in zip(got, expected, strict=True):
        for begin, end in ((0, DIMS[0]), DIMS):
            row, exact = ours[:, begin:end].double(), theirs[:, begin:end]
            limits = 1e-4 * exact.abs().amax(dim=1) + 1e-7
            assert ((row - exact).abs().amax(dim=1) <= limits).all()


@pytest.mark.parametrize("dim", DIMS)
def test_gradients_of_short_vectors_are_slopes(dim: int) -> None:
    inputs = in_double(short_batch("query", dim))
    query = inputs.pop("query")
    assert query is not None
    short = query[:, :dim].norm(dim=1) < 1e-11
    others = query[~short]

    def loss(rows: Tensor) -> Tensor:
        whole = torch.empty_like(query).masked_scatter(short[:, None], rows)
        whole = whole.masked_scatter(~short[:, None], others)
        return graded_infonce(whole, dims=DIMS, temperature=0.3, **inputs)  # type: ignore[arg-type]

    assert torch.autograd.gradcheck(
        loss, query[short].requires_grad_(), eps=1e-15, atol=1e5, rtol=1e-3
    )
