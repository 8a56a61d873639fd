"""Reports of embedding models, put together so that models stand beside each other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssra_engine.errors import DataError
from ssra_engine.evaluation.measuring import Settings

__all__ = ["read_evaluations"]

_MEND = (
    "Give the report.json of `ssra-engine evaluate model --output` or `ssra-engine compare`, or "
    "its folder"
)
_FACTS = ("split", "queries", "documents", "pairs", "mode", "confidence")


def read_evaluations(files: Sequence[str | Path]) -> list[dict[str, Any]]:
    """Read reports of `evaluate model` and of `compare`.

    Args:
        files: report.json files, or the folders of them.

    Returns:
        one entry for each set of judgments and settings that was measured on, in the order of the
        files: split, queries, documents (null where not told), pairs, mode, confidence, results and
        comparisons. A row of results: model, variant, and per_query and pooled, which hold value,
        low, high and queries by name of the figure; a model's variant is told once. A row of
        comparisons has the differences in their place, and against.

    Raises:
        DataError: a file is not such a report.
    """
    groups: dict[str, dict[str, Any]] = {}
    for file in files:
        own, measured_on = _read(Path(file))
        group = groups.setdefault(measured_on, {**own, "results": [], "comparisons": []})
        known = [(row["model"], row["variant"]) for row in group["results"]]
        group["results"] += [
            row for row in own["results"] if (row["model"], row["variant"]) not in known
        ]
        group["comparisons"] += own["comparisons"]
    return list(groups.values())


def _read(path: Path) -> tuple[dict[str, Any], str]:
    """A group of one file, and what it was measured on."""
    path = path / "report.json" if path.is_dir() else path
    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        group = _of_methods(report) if "methods" in report else _of_models(report)
        settings = report["settings"]
    except OSError as error:
        raise DataError(f"cannot be read: {error}", file=str(path), mend=_MEND) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError("not a report of a model", file=str(path), mend=_MEND) from error
    if not group["results"]:
        raise DataError("not a report of a model", file=str(path), mend=_MEND)
    facts = {name: group[name] for name in _FACTS}
    return group, json.dumps([facts, settings], sort_keys=True)


def _of_models(report: dict[str, Any]) -> dict[str, Any]:
    """The report of `evaluate model`."""

    def row(found: dict[str, Any], **more: str) -> dict[str, Any]:
        variant = f"dim {found['dim']}, {found['precision']}"
        told = {name: found[name] for name in ("model", "per_query", "pooled")}
        return {**told, "variant": variant, **more}

    settings = report["settings"]
    return {
        **{name: report[name] for name in ("split", "queries", "documents", "pairs")},
        "mode": settings["mode"],
        "confidence": settings["confidence"],
        "results": [row(one) for one in report["results"]],
        "comparisons": [row(one, against=one["against"]) for one in report["comparisons"]],
    }


def _of_methods(report: dict[str, Any]) -> dict[str, Any]:
    """The report of `compare`: the embedders of several methods, each the mean of its seeds."""
    seeds = len(report["settings"]["seeds"])
    variant = "1 seed" if seeds == 1 else f"mean of {seeds} seeds"
    methods = report["methods"]
    reference = methods[report["reference"]]["title"]

    def row(title: str, per_query: Any, pooled: Any, **more: str) -> dict[str, Any]:
        figures = {"per_query": per_query, "pooled": pooled}
        return {"model": title, "variant": variant, **figures, **more}

    return {
        **{name: report[name] for name in ("split", "queries", "pairs")},
        "documents": None,
        "mode": "judged",
        "confidence": Settings().confidence,
        "results": [row(one["title"], one["ranking"], one["pooled"]) for one in methods.values()],
        "comparisons": [
            row(
                reference, one["ranking_difference"], one["pooled_difference"], against=one["title"]
            )
            for name, one in methods.items()
            if name != report["reference"]
        ],
    }
