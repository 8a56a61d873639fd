"""A disk that loses, when the power fails, whatever nobody has asked it to keep."""

from __future__ import annotations

import os
import random
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ssra_engine import durable

__all__ = ["Disk", "PowerCut", "disk"]


class PowerCut(BaseException):
    """Stands for the end of the process."""


@dataclass
class _Change:
    """A change of the names in a folder that a sync of the folder would make durable."""

    folder: Path
    undo: Callable[[], None]


class Disk:
    """Counts the steps that change the disk for good, and cuts the power before one of them.

    POSIX promises nothing of what was not synced. So on a cut, each by a throw of the dice: a file
    loses an end of what it gained since its last sync; a renamed, a new and a removed file or
    folder is as before, unless its folder was synced since.

    Args:
        root: what is on the disk.
        attic: an existing folder that keeps what was removed.
        alive_for: steps before the cut; None for never.
        seed: of the dice.
    """

    def __init__(self, root: Path, attic: Path, alive_for: int | None, seed: int) -> None:
        self.count = 0
        self._root = root
        self._left = alive_for
        self._dice = random.Random(seed)
        self._attic = attic
        self._changes: list[_Change] = []
        statuses = [path.stat() for path in root.rglob("*")]
        self._synced = {status.st_ino: status.st_size for status in statuses}
        self._fsync, self._replace, self._remove = os.fsync, os.replace, durable.remove
        self._mkdir, self._rename = Path.mkdir, Path.rename

    def fsync(self, descriptor: int) -> None:
        """Keep a file's content, or the names in a folder."""
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode):
            self._step()
            self._synced[status.st_ino] = status.st_size
        else:
            self._step()
            self._changes = [change for change in self._changes if change.folder != path]

    def replace(self, source: Path, target: Path) -> None:
        """Give a file or folder its name."""
        self._step()
        status = source.stat()
        if source.is_file() and self._synced.get(status.st_ino) != status.st_size:
            raise AssertionError(f"{source} got its name before its content was synced")
        old = self._put_away(target) if target.exists() else None
        self._replace(source, target)

        def undo() -> None:
            with suppress(FileNotFoundError):  # its folder is gone already
                self._rename(target, source)
                if old is not None:
                    shutil.copy(old, target)

        self._changes.append(_Change(target.parent, undo))

    def mkdir(self, path: Path, *arguments: Any, **options: Any) -> None:
        """Make a folder."""
        new = not path.exists()
        self._mkdir(path, *arguments, **options)
        if new:
            gone = lambda: shutil.rmtree(path, ignore_errors=True)  # noqa: E731
            self._changes.append(_Change(path.parent, gone))

    def remove(self, path: Path) -> None:
        """Remove a file or folder."""
        self._step()
        if not path.exists():
            return
        old = self._put_away(path)
        self._remove(path)

        def undo() -> None:
            if path.parent.is_dir() and not path.exists():
                shutil.copytree(old, path) if old.is_dir() else shutil.copy(old, path)

        self._changes.append(_Change(path.parent, undo))

    def _put_away(self, path: Path) -> Path:
        kept = self._attic / str(len(list(self._attic.iterdir())))
        shutil.copytree(path, kept) if path.is_dir() else shutil.copy(path, kept)
        return kept

    def _step(self) -> None:
        if self._left is None or self.count < self._left:
            self.count += 1
            return
        for path in sorted(self._root.rglob("*")):
            status = path.stat()
            kept = self._synced.get(status.st_ino, 0)
            if path.is_file() and status.st_size > kept:
                os.truncate(path, self._dice.randint(kept, status.st_size))
        for change in reversed(self._changes):
            if self._dice.random() < 0.5:
                change.undo()
        self._left = 0
        self._changes = []
        raise PowerCut


@contextmanager
def disk(root: Path, attic: Path, alive_for: int | None = None, seed: int = 0) -> Iterator[Disk]:
    """Everything that this process writes goes to a `Disk` meanwhile."""
    attic.mkdir()
    one = Disk(root, attic, alive_for, seed)

    def mkdir(path: Path, *arguments: Any, **options: Any) -> None:
        one.mkdir(path, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", one.fsync)
        patch.setattr(os, "replace", one.replace)
        patch.setattr(Path, "mkdir", mkdir)
        patch.setattr("ssra_engine.store.remove", one.remove)
        patch.setattr("ssra_engine.durable.remove", one.remove)
        try:
            yield one
        finally:
            shutil.rmtree(attic)
