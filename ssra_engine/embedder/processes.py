"""The processes of one training, as torchrun starts them: all train, the first one writes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed

__all__ = ["Processes", "join_processes", "started"]

#: How long the others wait while the first one measures and writes.
_PATIENCE = timedelta(days=1)


@dataclass(frozen=True)
class Processes:
    """This process among those of its training.

    Attributes:
        rank: 0 for the one that writes.
        count: of all; 1 where nothing is shared.
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until all of them are here."""
        if self.count > 1:
            # On the CPU, whose backend has our patience; that of GPUs gives up after minutes.
            distributed.all_reduce(torch.zeros(1))


def started() -> Processes:
    """What the launcher says of this process, before any of them has met another."""
    if not {"RANK", "WORLD_SIZE"} <= os.environ.keys():
        return Processes()
    return Processes(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))


def join_processes() -> Processes:
    """Meet the other processes, if there are any, each with a GPU of its own where there are GPUs.

    A process group that is there already is used as it is.
    """
    processes = started()
    if processes.count > 1 and not distributed.is_initialized():
        backend = "gloo"
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
            backend = "cpu:gloo,cuda:nccl"
        distributed.init_process_group(backend, timeout=_PATIENCE)
    return processes
