"""From the output folder of a run to its report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ssra_engine.durable import put_file
from ssra_engine.report.collect import collect
from ssra_engine.report.page import render

__all__ = ["REPORT", "write_report"]

#: The file in the output folder.
REPORT = "report.html"


def write_report(folder: str | Path, output: str | Path | None = None, **options: Any) -> Path:
    """Write the report of a finished run: one HTML file with all that it needs inside.

    Args:
        folder: output folder.
        output: the file; by default report.html in the folder.
        options: of `collect.collect`.

    Returns:
        the file.

    Raises:
        StoreError, DataError, EngineError: as `collect.collect`, or the file cannot be written.
    """
    path = Path(folder) / REPORT if output is None else Path(output)
    put_file(path, render(collect(Path(folder), **options)).encode())
    return path
