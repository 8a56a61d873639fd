"""Which rows an engine fails at: a batch is halved until those are found, and the others get done.

Without this one bad document would end a run of millions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pyarrow as pa

from ssra_engine.errors import EngineError, EngineGoneError

__all__ = ["EngineCallError", "engine_call", "isolate_failures"]

_log = logging.getLogger(__name__)

# When this many rows, the first of their shard, fail one by one, the engine is at fault.
_HOPELESS_ROWS = 16


class EngineCallError(Exception):
    """An engine raised while it worked on some rows."""


@contextmanager
def engine_call() -> Iterator[None]:
    """Turn what an engine raises into `EngineCallError`.

    Raises:
        EngineGoneError: no engine is left, which is the fault of no row.
    """
    try:
        yield
    except EngineGoneError:
        raise
    except Exception as error:
        raise EngineCallError(f"{type(error).__name__}: {error}") from error


def isolate_failures(
    rows: int,
    work: Callable[[int, int], pa.Table],
    failed: Callable[[int, str], pa.Table],
) -> pa.Table:
    """What `work` yields for all rows, in order, with the failing ones replaced.

    Args:
        rows: how many there are.
        work: given where a stretch of rows starts and stops; its calls of an engine are within
            `engine_call`.
        failed: given a row at which the engine fails, and its message.

    Raises:
        EngineError: the first `_HOPELESS_ROWS` rows all fail, each on its own, or no engine is
            left.
    """
    pending = [(0, rows)]
    tables: list[pa.Table] = []
    failures = 0
    while pending:
        start, stop = pending.pop()
        try:
            tables.append(work(start, stop))
        except EngineCallError as failure:
            if stop - start > 1:
                middle = (start + stop) // 2
                pending += [(middle, stop), (start, middle)]
                continue
            failures += 1
            tables.append(failed(start, str(failure)))
            if failures == stop == _HOPELESS_ROWS:
                raise EngineError(
                    f"the engine fails at every document: {failure}. "
                    "Mend it and run the same command again; finished shards are kept."
                ) from failure
    return pa.concat_tables(tables)
