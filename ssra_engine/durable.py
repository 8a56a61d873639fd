"""Writing so that a crash at any moment leaves a file whole or not there at all."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa

from ssra_engine.errors import StoreError

__all__ = [
    "TEMPORARY",
    "locked",
    "make_folder",
    "put_file",
    "put_folder",
    "remove",
    "sync",
    "writing",
]

#: Ending of the names of files and folders that are not whole yet.
TEMPORARY = ".tmp"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an `OSError` about something being written into a `StoreError` with the mend."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be written: {error.strerror or error}. Mend that and run the same "
            "command again; what is finished is kept."
        ) from error


def make_folder(path: Path) -> None:
    """Make a folder and those above it, durably, unless they are there.

    Raises:
        OSError: it cannot be made.
    """
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        sync(folder.parent)


def put_file(path: Path, data: bytes | pa.Buffer) -> None:
    """Write a file: beside its name, synced, renamed, and the rename synced.

    Raises:
        StoreError: it cannot be written; nothing is left behind.
    """
    temporary = path.with_name(path.name + TEMPORARY)
    with writing(path):
        make_folder(path.parent)
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            sync(path.parent)
        except OSError:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


def put_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Let `fill` write into an empty folder, which gets its name when it is whole.

    Raises:
        StoreError: it cannot be written.
    """
    temporary = path.with_name(path.name + TEMPORARY)
    with writing(path):
        remove(temporary)
        make_folder(path.parent)
        temporary.mkdir()
    try:
        fill(temporary)
    except BaseException:
        with suppress(OSError):
            remove(temporary)
        raise
    with writing(path):
        for inside in [*temporary.rglob("*"), temporary]:
            sync(inside)
        os.replace(temporary, path)
        sync(path.parent)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process at a time make `path`; the lock ends with the process that holds it.

    Raises:
        StoreError: the lock file beside `path` cannot be made.
    """
    lock = path.with_name(path.name + ".lock")
    with writing(lock):
        lock.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _lock(lock)
    try:
        yield
    finally:
        with suppress(OSError):
            lock.unlink()
        os.close(descriptor)


def _lock(path: Path) -> int:
    """A descriptor of `path` with its lock; whoever held it before has removed the file."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        os.close(descriptor)


def sync(path: Path) -> None:
    """Make the content of a file, or the names in a folder, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file or a whole folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
