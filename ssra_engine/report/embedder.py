"""Reports of `evaluate model`, put together so that models stand beside each other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssra_engine.errors import DataError

__all__ = ["read_evaluations"]

_MEND = "Give the report.json that `ssra-engine evaluate model --output` wrote, or its folder"
_FACTS = ("split", "queries", "documents", "pairs", "settings")
_ROW = ("model", "dim", "precision", "per_query", "pooled")


def read_evaluations(files: Sequence[str | Path]) -> list[dict[str, Any]]:
    """Read reports of embedding models.

    Args:
        files: report.json files, or the folders of them.

    Returns:
        one entry for each set of judgments and settings that was measured on: those facts, results
        (a model at a dim and precision is told once) and comparisons, in the order of the files.

    Raises:
        DataError: a file is not such a report.
    """
    groups: dict[str, dict[str, Any]] = {}
    for file in files:
        report = _read(Path(file))
        facts = {name: report[name] for name in _FACTS}
        group = groups.setdefault(
            json.dumps(facts, sort_keys=True), {**facts, "results": [], "comparisons": []}
        )
        known = [_name(row) for row in group["results"]]
        group["results"] += [row for row in report["results"] if _name(row) not in known]
        group["comparisons"] += report["comparisons"]
    return list(groups.values())


def _read(path: Path) -> dict[str, Any]:
    path = path / "report.json" if path.is_dir() else path
    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        rows = [*report["results"], *report["comparisons"]]
        whole = all(name in report for name in _FACTS)
        whole = whole and all(name in row for row in rows for name in _ROW)
    except OSError as error:
        raise DataError(f"cannot be read: {error}", file=str(path), mend=_MEND) from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError("not a report of a model", file=str(path), mend=_MEND) from error
    if not whole or not rows:
        raise DataError("not a report of a model", file=str(path), mend=_MEND)
    return report


def _name(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["model"], row["dim"], row["precision"]
