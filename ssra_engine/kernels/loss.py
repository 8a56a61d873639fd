"""The graded contrastive loss over nested embedding dims (arXiv 2509.16717, 2205.13147)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ssra_engine import _core
from ssra_engine.kernels import cuda, cuda_loss

__all__ = ["graded_infonce"]

_FEW_COLUMNS = 256  # as in csrc/kernels/packed.cpp


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
    products: Literal["float32", "bfloat16"] = "float32",
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

    With products in bfloat16, vectors are rounded before they are multiplied with others, and so
    is, in the kernel, what a pair weighs in the gradient. Sums, lengths and all that concerns the
    positive stay in float32, as do, except on a GPU, cosines at dims up to 256, whose errors would
    be the largest. That takes some two thirds of the time on a processor with AVX512-BF16; others,
    and "torch", give the same results without being faster. Autocast changes nothing.

    Args:
        query: float[B, D]; 16-bit floats are taken as float32.
        positive: float[B, D], row i for query i.
        grades: float[B], weights; no gradient flows to them.
        negatives: float[M, D], candidates for every query.
        dims: rising, at most D; (D,) by default.
        temperature: above 0; a tensor of one element gets a gradient.
        self_contrast: see above.
        false_negative_margin: see above; None leaves nothing out.
        products: "bfloat16" brings gradients within 0.5 % of float64's, relative to their largest
            entry, "float32" within 0.01 %.
        backend: "kernel" computes in float32, on the CPU, and on NVIDIA GPUs where the CUDA
            extension was built. "torch" is plain torch, any device, float64 too, B * B memory.
            "auto" is the kernel where there is one, except for float64.

    Returns:
        A scalar. Gradients flow to query, positive, negatives and temperature; they cannot be
        differentiated again with the kernel.

    Raises:
        ValueError: shapes, dims, products or a backend that do not fit, a temperature that is not
            above 0, NaN or infinity in the vectors (the kernel of the CPU only; a GPU is not waited
            for).
        RuntimeError: a GPU fails, or backend is "kernel" and the CUDA extension was not built.
    """
    dims = [query.shape[-1]] if dims is None else [int(dim) for dim in dims]
    _check(query, positive, grades, negatives, dims, products)
    margin = math.inf if false_negative_margin is None else float(false_negative_margin)
    if not isinstance(temperature, Tensor):
        temperature = torch.tensor(temperature, dtype=torch.float64)
    heat = temperature.to(query.device).reshape(())
    grades = grades.detach().to(query.device)

    if backend == "torch" or (backend == "auto" and not _has_kernel(query)):
        with torch.autocast(query.device.type, enabled=False):
            candidates = _stacked(positive, negatives)
            return _plain(query, candidates, grades, heat, dims, self_contrast, margin, products)
    if backend not in ("auto", "kernel"):
        raise ValueError(f"backend is {backend!r}, it must be 'auto', 'kernel' or 'torch'")
    wanted = torch.is_grad_enabled() and any(
        tensor is not None and tensor.requires_grad for tensor in (query, positive, negatives, heat)
    )
    loss: Tensor = _kernel(
        query.float(),
        positive.float(),
        None if negatives is None else negatives.float(),
        grades.float(),
        heat,
        dims,
        self_contrast,
        margin,
        wanted,
        products,
    )[0]
    return loss


def _stacked(positive: Tensor, negatives: Tensor | None) -> Tensor:
    """All candidates, [B + M, D]."""
    return positive if negatives is None else torch.cat([positive, negatives])


def _has_kernel(query: Tensor) -> bool:
    if query.dtype == torch.float64:
        return False
    return query.device.type == "cpu" or (query.device.type == "cuda" and cuda.is_built())


def _check(
    query: Tensor,
    positive: Tensor,
    grades: Tensor,
    negatives: Tensor | None,
    dims: list[int],
    products: str,
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
    if products not in ("float32", "bfloat16"):
        raise ValueError(f"products is {products!r}, it must be 'float32' or 'bfloat16'")


def _plain(
    query: Tensor,
    candidates: Tensor,
    grades: Tensor,
    temperature: Tensor,
    dims: list[int],
    self_contrast: bool,
    margin: float,
    products: str,
) -> Tensor:
    """The loss in plain torch."""
    if query.dtype != torch.float64:
        query, candidates = query.float(), candidates.float()
    count = len(query)
    own = torch.eye(count, len(candidates), dtype=torch.bool, device=query.device)
    total = query.new_zeros(())
    exact = max((dim for dim in dims if dim <= _FEW_COLUMNS or products == "float32"), default=0)
    for dim in dims:
        q, c = (_units(vectors[:, :dim], exact) for vectors in (query, candidates))
        cosines = q @ c.T
        positives = cosines.diagonal()
        if dim > exact:
            pair = (_units(vectors[:, :dim], dim) for vectors in (query, candidates[:count]))
            positives = torch.mul(*pair).sum(1)
            cosines = torch.where(own, positives[:, None], cosines)
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


def _units(vectors: Tensor, exact: int) -> Tensor:
    """Vectors over their lengths; those below 1e-12 count as 1e-12, which is then a constant.

    Columns from `exact` on are rounded to bfloat16, but not their gradient.
    """
    lengths: Tensor = torch.linalg.vector_norm(vectors, dim=1, keepdim=True).clamp_min(1e-12)
    if vectors.shape[1] > exact:
        given = vectors.detach()
        rounded = given.bfloat16().to(given.dtype)
        rounded[:, :exact] = given[:, :exact]
        vectors = vectors + (rounded - given)
    return vectors / lengths


@torch.library.custom_op("ssra_engine::graded_infonce", mutates_args=(), device_types="cpu")
def _kernel(
    query: Tensor,
    positive: Tensor,
    negatives: Tensor | None,
    grades: Tensor,
    temperature: Tensor,
    dims: list[int],
    self_contrast: bool,
    margin: float,
    gradients: bool,
    products: str = "float32",
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The loss, and its gradients with respect to query, candidates and temperature.

    Candidates are positives, then negatives. Without `gradients` those of vectors have no rows.
    """
    loss, for_query, for_candidates, for_temperature = _core.graded_infonce(
        query.contiguous().numpy(),
        positive.contiguous().numpy(),
        (query[:0] if negatives is None else negatives).contiguous().numpy(),
        grades.contiguous().numpy(),
        dims,
        float(temperature),
        self_contrast,
        margin,
        products,
        gradients,
        torch.get_num_threads(),
    )
    return (
        torch.tensor(loss, dtype=torch.float32),
        torch.from_numpy(for_query),
        torch.from_numpy(for_candidates),
        torch.tensor(for_temperature, dtype=temperature.dtype),
    )


@_kernel.register_kernel("cuda")
def _(
    query: Tensor, positive: Tensor, negatives: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return cuda_loss.infonce(query, _stacked(positive, negatives), *rest)


@_kernel.register_fake
def _(
    query: Tensor,
    positive: Tensor,
    negatives: Tensor | None,
    grades: Tensor,
    temperature: Tensor,
    dims: list[int],
    self_contrast: bool,
    margin: float,
    gradients: bool,
    products: str = "float32",
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows = len(positive) + (0 if negatives is None else len(negatives))
    return (
        query.new_empty(()),
        query.new_empty(query.shape if gradients else (0, query.shape[1])),
        query.new_empty((rows if gradients else 0, query.shape[1])),
        temperature.new_empty(()),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*output[1:])
    ctx.has_negatives = inputs[2] is not None


def _backward(ctx: Any, upstream: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    if upstream is None:
        return (None,) * 10
    query, candidates, temperature = ctx.saved_tensors
    count = len(query)
    negatives = upstream * candidates[count:] if ctx.has_negatives else None
    positive = upstream * candidates[:count]
    return (upstream * query, positive, negatives, None, upstream * temperature, *(None,) * 5)


_kernel.register_autograd(_backward, setup_context=_save)
