"""What a file holds, for the command `inspect`."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ssra_engine.readers import (
    Rows,
    Source,
    blank,
    column_types,
    find_sources,
    is_text,
    read,
    schema_metadata,
    text_cells,
)
from ssra_engine.schema import DOCUMENT_TEXT_COLUMNS
from ssra_engine.simulate import SIMULATED

__all__ = ["inspect_input", "inspection_text"]

#: Columns of few values, whose rows are counted by value.
_COUNTED = ("grade", "target", "split", "reason", "source", "round")
_MOST_VALUES = 50
_DEFAULT_HIGHEST = 3
_SHOWN = 120


def inspect_input(given: str | Path, *, samples: int = 3) -> dict[str, Any]:
    """Read an input to its end and say what it holds. Memory does not grow with it.

    Args:
        given: a file, folder, glob or URI; the files are taken as one table.
        samples: how many rows to show, from the beginning.

    Returns:
        plain JSON values: input, files, formats, bytes, kind (corpus, judgments, pairs, annotated,
        synthetic, rejected or table), simulated, rows, malformed (rows that cannot be parsed) and
        first_malformed, columns (name, types, nulls, blanks, invalid: cells that are not UTF-8,
        hold a NUL byte or are too large, and least and most of numbers), counts (of the values of
        grade, target, split, reason, source, round), hints (what stands in the way of using it, and
        the mend), samples.

    Raises:
        DataError: a file is missing, empty, of unknown format, or damaged.
    """
    sources = find_sources([given])
    columns: dict[str, _Column] = {}

    def note(name: str) -> None:
        if name not in columns:
            columns[name] = _Column(rows, counted=name in _COUNTED)

    rows = malformed = 0
    first_malformed: str | None = None
    shown: list[dict[str, Any]] = []
    for source in sources:
        for name in column_types(source) or {}:
            note(name)
        for piece in read(source, None):
            for name in piece.columns:
                note(name)
            for name, column in columns.items():
                column.add(piece.columns.get(name), len(piece), source)
            if len(shown) < samples:
                shown += _sample(piece, samples - len(shown))
            rows += len(piece)
            malformed += len(piece.bad)
            if piece.bad and first_malformed is None:
                bad = piece.bad[0]
                error = source.error(bad.problem, bad.mend, column=bad.column, place=bad.place)
                first_malformed = str(error)
    report = {
        "input": str(given),
        "files": len(sources),
        "formats": sorted({source.format for source in sources}),
        "bytes": sum(source.size for source in sources),
        "kind": _kind(set(columns)),
        "simulated": any(SIMULATED in schema_metadata(source) for source in sources),
        "rows": rows,
        "malformed": malformed,
        "first_malformed": first_malformed,
        "columns": [{"name": name, **column.report()} for name, column in columns.items()],
        "counts": {name: columns[name].counts() for name in _COUNTED if name in columns},
        "samples": shown,
    }
    return {**report, "hints": _hints(report)}


def inspection_text(report: dict[str, Any]) -> str:
    """The report of `inspect_input` as lines to print."""
    files = f", {report['files']} files" if report["files"] > 1 else ""
    lines = [
        f"{report['input']}: {report['kind']}, {', '.join(report['formats'])}{files}, "
        f"{report['rows']:,} rows, {report['bytes']:,} bytes"
    ]
    if report["simulated"]:
        lines.append("This is simulated data, made by `ssra-engine simulate`.")
    if report["malformed"]:
        lines.append(f"{report['malformed']:,} malformed rows: {report['first_malformed']}")
    header = ("column", "type", "nulls", "blanks", "invalid", "least", "most")
    table = [
        (
            column["name"],
            " or ".join(column["types"]),
            *(f"{column[key]:,}" for key in ("nulls", "blanks", "invalid")),
            *("" if column[key] is None else f"{column[key]:g}" for key in ("least", "most")),
        )
        for column in report["columns"]
    ]
    widths = [max(len(row[i]) for row in [header, *table]) for i in range(len(header))]
    lines.append("")
    for row in [header, *table]:
        cells = [
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    for name, counts in report["counts"].items():
        total = sum(counts.values()) or 1
        shares = (f"{value}: {n:,} ({n / total:.1%})" for value, n in counts.items())
        lines += ["", f"{name}  {'  '.join(shares)}"]
    for hint in report["hints"]:
        lines += ["", hint]
    if report["samples"]:
        lines += ["", "first rows"]
        lines += [json.dumps(row, ensure_ascii=False) for row in report["samples"]]
    return "\n".join(lines)


def _hints(report: dict[str, Any]) -> list[str]:
    """What stands in the way of a table that people bring from elsewhere."""
    names = [column["name"] for column in report["columns"]]
    hints = [
        f"{column['name']}: {column['invalid']:,} cells are not UTF-8 text, hold a NUL byte or are "
        "too large. Another encoding is converted with iconv -f WINDOWS-1252 -t UTF-8, say."
        for column in report["columns"]
        if column["invalid"]
    ]
    if report["kind"] == "table":
        held = next((mark for mark in ";\t|" if len(names) == 1 and mark in names[0]), None)
        told = {";": "semicolons", "\t": "tabs (name it .tsv)", "|": "bars"}
        hints.append(
            f"This file has {told[held]} where commas are expected. Save it with commas."
            if held
            else "These are the columns of no table that goes in: a corpus has doc_id and title or "
            "text, judgments query, doc_id and grade, pairs query and doc_id. Rename them: the "
            "guide `Your own data` shows how."
        )
    if report["kind"] == "judgments":
        hints += _scale_hints(report["counts"]["grade"])
    return hints


def _scale_hints(counts: dict[str, int]) -> list[str]:
    try:
        grades = sorted({float(value) for value in counts if value not in ("", "null")})
    except ValueError:
        return ["Grades are whole numbers from 0 up; map the words to them."]
    if not grades or not all(grade.is_integer() for grade in grades):
        return ["Grades are whole numbers from 0 up; map the others."] if grades else []
    if grades[0] >= 1:
        return [
            f"The lowest grade here is {grades[0]:g}, and a scale begins at 0. Where {grades[0]:g} "
            f"is the worst there is, subtract {grades[0]:g} from each."
        ]
    scale = ",".join(str(grade) for grade in range(max(2, int(grades[-1]) + 1)))
    return [] if grades[-1] == _DEFAULT_HIGHEST else [f"For this scale: build --grades {scale}"]


class _Column:
    """Running account of one column."""

    def __init__(self, earlier_rows: int, *, counted: bool) -> None:
        self._counted = counted
        self._types: dict[str, None] = {}
        self._nulls = earlier_rows
        self._blanks = self._invalid = 0
        self._least: float | None = None
        self._most: float | None = None
        self._counts: Counter[Any] = Counter()

    def add(self, array: pa.Array | None, rows: int, source: Source) -> None:
        if array is None:
            self._nulls += rows
            return
        if not pa.types.is_null(array.type):
            self._types[str(array.type)] = None
        if isinstance(array, pa.ExtensionArray):
            array = array.storage
        if is_text(array.type):
            with source.translated():
                array, bad = text_cells(array)
            self._invalid += len(bad)
            self._nulls -= len(bad)
            self._blanks += pc.sum(blank(array)).as_py() or 0
        elif pa.types.is_integer(array.type) or pa.types.is_floating(array.type):
            bounds = pc.min_max(array)
            for value in (bounds["min"].as_py(), bounds["max"].as_py()):
                if value is not None:
                    self._least = value if self._least is None else min(self._least, value)
                    self._most = value if self._most is None else max(self._most, value)
        self._nulls += array.null_count
        if self._counted and not pa.types.is_nested(array.type):
            for pair in pc.value_counts(array):
                self._counts[pair["values"].as_py()] += pair["counts"].as_py()
            self._counted = len(self._counts) <= _MOST_VALUES

    def counts(self) -> dict[str, int]:
        """Rows by value, in the order of the values; nothing where there are too many."""
        if not self._counted:
            return {}
        known = sorted(
            (value for value in self._counts if value is not None),
            key=lambda value: (isinstance(value, str), value),
        )
        counts = {
            f"{value:g}" if isinstance(value, float) else str(value): self._counts[value]
            for value in known
        }
        return counts | ({"null": self._counts[None]} if None in self._counts else {})

    def report(self) -> dict[str, Any]:
        return {
            "types": list(self._types) or ["null"],
            "nulls": self._nulls,
            "blanks": self._blanks,
            "invalid": self._invalid,
            "least": self._least,
            "most": self._most,
        }


def _kind(columns: set[str]) -> str:
    """What a table is, by the columns it has."""
    pair = {"query", "doc_id"} <= columns
    if pair and "target" in columns:
        return "rejected" if "reason" in columns else "synthetic"
    if pair and "grade" in columns:
        return "annotated" if "probs" in columns else "judgments"
    if pair:
        return "pairs"
    if "doc_id" in columns and columns & set(DOCUMENT_TEXT_COLUMNS):
        return "corpus"
    return "table"


def _sample(piece: Rows, count: int) -> list[dict[str, Any]]:
    count = min(count, len(piece))
    rows: list[dict[str, Any]] = [{} for _ in range(count)]
    for name, array in piece.columns.items():
        first = array.slice(0, count)
        if is_text(first.type):
            first = text_cells(first)[0]
        for row, value in zip(rows, first.to_pylist(), strict=True):
            row[name] = _shown(value)
    return rows


def _shown(value: Any) -> Any:
    """A value that JSON knows, and not too long."""
    if value is None or isinstance(value, bool | int | float):
        return value
    text = value if isinstance(value, str) else str(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
