"""A disk that is full, a file that may not grow, a folder that may not be written."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from documents import write_documents
from resumable import assert_same, results, run_here

from ssra_engine.errors import StoreError
from ssra_engine.verify import verify_output

_DOCUMENTS, _SHARD = 60, 10

# Runs where this process may mount: fills a small disk, then goes on with more room, then once more
# on the same disk, read-only.
_ON_A_SMALL_DISK = """
import subprocess, sys
from pathlib import Path
sys.path[:0] = [{tests!r}]
from resumable import run_here
from ssra_engine.errors import StoreError

folder, sizes = Path({folder!r}), {sizes!r}
for size in sizes:
    subprocess.run(["mount", "-o", f"remount,size={{size}}", folder], check=True)
    try:
        run_here(folder, {documents}, {shard})
        print("done", size)
        break
    except StoreError as error:
        print(str(error).replace("\\n", " "))
subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
try:
    run_here(folder, {documents}, {shard})
except StoreError as error:
    print(error)
subprocess.run(["cp", "-r", folder / "out", {kept!r}], check=True)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    write_documents(folder / "corpus.arrow", _DOCUMENTS)
    run_here(folder, _DOCUMENTS, _SHARD)
    return folder


def _may_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    probe = ["unshare", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not _may_mount(), reason="mounting is not permitted here")
def test_a_full_disk_and_a_read_only_one(folder: Path, tmp_path: Path) -> None:
    small, kept = tmp_path / "small", tmp_path / "kept"
    small.mkdir()
    sizes = [f"{pages * 4}k" for pages in range(6, 60, 3)]
    script = _ON_A_SMALL_DISK.format(
        tests=str(Path(__file__).parents[1]),
        folder=str(small),
        sizes=[*sizes, "8m"],
        documents=_DOCUMENTS,
        shard=_SHARD,
        kept=str(kept),
    )
    (tmp_path / "script.py").write_text(script)
    commands = (
        f"mount -t tmpfs -o size=8m tmpfs {small} && cp {folder / 'corpus.arrow'} {small} && "
        f"exec {sys.executable} {tmp_path / 'script.py'}"
    )
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", commands],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    *refusals, last, read_only = done.stdout.splitlines()
    assert last.startswith("done")
    assert len(refusals) > 5
    for line in refusals:
        assert "cannot be written: No space left on device. Mend that and run the same" in line
    assert "cannot be written: Read-only file system" in read_only
    assert_same(results(kept), results(folder / "out"))


def test_files_that_may_not_grow(folder: Path, tmp_path: Path) -> None:
    """The limit of the process on the size of a file stands for a disk that is full."""
    shutil.copy(folder / "corpus.arrow", tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    refusals: list[str] = []
    while len(refusals) < 64 and not (tmp_path / "out/summary.json").exists():
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(refusals) << 11, before[1]))
        try:
            run_here(tmp_path, _DOCUMENTS, _SHARD)
        except StoreError as error:
            refusals.append(str(error))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(refusals) >= 5
    assert all("cannot be written: File too large" in refusal for refusal in refusals)
    run_here(tmp_path, _DOCUMENTS, _SHARD)
    assert_same(results(tmp_path / "out"), results(folder / "out"))
    assert verify_output(tmp_path / "out").findings == []


def test_a_folder_that_may_not_be_written(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "corpus.arrow", tmp_path)
    with _nobody(tmp_path), pytest.raises(StoreError, match="cannot be written: Permission denied"):
        run_here(tmp_path, _DOCUMENTS, _SHARD)
    assert not (tmp_path / "out").exists()
    run_here(tmp_path, _DOCUMENTS, _SHARD)
    assert_same(results(tmp_path / "out"), results(folder / "out"))


@contextmanager
def _nobody(folder: Path) -> Iterator[None]:
    """Without the right to write to a folder; root gives its rights away meanwhile."""
    folder.chmod(0o555)
    above = [*folder.parents][:-2] if os.geteuid() == 0 else []
    modes = [path.stat().st_mode for path in above]
    for path in above:
        path.chmod(path.stat().st_mode | 0o055)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        for path, mode in zip(above, modes, strict=True):
            path.chmod(mode)
        folder.chmod(0o755)
