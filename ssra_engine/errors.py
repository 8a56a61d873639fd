"""Errors meant for the person at the keyboard: what was wrong, where, and how to mend it."""

from __future__ import annotations

__all__ = [
    "ConfigError",
    "DataError",
    "EngineError",
    "EngineGoneError",
    "SsraError",
    "StoreError",
]


class SsraError(Exception):
    """Base of every error caused by the caller's input; the command line ends with exit code 2."""


class ConfigError(SsraError):
    """A setting is missing, unknown, out of range or contradicts another one."""


class DataError(SsraError):
    """Input data is wrong.

    The message names the file, the column and the row where they are known, and ends with what to
    do about it. A row is 0-based, as in the file; text files give the line instead, 1-based, as an
    editor shows it.
    """

    def __init__(
        self,
        problem: str,
        *,
        file: str | None = None,
        column: str | None = None,
        row: int | None = None,
        line: int | None = None,
        mend: str | None = None,
    ) -> None:
        self.problem = problem
        self.file = file
        self.column = column
        self.row = row
        self.line = line
        self.mend = mend
        where = ", ".join(
            part
            for part in (
                file,
                None if column is None else f"column '{column}'",
                None if row is None else f"row {row}",
                None if line is None else f"line {line}",
            )
            if part is not None
        )
        message = f"{where}: {problem}" if where else problem
        super().__init__(f"{message}. {mend}." if mend else f"{message}.")


class EngineError(SsraError):
    """An inference engine cannot be loaded or cannot do what was asked."""


class EngineGoneError(EngineError):
    """No engine is left to ask: no document is at fault."""


class StoreError(SsraError):
    """An output folder cannot be written, is in use, or holds another run."""
