"""What an audit and an acceptance found of a run, read back from their files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ssra_engine.audit import NO_GRADE, read_audit
from ssra_engine.auditing.agreement import Graded, between_annotators, with_labels
from ssra_engine.auditing.answers import read_answers
from ssra_engine.auditing.book import ANSWERS_FILE, desks_of
from ssra_engine.content import content_key
from ssra_engine.errors import DataError
from ssra_engine.evaluation.outputs import Outputs
from ssra_engine.manifest import MANIFEST
from ssra_engine.scored import read_scored, take_rows

__all__ = ["acceptances_of", "audit_of"]

#: Where `ssra-engine audit` and `ssra-engine accept` write unless told otherwise.
_AUDITS = (Path("audit"), Path("audit.csv"))
_ACCEPTED = Path("accepted")


def audit_of(outputs: Outputs, given: str | Path | None = None) -> dict[str, Any] | None:
    """Figures of the labels of an audit. It holds some 50 bytes for each scored sample.

    Args:
        outputs: a finished run.
        given: the labelled file or the folder of the page; by default ``audit`` or ``audit.csv``,
            where that is a fully labelled audit of this run.

    Returns:
        None where nothing is given or found; else file, per_grade, seed and surest of the draw, the
        figures of `agreement.with_labels`, annotators and kappa as in `agreement.agreement`, which
        are empty where only a file says what the labels are.

    Raises:
        DataError: `given` is not a fully labelled audit of this run.
        StoreError: a part of the run is damaged, or the answers of the page are.
    """
    if given is not None:
        return _read_audit(outputs, Path(given))
    for path in _AUDITS:
        if path.exists():
            try:
                return _read_audit(outputs, path)
            except DataError:
                continue
    return None


def acceptances_of(outputs: Outputs, given: Sequence[str | Path] = ()) -> list[dict[str, Any]]:
    """Reports of `accept` about this run.

    Args:
        outputs: a finished run.
        given: output folders of `accept`; by default ``accepted``, where that is of this run.

    Raises:
        DataError: one that is given is not the output of `accept` for this run.
    """
    folders = [Path(folder) for folder in given] or [_ACCEPTED]
    if not given and not _ACCEPTED.exists():
        return []
    found = []
    for folder in folders:
        try:
            found.append(_read_acceptance(outputs, folder))
        except DataError:
            if given:
                raise
    return found


def _read_audit(outputs: Outputs, path: Path) -> dict[str, Any]:
    scored = read_scored(outputs)
    grades = outputs.config.grades
    audited = read_audit(path, scored, grades)
    chosen = np.flatnonzero(audited.audited)
    predicted = pa.concat_tables(take_rows(outputs, scored.row[chosen])).column("grade")
    labels = [NO_GRADE if label < 0 else str(label) for label in audited.label[chosen].tolist()]
    graded = list(
        map(
            Graded,
            scored.target[chosen].tolist(),
            predicted.to_pylist(),
            scored.kept[chosen].tolist(),
            labels,
        )
    )
    answers_file = path / ANSWERS_FILE
    answers = read_answers(answers_file) if answers_file.exists() else []
    labels_of = {name: desk.labels for name, desk in desks_of(answers).items()}
    keys = dict.fromkeys(key for labels in labels_of.values() for key in labels)
    return {
        "file": path.name,
        **asdict(audited.draw),
        **with_labels(graded, grades),
        "annotators": {name: len(labels) for name, labels in sorted(labels_of.items())},
        "kappa": between_annotators(labels_of, keys),
    }


def _read_acceptance(outputs: Outputs, folder: Path) -> dict[str, Any]:
    path = folder / "report.json"
    mend = f"Give the folder that `ssra-engine accept {outputs.folder}` wrote"
    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        key, _, promised = report.pop("run_key"), report.pop("run"), bool(report["promise"])
    except OSError as error:
        raise DataError(f"cannot be read: {error}", file=str(path), mend=mend) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError("not a report of accept", file=str(path), mend=mend) from error
    if key != content_key(outputs.folder / MANIFEST):
        raise DataError("it is about another run", file=str(path), mend=mend)
    return {**report, "promise": promised, "file": folder.name}
