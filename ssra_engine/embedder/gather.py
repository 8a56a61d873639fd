"""Rows of every process of a distributed training, with their gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed

__all__ = ["gather_rows"]


def gather_rows(rows: Tensor) -> Tensor:
    """The rows of all processes, in the order of their ranks; unchanged in a single process.

    Made for a loss of the joint batch that every process computes alike, under
    DistributedDataParallel, which averages gradients over the processes: the gradient of a
    process's own rows is multiplied by the number of processes, so that the average is the gradient
    of the joint loss. The backward pass needs no communication.

    Args:
        rows: [B, ...]; B may differ among processes, the rest may not.

    Returns:
        [sum of all B, ...].
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return rows
    if distributed.get_world_size() == 1:
        return rows
    gathered: Tensor = _Gather.apply(rows)  # type: ignore[no-untyped-call]
    return gathered


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        world = distributed.get_world_size()
        count = torch.tensor([len(rows)], device=rows.device)
        counts = [torch.zeros_like(count) for _ in range(world)]
        distributed.all_gather(counts, count)
        sizes = [int(size) for size in counts]
        # Backends want blocks of one shape.
        block = rows.new_zeros((max(sizes), *rows.shape[1:]))
        block[: len(rows)] = rows
        blocks = [torch.empty_like(block) for _ in range(world)]
        distributed.all_gather(blocks, block)
        ctx.world, ctx.size = world, len(rows)
        ctx.begin = sum(sizes[: distributed.get_rank()])
        return torch.cat([part[:size] for part, size in zip(blocks, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        mine: Tensor = upstream[ctx.begin : ctx.begin + ctx.size] * ctx.world
        return mine
