"""Checkpoints of a training: each is whole or does not count, whatever kills the process."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from transformers import TrainerCallback

from ssra_engine.durable import put_file, remove, sync
from ssra_engine.embedder.losses import GradedMatryoshkaLoss
from ssra_engine.embedder.processes import started

__all__ = ["KeepLoss", "last_checkpoint", "restore_loss"]

#: Written last, so that its presence says that the checkpoint is whole.
_SEAL = "loss.pt"
_NAME = re.compile(r"checkpoint-(\d+)")


class KeepLoss(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Adds the loss's parameter and queue to each checkpoint; the trainer saves the model's."""

    def __init__(self, loss: GradedMatryoshkaLoss) -> None:
        self._loss = loss

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Seal the checkpoint just written, when every process has put its part there."""
        if distributed.is_available() and distributed.is_initialized():
            distributed.barrier()
        if not state.is_world_process_zero:
            return
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        for path in [*folder.rglob("*"), folder, folder.parent]:
            sync(path)
        queue = self._loss.queue
        kept = {
            "scale": self._loss.scale.detach().cpu(),
            "queue": None if queue is None else queue.state_dict(),
        }
        held = io.BytesIO()
        torch.save(kept, held)
        put_file(folder / _SEAL, held.getvalue())


def last_checkpoint(folder: Path) -> Path | None:
    """The last whole checkpoint; the first process of a training removes those that are not."""
    whole = []
    for path in folder.glob("checkpoint-*") if folder.is_dir() else ():
        if (match := _NAME.fullmatch(path.name)) is None:
            continue
        if (path / _SEAL).is_file():
            whole.append((int(match[1]), path))
        elif started().first:
            remove(path)
    return max(whole)[1] if whole else None


def restore_loss(loss: GradedMatryoshkaLoss, checkpoint: Path) -> None:
    """Give the loss the parameter and the queue that it had at a checkpoint."""
    kept = torch.load(checkpoint / _SEAL, weights_only=True)
    with torch.no_grad():
        loss.scale.copy_(kept["scale"])
    if loss.queue is not None:
        loss.queue.load_state_dict(kept["queue"])
