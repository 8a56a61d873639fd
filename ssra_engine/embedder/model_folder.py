"""The folder of a trained embedder, and the one beside it in which it is trained.

out/               a sentence-transformers model; appears whole or not at all
out/training.json  what it was made from, and what came of it
out/runs/          what TensorBoard reads, where the training reported to it
out.training/      while it is trained: what from, and checkpoints; gone afterwards
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ssra_engine.durable import put_file, put_folder, remove, writing
from ssra_engine.embedder.checkpoints import last_checkpoint
from ssra_engine.errors import StoreError

__all__ = [
    "CHECKPOINTS",
    "RECORD",
    "put_model",
    "read_record",
    "training_beside",
    "training_folder",
]

RECORD = "training.json"
CHECKPOINTS = "checkpoints"
_MEND = "Give another --output, or remove the folder to start again."


def read_record(output: Path, fingerprint: Mapping[str, Any]) -> dict[str, Any] | None:
    """training.json of a finished model; None where there is nothing yet.

    Args:
        output: the model's folder.
        fingerprint: all that the model follows from, as plain JSON values.

    Raises:
        StoreError: the folder holds something else, or a model made from something else.
    """
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return None
    if not (output / RECORD).is_file():
        raise StoreError(f"{output}: not empty and not a model of this command. {_MEND}")
    return _same(output, output / RECORD, fingerprint)


def training_beside(output: Path) -> Path:
    """Where a model is trained: the folder beside its own."""
    return output.with_name(output.name + ".training")


@contextmanager
def training_folder(output: Path, fingerprint: Mapping[str, Any]) -> Iterator[Path]:
    """The folder beside `output` in which it is trained, held by this process.

    Raises:
        StoreError: another process holds it, it cannot be written, or it has checkpoints of a
            training from something else.
    """
    folder = training_beside(output)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreError(
                f"{folder}: another process is training there. Wait for it to end, or give "
                "another --output."
            ) from error
        if last_checkpoint(folder / CHECKPOINTS) is not None:
            _same(folder, folder / RECORD, fingerprint)
        else:
            remove(folder / CHECKPOINTS)
            record = {"fingerprint": fingerprint}
            put_file(folder / RECORD, json.dumps(record, ensure_ascii=False).encode())
        yield folder
    finally:
        os.close(lock)


def put_model(
    output: Path, record: Mapping[str, Any], training: Path, fill: Callable[[Path], None]
) -> None:
    """Let `fill` write the model, add its record, and remove the folder of its training.

    Raises:
        StoreError: it cannot be written.
    """

    def fill_and_record(folder: Path) -> None:
        fill(folder)
        text = json.dumps(record, ensure_ascii=False, indent=1)
        with writing(folder):
            (folder / RECORD).write_text(f"{text}\n", encoding="utf-8")

    put_folder(output, fill_and_record)
    with writing(training):
        remove(training)


def _same(folder: Path, path: Path, fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        there = _leaves(record["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path}: not the record of a training. {_MEND}") from error
    ours = _leaves(json.loads(json.dumps(fingerprint)))
    changed = [
        f"{name}: {there.get(name, 'none')} -> {ours.get(name, 'none')}"
        for name in [*there, *(name for name in ours if name not in there)]
        if there.get(name) != ours.get(name)
    ]
    if changed:
        raise StoreError(f"{folder}: made from something else: {'; '.join(changed)}. {_MEND}")
    return record


def _leaves(tree: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(tree, Mapping):
        return {name: tree}
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= _leaves(value, f"{name}.{key}" if name else key)
    return leaves
