"""What else happens to a run: damaged files, changed input, odd clocks, a second run beside it."""

from __future__ import annotations

import itertools
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from documents import make_documents, write_documents
from resumable import assert_same, results, run_half, run_here

from ssra_engine.corpus import Corpus
from ssra_engine.errors import StoreError
from ssra_engine.verify import verify_output

_DOCUMENTS, _SHARD = 24, 4


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    write_documents(folder / "corpus.arrow", _DOCUMENTS)
    run_here(folder, _DOCUMENTS, _SHARD)
    return folder


@pytest.fixture
def half(whole: Path, tmp_path: Path) -> Path:
    """A folder whose run stopped before the end of its final section."""
    shutil.copy(whole / "corpus.arrow", tmp_path)
    run_half(tmp_path, _DOCUMENTS, _SHARD)
    return tmp_path


def _go_on(folder: Path) -> None:
    run_here(folder, _DOCUMENTS, _SHARD)


def _assert_whole(folder: Path, whole: Path) -> None:
    _go_on(folder)
    assert_same(results(folder / "out"), results(whole / "out"))
    assert verify_output(folder / "out").findings == []


def test_a_truncated_shard_is_done_again(half: Path, whole: Path) -> None:
    staged = sorted((half / "out/shards/final").iterdir())
    assert len(staged) == _DOCUMENTS // _SHARD
    for keep, path in enumerate(staged):
        path.write_bytes(path.read_bytes()[: keep * 100])
    _assert_whole(half, whole)


def test_a_shard_with_other_bytes_is_refused_by_name(half: Path, whole: Path) -> None:
    path = half / "out/shards/final/000002.arrow"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match=r"000002\.arrow: the file is damaged\. Remove it and run"):
        _go_on(half)
    path.unlink()
    _assert_whole(half, whole)


def test_a_part_that_was_lost_before_the_end_counts_once(half: Path, whole: Path) -> None:
    for path in (half / "out/synthetic").iterdir():
        path.unlink()
    _assert_whole(half, whole)


def test_rows_that_a_round_would_learn_from_are_checked(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(whole / "corpus.arrow", tmp_path)
    kept = tmp_path / "out/rounds/1/kept/part-00000.parquet"

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ssra_engine.steps.survivors", stop)
        with pytest.raises(KeyboardInterrupt):
            _go_on(tmp_path)
    data = kept.read_bytes()
    kept.write_bytes(data[:40] + bytes([data[40] ^ 1]) + data[41:])
    with pytest.raises(StoreError, match=r"part-00000\.parquet: the file is damaged"):
        _go_on(tmp_path)
    kept.unlink()
    with pytest.raises(StoreError, match=r"part-00000\.parquet: cannot be read"):
        _go_on(tmp_path)
    kept.write_bytes(data)
    _assert_whole(tmp_path, whole)


def test_a_changed_model_is_refused(half: Path, whole: Path) -> None:
    weights = half / "out/rounds/1/query/weights.txt"
    text = weights.read_text()
    weights.write_text(str(int(text) ^ 1))
    (half / "out/shards/final/000001.arrow").unlink()
    with pytest.raises(StoreError, match=r"weights\.txt: the file is damaged"):
        _go_on(half)
    weights.write_text(text)
    _assert_whole(half, whole)


@pytest.mark.parametrize("name", ["manifest.json", "journal"])
def test_records_with_other_bytes_are_refused_or_done_again(
    half: Path, whole: Path, name: str
) -> None:
    """Whatever byte is changed: the rows of an uninterrupted run, or a refusal that says why."""
    path = half / "out" / name
    data = path.read_bytes()
    chance = random.Random(1)
    kept = half / "kept"
    shutil.copytree(half / "out", kept)
    refused = 0
    for _ in range(12):
        place = chance.randrange(len(data))
        changed = data[:place] + bytes([chance.randrange(256)]) + data[place + 1 :]
        path.write_bytes(changed if chance.random() < 0.7 else data[:place])
        refusal = None
        try:
            _assert_whole(half, whole)
        except StoreError as error:
            refusal = str(error)
            refused += 1
        assert refusal is None or str(half / "out") in refusal
        shutil.rmtree(half / "out")
        shutil.copytree(kept, half / "out")
    assert refused > 2


def test_a_lost_journal_is_refused_and_nothing_is_removed(half: Path, whole: Path) -> None:
    journal = half / "out/journal"
    data = journal.read_bytes()
    before = sorted(half.rglob("*"))
    journal.write_bytes(b"")
    with pytest.raises(StoreError, match="journal: records are missing"):
        _go_on(half)
    journal.unlink()
    with pytest.raises(StoreError, match="journal: records are missing"):
        _go_on(half)
    journal.write_bytes(data)
    assert sorted(half.rglob("*")) == before
    _assert_whole(half, whole)


def test_input_that_changes_between_runs(half: Path, whole: Path) -> None:
    corpus = half / "corpus.arrow"
    data = corpus.read_bytes()
    write_documents(corpus, _DOCUMENTS + 1)
    with pytest.raises(StoreError, match=r"holds a run that differs in inputs: \w+ -> \w+"):
        _go_on(half)
    corpus.write_bytes(data)
    _assert_whole(half, whole)


@pytest.mark.parametrize("documents", [_DOCUMENTS - 5, _DOCUMENTS, _DOCUMENTS + 5])
def test_input_that_changes_during_a_run(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, documents: int
) -> None:
    """More, fewer or other documents than were counted, once the final section reads them."""
    corpus = tmp_path / "corpus.arrow"
    shutil.copy(whole / "corpus.arrow", corpus)
    data = corpus.read_bytes()
    read = Corpus.batches_with_errors

    def change_first(self: Corpus, rows: int) -> Iterator[tuple[pa.RecordBatch, pa.Table]]:
        if rows == _SHARD:
            other = make_documents(documents, start=3)
            with pa.ipc.new_file(corpus, other.schema) as writer:
                writer.write_batch(other)
        return read(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(Corpus, "batches_with_errors", change_first)
        with pytest.raises(StoreError, match="the input changed while it was read"):
            _go_on(tmp_path)
    with pytest.raises(StoreError, match="differs in inputs"):
        _go_on(tmp_path)
    corpus.write_bytes(data)
    _assert_whole(tmp_path, whole)


@pytest.mark.parametrize("kind", ["jumping", "still", "backwards"])
def test_clocks(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    shutil.copy(whole / "corpus.arrow", tmp_path)
    chance = random.Random(3)
    ticks = itertools.count()
    clock = {
        "jumping": lambda: 1e9 + chance.uniform(-1e9, 1e9),
        "still": lambda: 1e9,
        "backwards": lambda: 1e9 - next(ticks),
    }[kind]
    with monkeypatch.context() as patch:
        for name in ("time", "perf_counter", "monotonic"):
            patch.setattr(time, name, clock)
        _go_on(tmp_path)
    assert_same(results(tmp_path / "out"), results(whole / "out"))
    assert verify_output(tmp_path / "out").findings == []


def test_a_second_process_on_the_folder_is_refused(whole: Path, tmp_path: Path) -> None:
    """The first holds the folder, however long it takes; when it is killed the folder is free."""
    shutil.copy(whole / "corpus.arrow", tmp_path)
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys\nfrom pathlib import Path\n"
            "from ssra_engine.store import open_store\n"
            "store = open_store(Path(sys.argv[1]), {}, '')\n"
            "print('held', flush=True)\nsys.stdin.read()",
            str(tmp_path / "out"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        said = f"process {holder.pid} on .* is working on it. Wait for it to end, or give another"
        for _ in range(2):
            with pytest.raises(StoreError, match=said):
                _go_on(tmp_path)
    finally:
        holder.kill()
        holder.communicate()
    _assert_whole(tmp_path, whole)
