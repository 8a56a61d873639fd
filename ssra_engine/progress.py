"""Progress of long steps on standard error: a bar in a terminal, now and then a line elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

__all__ = ["ProgressBar"]

_SECONDS_BETWEEN_LINES = 10.0


class ProgressBar:
    """Shows what `run` and `build` tell of their progress (`steps.Progress`).

    Args:
        console: where to; standard error by default.
        seconds_between_lines: away from a terminal, a step prints no more often than this.
        quiet: show nothing.
    """

    def __init__(
        self,
        console: Console | None = None,
        seconds_between_lines: float = _SECONDS_BETWEEN_LINES,
        *,
        quiet: bool = False,
    ) -> None:
        self._console = console or Console(stderr=True, quiet=quiet)
        self._step: _Bar | _Lines = (
            _Bar(self._console)
            if self._console.is_terminal
            else _Lines(self._console, seconds_between_lines)
        )

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._step.close()

    def begin(self, name: str, documents: int, done: int) -> None:
        """A step begins, or goes on after `done` documents; 0 of 0 where it does not count them."""
        self._step.begin(name, documents, done)

    def update(self, done: float) -> None:
        """So many of the step's documents are done."""
        self._step.update(done)


class _Bar:
    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            _Counts(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task: Task | None = None

    def begin(self, name: str, documents: int, done: int) -> None:
        self._progress.start()
        self._end_step()
        number = self._progress.add_task(name, total=documents or None, completed=done)
        self._task = self._progress.tasks[-1]
        assert self._task.id == number

    def update(self, done: float) -> None:
        assert self._task is not None
        self._progress.update(self._task.id, completed=done)

    def close(self) -> None:
        self._end_step()
        self._progress.stop()

    def _end_step(self) -> None:
        if self._task is not None:
            self._progress.stop_task(self._task.id)


class _Counts(ProgressColumn):
    """Done of all, and the rate since the step began here."""

    def render(self, task: Task) -> Text:
        if task.total is None:
            return Text("")
        rate = "" if not task.speed else f"  {task.speed:,.1f}/s"
        return Text(f"{task.completed:,.0f}/{task.total:,.0f}{rate}")


class _Lines:
    """A line every so often; ever more seldom while the count stands still."""

    def __init__(self, console: Console, seconds: float) -> None:
        self._console = console
        self._seconds = self._gap = seconds
        self._name = ""
        self._documents = 0
        self._first = self._done = self._shown = 0.0
        self._started = self._told = 0.0

    def begin(self, name: str, documents: int, done: int) -> None:
        self.close()
        self._name, self._documents = name, documents
        self._first = self._done = self._shown = done
        self._gap = self._seconds
        self._started = self._told = time.monotonic()
        counted = f": {documents:,} to do, {done:,} done" if documents else ""
        self._print(f"{name}{counted}")

    def update(self, done: float) -> None:
        self._done = done
        if time.monotonic() - self._told >= self._gap:
            self._tell()

    def close(self) -> None:
        if self._done > self._shown:
            self._tell()
        self._first = self._shown = self._done

    def _tell(self) -> None:
        self._told = time.monotonic()
        seconds = max(self._told - self._started, 1e-9)
        rate = (self._done - self._first) / seconds
        if not self._documents or not rate:
            return
        counted = f"{self._name}: {self._done:,.0f}/{self._documents:,}"
        if self._done == self._shown:
            # The first wave of sampling counts documents; later ones ask again for what they lack.
            self._gap *= 2
            self._print(f"{counted}, still at work after {_clock(seconds)}")
            return
        self._shown, self._gap = self._done, self._seconds
        left = (self._documents - self._done) / rate
        self._print(
            f"{counted} ({self._done / self._documents:.0%}), {rate:,.1f}/s, {_clock(left)} left"
        )

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(max(seconds, 0.0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
