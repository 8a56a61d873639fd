"""SIGINT and SIGTERM during a run: the batch at work ends, then the run does."""

from __future__ import annotations

import os
import signal
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssra_engine.steps import Progress

__all__ = ["Interrupted", "Interruption"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_NOTE = b"\nStopping when this batch ends. Once more stops at once; nothing finished is lost.\n"


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)


class Interruption:
    """While entered, a first signal is kept until the run next tells of its progress.

    Steps that count documents tell after every batch of requests. During the others (reading the
    input, training) a signal is raised at once: there is no batch to wait for. A second signal ends
    the process as the system would, which loses no more than `kill -9` does.

    Use it in the main thread.
    """

    def __init__(self) -> None:
        self._pending: int | None = None
        self._counting = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, self._signalled)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def watch(self, progress: Progress) -> Progress:
        """The same progress, told of by which a kept signal is raised as `Interrupted`."""
        return _Watched(self, progress)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        for handled in _SIGNALS:
            signal.signal(handled, signal.SIG_DFL)
        if not self._counting:
            raise Interrupted(number)
        self._pending = number
        os.write(2, _NOTE)  # not through a buffer that this may have interrupted

    def told(self, *, counting: bool) -> None:
        """A batch has ended or a step begins; `counting` where more batches will be told of."""
        self._counting = counting
        if self._pending is not None:
            raise Interrupted(self._pending)


class _Watched:
    def __init__(self, interruption: Interruption, progress: Progress) -> None:
        self._interruption = interruption
        self._progress = progress

    def begin(self, name: str, documents: int, done: int) -> None:
        self._progress.begin(name, documents, done)
        self._interruption.told(counting=documents > 0)

    def update(self, done: float) -> None:
        self._progress.update(done)
        self._interruption.told(counting=True)
