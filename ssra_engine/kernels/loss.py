"""The graded contrastive loss over nested embedding dims (arXiv 2509.16717, 2205.13147)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ssra_engine import _core
from ssra_engine.kernels import cuda, cuda_loss

__all__ = ["graded_infonce"]


def graded_infonce(
    query: Tensor,
    positive: Tensor,
    grades: Tensor,
    *,
    negatives: Tensor | None = None,
    dims: Sequence[int] | None = None,
    temperature: float | Tensor = 0.03,
    self_contrast: bool = False,
    false_negative_margin: float | None = None,
    backend: Literal["auto", "kernel", "torch"] = "auto",
) -> Tensor:
    """Mean over dims of the mean over queries of grade times cross-entropy.

    At each dim, vectors are cut after that many columns and normalised again. The cross-entropy of
    query i is that of its positive among its candidates, with cosines over the temperature as
    logits. Candidates are all positives and all negatives; with self-contrast also the other
    queries, compared with query i, and the other positives, compared with positive i. A candidate
    other than the positive whose cosine exceeds that of the positive by more than the margin is
    taken for a false negative and left out, at that dim.

    The compiled kernel computes the similarities of all dims in one pass, and the gradient with
    them, tile by tile: memory grows with B * D, not with B * B. It uses as many threads as torch
    does and gives the same bits with any number of them.

    Args:
        query: float[B, D].
        positive: float[B, D], row i for query i.
        grades: float[B], weights; no gradient flows to them.
        negatives: float[M, D], candidates for every query.
        dims: rising, at most D; (D,) by default.
        temperature: above 0; a tensor of one element gets a gradient.
        self_contrast: see above.
        false_negative_margin: see above; None leaves nothing out.
        backend: "kernel" computes in float32, on the CPU, and on NVIDIA GPUs where the CUDA
            extension was built. "torch" is plain torch, any device and dtype, B * B memory. "auto"
            is the kernel where there is one, except for float64.

    Returns:
        A scalar. Gradients flow to query, positive, negatives and temperature; they cannot be
        differentiated again with the kernel.

    Raises:
        ValueError: shapes or dims that do not fit, a temperature that is not above 0, NaN or
            infinity in the vectors (the kernel of the CPU only; a GPU is not waited for).
        RuntimeError: a GPU fails, or backend is "kernel" and the CUDA extension was not built.
    """
    dims = [query.shape[-1]] if dims is None else [int(dim) for dim in dims]
    _check(query, positive, grades, negatives, dims)
    margin = math.inf if false_negative_margin is None else float(false_negative_margin)
    if not isinstance(temperature, Tensor):
        temperature = torch.tensor(temperature, dtype=torch.float64)
    heat = temperature.to(query.device).reshape(())
    candidates = positive if negatives is None else torch.cat([positive, negatives])
    grades = grades.detach().to(query.device)

    if backend == "torch" or (backend == "auto" and not _has_kernel(query)):
        return _plain(query, candidates, grades, heat, dims, self_contrast, margin)
    if backend not in ("auto", "kernel"):
        raise ValueError(f"backend is {backend!r}, it must be 'auto', 'kernel' or 'torch'")
    wanted = torch.is_grad_enabled() and any(
        tensor.requires_grad for tensor in (query, candidates, heat)
    )
    loss: Tensor = _kernel(
        query.float(),
        candidates.float(),
        grades.float(),
        heat,
        dims,
        self_contrast,
        margin,
        wanted,
    )[0]
    return loss


def _has_kernel(query: Tensor) -> bool:
    if query.dtype == torch.float64:
        return False
    return query.device.type == "cpu" or (query.device.type == "cuda" and cuda.is_built())


def _check(
    query: Tensor, positive: Tensor, grades: Tensor, negatives: Tensor | None, dims: list[int]
) -> None:
    if query.ndim != 2 or positive.shape != query.shape:
        raise ValueError(
            "query and positive must both be [B, D], got "
            f"{list(query.shape)} and {list(positive.shape)}"
        )
    if negatives is not None and (negatives.ndim != 2 or negatives.shape[1] != query.shape[1]):
        raise ValueError(f"negatives must be [M, {query.shape[1]}], got {list(negatives.shape)}")
    if grades.shape != query.shape[:1]:
        raise ValueError(f"grades must be [{len(query)}], got {list(grades.shape)}")
    if not dims or dims != sorted(set(dims)) or dims[0] < 1 or dims[-1] > query.shape[1]:
        raise ValueError(f"dims must rise and lie within 1 and {query.shape[1]}, got {dims}")


def _plain(
    query: Tensor,
    candidates: Tensor,
    grades: Tensor,
    temperature: Tensor,
    dims: list[int],
    self_contrast: bool,
    margin: float,
) -> Tensor:
    """The loss in plain torch."""
    count = len(query)
    own = torch.eye(count, len(candidates), dtype=torch.bool, device=query.device)
    total = query.new_zeros(())
    for dim in dims:
        q, c = normalize(query[:, :dim], dim=1), normalize(candidates[:, :dim], dim=1)
        cosines = q @ c.T
        positives = cosines.diagonal()
        ceiling = positives[:, None] + margin
        logits = [(cosines / temperature).masked_fill((cosines > ceiling) & ~own, -math.inf)]
        if self_contrast:
            for vectors in (q, c[:count]):
                alike = vectors @ vectors.T
                left_out = (alike > ceiling) | own[:, :count]
                logits.append((alike / temperature).masked_fill(left_out, -math.inf))
        whole = torch.logsumexp(torch.cat(logits, dim=1), dim=1)
        total = total + (grades * (whole - positives / temperature)).mean()
    return total / len(dims)


@torch.library.custom_op("ssra_engine::graded_infonce", mutates_args=(), device_types="cpu")
def _kernel(
    query: Tensor,
    candidates: Tensor,
    grades: Tensor,
    temperature: Tensor,
    dims: list[int],
    self_contrast: bool,
    margin: float,
    gradients: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The loss, and its gradients with respect to query, candidates and temperature.

    Without `gradients` the latter have no rows.
    """
    loss, for_query, for_candidates, for_temperature = _core.graded_infonce(
        query.contiguous().numpy(),
        candidates.contiguous().numpy(),
        grades.contiguous().numpy(),
        dims,
        float(temperature),
        self_contrast,
        margin,
        gradients,
        torch.get_num_threads(),
    )
    return (
        torch.tensor(loss, dtype=torch.float32),
        torch.from_numpy(for_query),
        torch.from_numpy(for_candidates),
        torch.tensor(for_temperature, dtype=temperature.dtype),
    )


_kernel.register_kernel("cuda", cuda_loss.infonce)


@_kernel.register_fake
def _(
    query: Tensor,
    candidates: Tensor,
    grades: Tensor,
    temperature: Tensor,
    dims: list[int],
    self_contrast: bool,
    margin: float,
    gradients: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        query.new_empty(()),
        query.new_empty(query.shape if gradients else (0, query.shape[1])),
        query.new_empty(candidates.shape if gradients else (0, query.shape[1])),
        temperature.new_empty(()),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*output[1:])


def _backward(ctx: Any, upstream: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    if upstream is None:
        return (None,) * 8
    query, candidates, temperature = (upstream * gradient for gradient in ctx.saved_tensors)
    return query, candidates, None, temperature, None, None, None, None


_kernel.register_autograd(_backward, setup_context=_save)
