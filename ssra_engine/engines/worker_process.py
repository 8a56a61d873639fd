"""A worker process under watch: started, timed, restarted when it fails, and closed.

A worker fails when it ends, when it says nothing within the time it has, or when what it writes is
no message or not the answer asked for. It is then killed with its children, and the same question
goes to a new one, a bounded number of times. An exception that the engine raises is an answer: it
is not asked again. Where no new process can open the model any more, no question is at fault, and
`EngineGoneError` says so. `workers.serve` is the other side of the pipes.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import threading
import time
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa

from ssra_engine.engines.workers.serve import HEADER, MAGIC, pack, unpack
from ssra_engine.errors import EngineError, EngineGoneError

__all__ = ["WorkerLimits", "WorkerProcess"]

#: How often the end of a silent process is looked for, milliseconds.
_LOOK_EVERY = 200
_READ_BYTES = 1 << 20
_LARGEST_MESSAGE = 1 << 33
_STDERR_BYTES = 16 << 10
_STDERR_LINES = 12
_CLOSE_SECONDS = 10.0


@dataclass(frozen=True)
class WorkerLimits:
    """What a worker is allowed.

    Attributes:
        start_seconds: to load the model.
        batch_seconds: to answer one message; a longer silence counts as a hang.
        restarts: new processes for one message, after the first has failed.
    """

    start_seconds: float = 1800.0
    batch_seconds: float = 600.0
    restarts: int = 2


class _Failed(Exception):  # noqa: N818 - never leaves this module
    """The process is of no more use; the text says why."""


class _NotStarted(_Failed):
    """No process came to the point where it could be asked."""


class WorkerProcess:
    """A worker that answers questions about a model.

    Args:
        name: of the backend, for messages.
        command: the interpreter, `serve.py` and its argument.
        options: what the worker opens its model with.
        limits: time and restarts.
        environment: variables of the worker, in place of or beside ours; None leaves one out.

    Raises:
        EngineError: the interpreter cannot be run, or the model cannot be opened.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        options: Mapping[str, Any],
        limits: WorkerLimits,
        environment: Mapping[str, str | None] | None = None,
    ) -> None:
        self._name = name
        self._command = list(command)
        self._open = pack({"call": "open", "options": dict(options)})
        self._limits = limits
        # Another interpreter must not import what ours was told to.
        changes = {"PYTHONPATH": None, "PYTHONHOME": None, **(environment or {})}
        merged = {**os.environ, **changes}
        self._environment = {key: value for key, value in merged.items() if value is not None}
        self._running: list[_Running] = []
        self._finalizer = weakref.finalize(self, _end_all, self._running)
        #: What the worker told of itself when it was ready.
        self.about: dict[str, Any] = {}
        #: Processes started so far.
        self.started = 0
        try:
            self._start()
        except _Failed as failure:
            raise EngineError(self._told(f"could not be started: {failure}")) from None

    def ask(
        self, about: Mapping[str, Any], batch: pa.RecordBatch, schema: pa.Schema
    ) -> pa.RecordBatch:
        """One row of `schema` for each row of `batch`.

        Raises:
            EngineGoneError: the last of the processes that may be tried could not open the model.
            EngineError: the engine raised an exception, or as many processes as may be have failed.
        """
        message = pack(dict(about), batch)
        failures: list[_Failed] = []
        while len(failures) <= self._limits.restarts:
            try:
                self._restart()
                return self._exchange(message, schema, batch.num_rows)
            except _Failed as failure:
                failures.append(failure)
        if isinstance(failures[-1], _NotStarted):
            raise EngineGoneError(
                f"{self._told('cannot be started again')}: {failures[-1]}\n"
                "Mend it and run the same command again; finished work is kept."
            )
        times = f"{len(failures)} times" if len(failures) > 1 else "once"
        raise EngineError(self._told(f"failed {times} on the same batch: {failures[-1]}"))

    def close(self) -> None:
        """Let the worker end; after a while, kill it."""
        for running in self._running:
            running.finish()
        self._running.clear()

    @property
    def pid(self) -> int | None:
        """The process that answers now."""
        return self._running[0].process.pid if self._running else None

    def _start(self) -> None:
        self._running.append(_Running(self._command, self._environment))
        self.started += 1
        self.about, _ = self._one(self._open, self._limits.start_seconds)

    def _restart(self) -> None:
        if self._running:
            return
        try:
            self._start()
        # An exception too: the first process has opened the same model without one.
        except (_Failed, EngineError) as failure:
            raise _NotStarted(str(failure)) from None

    def _exchange(self, message: bytes, schema: pa.Schema, rows: int) -> pa.RecordBatch:
        _, batch = self._one(message, self._limits.batch_seconds)
        if batch is None or not batch.schema.equals(schema) or batch.num_rows != rows:
            raise self._give_up(_Failed("it answered something else than was asked"))
        return batch

    def _one(self, message: bytes, seconds: float) -> tuple[dict[str, Any], pa.RecordBatch | None]:
        running = self._running[0]
        try:
            answer, batch = running.exchange(message, seconds)
        except _Failed as failure:
            raise self._give_up(failure) from None
        except BaseException:  # Ctrl-C leaves an answer underway that nobody will read
            self._end()
            raise
        if not answer.get("ok"):
            # After an exception nobody knows what state a GPU is in.
            self._end()
            raise EngineError(
                f"the {self._name} worker could not do what it was asked: "
                f"{answer.get('error', 'it does not say why')}\n{answer.get('trace', '')}".rstrip()
            )
        return answer, batch

    def _give_up(self, failure: _Failed) -> _Failed:
        tail = self._end()
        return _Failed(f"{failure}{tail}")

    def _end(self) -> str:
        """Kill the process; the end of what it wrote to standard error, as part of a message."""
        running = self._running.pop()
        running.kill()
        lines = running.last_lines()
        return ". It wrote at last:\n  " + "\n  ".join(lines) if lines else ""

    def _told(self, problem: str) -> str:
        return f"the {self._name} worker ({self._command[0]}) {problem}"


def _end_all(running: list[_Running]) -> None:
    while running:
        running.pop().kill()


class _Running:
    """One process and its pipes."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        pipe = subprocess.PIPE
        try:
            # A session of its own: Ctrl-C is ours to handle, and its children end with it.
            self.process = subprocess.Popen(
                command,
                stdin=pipe,
                stdout=pipe,
                stderr=pipe,
                env=dict(environment),
                start_new_session=True,
            )
        except OSError as error:
            raise EngineError(
                f"{command[0]}: cannot be run: {error.strerror or error}. Give the Python "
                "interpreter that has the engine."
            ) from error
        stdin, stdout, stderr = self.process.stdin, self.process.stdout, self.process.stderr
        assert stdin is not None
        assert stdout is not None
        assert stderr is not None
        self._stdin, self._stdout, self._stderr = stdin, stdout, stderr
        os.set_blocking(stdin.fileno(), False)
        os.set_blocking(stdout.fileno(), False)
        self._tail: deque[bytes] = deque()
        self._listener = threading.Thread(target=_listen, args=(stderr, self._tail), daemon=True)
        self._listener.start()

    def exchange(
        self, message: bytes, seconds: float
    ) -> tuple[dict[str, Any], pa.RecordBatch | None]:
        """Write a message and read the answer within `seconds`, or raise `_Failed`."""
        deadline = time.monotonic() + seconds
        try:
            self._write(message, deadline)
            magic, length = HEADER.unpack(self._read(HEADER.size, deadline))
            if magic != MAGIC or length > _LARGEST_MESSAGE:
                raise _Failed("it wrote something that is no message")
            return unpack(self._read(length, deadline))
        except TimeoutError:
            raise _Failed(f"no answer within {seconds:g} seconds") from None
        except ValueError as error:
            raise _Failed(f"it wrote something that is no message ({error})") from None

    def finish(self) -> None:
        """Close the pipe it reads from, and wait for its end."""
        with suppress(OSError):
            self._stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(_CLOSE_SECONDS)
        self.kill()

    def kill(self) -> None:
        """Kill it and all its children."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(_CLOSE_SECONDS)
        self._listener.join(1.0)
        for pipe in (self._stdin, self._stdout):
            with suppress(OSError):
                pipe.close()
        if not self._listener.is_alive():
            self._stderr.close()

    def last_lines(self) -> list[str]:
        """The end of what it wrote to standard error."""
        text = b"".join(self._tail).decode("utf-8", "replace")
        return [line for line in text.splitlines() if line.strip()][-_STDERR_LINES:]

    def _write(self, data: bytes, deadline: float) -> None:
        left = memoryview(data)
        while left:
            self._wait(self._stdin, select.POLLOUT, deadline)
            with suppress(BlockingIOError):
                try:
                    left = left[os.write(self._stdin.fileno(), left) :]
                except BrokenPipeError:
                    raise self._ended() from None

    def _read(self, size: int, deadline: float) -> bytearray:
        data = bytearray()
        while len(data) < size:
            self._wait(self._stdout, select.POLLIN, deadline)
            with suppress(BlockingIOError):
                piece = os.read(self._stdout.fileno(), min(_READ_BYTES, size - len(data)))
                if not piece:
                    raise self._ended()
                data += piece
        return data

    def _wait(self, pipe: IO[bytes], event: int, deadline: float) -> None:
        """Until the pipe is ready. Its end alone is no sign: a child may hold it open."""
        poller = select.poll()
        poller.register(pipe, event)
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            if poller.poll(min(_LOOK_EVERY, 1000 * left)):
                return
            if self.process.poll() is not None:
                raise self._ended()

    def _ended(self) -> _Failed:
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(1.0)
        code = self.process.poll()
        if code is None:
            return _Failed("it closed its pipes")
        if code < 0:
            return _Failed(f"it was ended by signal {-code} ({signal.Signals(-code).name})")
        return _Failed(f"it ended with exit code {code}")


def _listen(pipe: IO[bytes], tail: deque[bytes]) -> None:
    """Keep the last bytes of standard error, so that the pipe never fills."""
    kept = 0
    while piece := os.read(pipe.fileno(), 4096):
        tail.append(piece)
        kept += len(piece)
        while kept - len(tail[0]) > _STDERR_BYTES:
            kept -= len(tail.popleft())
