"""Workers that die, hang, write nonsense or chatter, on purpose."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ssra_engine.engines.worker_process import WorkerLimits, WorkerProcess
from ssra_engine.engines.workers import serve
from ssra_engine.errors import EngineError, EngineGoneError

WORKERS = Path(serve.__file__).parent
#: Serves `clumsy_worker.py` of the folder in its first argument.
MAIN = "import sys; sys.path[:0] = sys.argv[1:3]; import serve; serve.main('clumsy')"
#: Does what the first suffix token says: every time with a negative one, once with a positive one.
CLUMSY = """
import os, signal, subprocess, sys, time
from pathlib import Path

DIE, EXIT, HANG, NONSENSE, BROKEN, SHORT, FEW, RAISE, CHATTER = range(1, 10)

def open_model(options):
    if options.get("exit"):
        print("no GPU here", file=sys.stderr)
        sys.exit(options["exit"])
    if options.get("raise") or (Path(options["folder"]) / "unreadable").exists():
        raise RuntimeError("no such weights")
    time.sleep(options.get("sleep", 0))
    return Model(Path(options["folder"]))

class Model:
    def __init__(self, folder):
        self.folder = folder

    def about(self):
        return {"version": "1", "path": os.environ.get("PYTHONPATH"), "own": os.environ.get("OWN")}

    def score(self, prompts, label_ids):
        self.act(prompts[0][1][0])
        return [[float(sum(prefix) + sum(suffix) + label) for label in label_ids]
                for prefix, suffix in prompts]

    def generate(self, prompts, seeds, settings):
        return [([7] * settings["max_new_tokens"], [-0.5] * settings["max_new_tokens"])
                for _ in prompts]

    def act(self, token):
        done = self.folder / "done"
        if token > 0 and done.exists():
            return
        done.touch()
        pipe = max(int(fd) for fd in os.listdir("/proc/self/fd") if is_pipe(fd))
        act = abs(token)
        if act == DIE:
            print("last words", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        if act == EXIT:
            os._exit(5)
        if act == HANG:
            child = subprocess.Popen(["sleep", "600"])
            (self.folder / "child").write_text(str(child.pid))
            time.sleep(600)
        if act == NONSENSE:
            os.write(pipe, b"Loading 5%".ljust(16, bytes(1)))
        if act == BROKEN:
            import serve
            os.write(pipe, serve.HEADER.pack(serve.MAGIC, 64) + bytes(range(64)))
        if act == SHORT:
            import serve
            os.write(pipe, serve.pack({"ok": True}))
        if act == FEW:
            import pyarrow as pa
            import serve
            row = pa.RecordBatch.from_pylist([{"logits": [1, 2]}], serve.scores_schema(2))
            os.write(pipe, serve.pack({"ok": True}, row))
        if act == RAISE:
            raise MemoryError("out of GPU memory")
        if act == CHATTER:
            os.write(1, b"on standard output")
            os.system("echo from a child")
            print("x" * 3_000_000, file=sys.stderr, flush=True)

def is_pipe(fd):
    try:
        return "pipe:" in os.readlink("/proc/self/fd/" + fd)
    except OSError:
        return False
"""
DIE, EXIT, HANG, NONSENSE, BROKEN, SHORT, FEW, RAISE, CHATTER = range(1, 10)
SCHEMA = serve.scores_schema(2)
ASKED = {"call": "score", "label_ids": [10, 20]}

Open = Callable[..., WorkerProcess]


@pytest.fixture
def open_worker(tmp_path: Path) -> Iterator[Open]:
    (tmp_path / "clumsy_worker.py").write_text(CLUMSY)
    opened = []

    def open_process(
        limits: WorkerLimits | None = None,
        environment: dict[str, str | None] | None = None,
        **more: Any,
    ) -> WorkerProcess:
        command = [sys.executable, "-c", MAIN, str(tmp_path), str(WORKERS)]
        options = {"folder": str(tmp_path), **more}
        usual = WorkerLimits(start_seconds=60, batch_seconds=60)
        worker = WorkerProcess("clumsy", command, options, limits or usual, environment)
        opened.append(worker)
        return worker

    yield open_process
    for worker in opened:
        worker.close()


def _batch(first: int, rows: int = 3) -> pa.RecordBatch:
    """Prompts of the documents [1, 2] and [], whose first suffix begins with `first`."""
    prefix = pa.DictionaryArray.from_arrays(
        pa.array([row % 2 for row in range(rows)], pa.int32()),
        pa.array([[1, 2], []], pa.list_(pa.int32())),
    )
    suffix = pa.array([[first], *([row] for row in range(1, rows))], pa.list_(pa.int32()))
    return pa.RecordBatch.from_arrays(
        [prefix, suffix, pa.array([0] * rows, pa.uint64())], names=["prefix", "suffix", "seed"]
    )


def _scores(worker: WorkerProcess, first: int = 0) -> list[list[float]]:
    rows: list[list[float]] = worker.ask(ASKED, _batch(first), SCHEMA).column("logits").to_pylist()
    return rows


def _expected(first: int = 0) -> list[list[float]]:
    return [[13.0 + first, 23.0 + first], [11.0, 21.0], [15.0, 25.0]]


def _alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _gone(pid: int, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not _alive(pid)


def test_answers(open_worker: Open) -> None:
    worker = open_worker()
    assert worker.about["version"] == "1"
    assert _scores(worker) == _scores(worker) == _expected()
    settings = {"max_new_tokens": 2}
    asked = {"call": "generate", "settings": settings}
    rows = worker.ask(asked, _batch(0), serve.COMPLETIONS).to_pylist()
    assert rows == [{"token_ids": [7, 7], "logprobs": [-0.5, -0.5]}] * 3
    assert worker.started == 1


def test_messages_larger_than_a_pipe(open_worker: Open) -> None:
    rows = 300_000
    answer = open_worker().ask(ASKED, _batch(0, rows), SCHEMA)
    assert answer.num_rows == rows
    assert answer.column("logits")[rows - 1].as_py() == [10.0 + rows - 1, 20.0 + rows - 1]


@pytest.mark.parametrize("act", [DIE, BROKEN, FEW])
def test_a_failed_worker_is_replaced(open_worker: Open, act: int) -> None:
    worker = open_worker()
    first = worker.pid
    assert first is not None
    assert _scores(worker, act) == _expected(act)
    assert worker.started == 2
    assert worker.pid != first
    assert not _alive(first)
    assert _scores(worker) == _expected()
    assert worker.started == 2


def test_a_hang_is_a_failure_and_children_end_too(open_worker: Open, tmp_path: Path) -> None:
    worker = open_worker(WorkerLimits(start_seconds=60, batch_seconds=1.5))
    assert _scores(worker, HANG) == _expected(HANG)
    assert worker.started == 2
    assert _gone(int((tmp_path / "child").read_text()))


def test_a_stopped_worker_is_replaced(open_worker: Open) -> None:
    worker = open_worker(WorkerLimits(start_seconds=60, batch_seconds=1.5))
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGSTOP)
    assert _scores(worker) == _expected()
    assert worker.started == 2


def test_a_worker_killed_between_questions_is_replaced(open_worker: Open) -> None:
    worker = open_worker()
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    assert _scores(worker) == _expected()
    assert worker.started == 2


@pytest.mark.parametrize(
    ("act", "problem"),
    [
        (DIE, r"failed 2 times on the same batch: it was ended by signal 9 \(SIGKILL\).*last word"),
        (EXIT, "it ended with exit code 5"),
        (NONSENSE, "it wrote something that is no message"),
        (SHORT, "it answered something else than was asked"),
    ],
)
def test_restarts_are_bounded(open_worker: Open, act: int, problem: str) -> None:
    worker = open_worker(WorkerLimits(start_seconds=60, batch_seconds=60, restarts=1))
    with pytest.raises(EngineError, match=f"(?s)the clumsy worker .*{problem}"):
        _scores(worker, -act)
    assert worker.started == 2


def test_no_restart_is_a_choice(open_worker: Open) -> None:
    worker = open_worker(WorkerLimits(start_seconds=60, batch_seconds=0.5, restarts=0))
    with pytest.raises(EngineError, match=r"failed once .*no answer within 0\.5 seconds"):
        _scores(worker, HANG)
    assert worker.started == 1


def test_a_worker_that_cannot_be_started_again(open_worker: Open, tmp_path: Path) -> None:
    """No batch is at fault. It comes back when the reason is gone."""
    worker = open_worker(WorkerLimits(start_seconds=60, batch_seconds=60, restarts=1))
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    (tmp_path / "unreadable").touch()
    told = r"(?s)cannot be started again: .*no such weights.*run the same command again"
    with pytest.raises(EngineGoneError, match=told):
        _scores(worker)
    assert worker.started == 2
    (tmp_path / "unreadable").unlink()
    assert _scores(worker) == _expected()


def test_an_exception_is_an_answer(open_worker: Open) -> None:
    """It is told at once, and a new process takes the next question."""
    worker = open_worker()
    with pytest.raises(EngineError, match=r"(?s)MemoryError: out of GPU memory.*in act"):
        _scores(worker, RAISE)
    assert worker.started == 1
    assert _scores(worker) == _expected()
    assert worker.started == 2


def test_chatter_does_no_harm(open_worker: Open) -> None:
    worker = open_worker()
    assert _scores(worker, CHATTER) == _expected(CHATTER)
    assert worker.started == 1


def test_a_worker_that_cannot_start(open_worker: Open) -> None:
    with pytest.raises(EngineError, match=r"(?s)could not be started: .*exit code 3.*no GPU here"):
        open_worker(exit=3)
    with pytest.raises(EngineError, match="RuntimeError: no such weights"):
        open_worker(**{"raise": True})
    with pytest.raises(EngineError, match=r"could not be started: no answer within 0\.2 s"):
        open_worker(WorkerLimits(start_seconds=0.2), sleep=600)
    with pytest.raises(EngineError, match="nowhere/python: cannot be run: No such file"):
        WorkerProcess("clumsy", ["nowhere/python"], {}, WorkerLimits())


def test_its_environment_is_its_own(open_worker: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    about = open_worker(environment={"OWN": "yes"}).about
    assert about["path"] is None
    assert about["own"] == "yes"


def test_close_and_garbage_collection_end_the_process(open_worker: Open, tmp_path: Path) -> None:
    worker = open_worker()
    pid = worker.pid
    assert pid is not None
    worker.close()
    worker.close()
    assert not _alive(pid)
    command = [sys.executable, "-c", MAIN, str(tmp_path), str(WORKERS)]
    dropped = WorkerProcess("clumsy", command, {"folder": str(tmp_path)}, WorkerLimits())
    pid = dropped.pid
    assert pid is not None
    del dropped
    assert not _alive(pid)


def test_a_worker_does_not_outlive_its_parent(open_worker: Open, tmp_path: Path) -> None:
    """Even in the midst of a batch."""
    code = (
        "import sys; sys.path[:0] = sys.argv[3:]; import test_worker_process as t;"
        "command = [sys.executable, '-c', t.MAIN, sys.argv[1], sys.argv[2]];"
        "worker = t.WorkerProcess('c', command, {'folder': sys.argv[1]}, t.WorkerLimits());"
        "print(worker.pid, flush=True); worker.ask(t.ASKED, t._batch(t.HANG), t.SCHEMA)"
    )
    here = str(Path(__file__).parent)
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), str(WORKERS), here], stdout=subprocess.PIPE
    )
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        deadline = time.monotonic() + 30
        while not (tmp_path / "child").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        parent.kill()
    assert _gone(pid)
    assert _gone(int((tmp_path / "child").read_text()))
