"""Acceptance: thresholds from an audit or from judgments, and the rows that reach them.

What is promised of an audit, for each target grade that is not refused: among the pairs at or above
the threshold (`scored.Scored` says out of which) at least the asked share has the target as its
true grade, as the audit's labels tell it. This fails with no more than the allowed probability,
over the random draw of the audit. The rows written are these pairs without those that were audited
and labelled otherwise, which can only raise the share.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from ssra_engine.audit import read_audit
from ssra_engine.content import content_key
from ssra_engine.durable import put_folder, writing
from ssra_engine.errors import StoreError
from ssra_engine.evaluation.outputs import Outputs, open_outputs
from ssra_engine.held_out import score_judgments
from ssra_engine.manifest import MANIFEST
from ssra_engine.scored import Scored, read_scored, take_rows
from ssra_engine.stages.accept import choose, estimate

__all__ = ["Terms", "accept_audited", "accept_estimated"]


@dataclass(frozen=True)
class Terms:
    """What is asked for.

    Attributes:
        min_precision: least share of the accepted pairs of a target that is right.
        confidence: probability with which a promise holds.
        jointly: for all targets at once (Bonferroni), not for each on its own.
    """

    min_precision: float
    confidence: float = 0.95
    jointly: bool = False

    def risk(self, targets: int) -> float:
        """Probability with which the promise of one of so many targets may fail."""
        return (1 - self.confidence) / (targets if self.jointly else 1)


def accept_audited(
    folder: str | Path, terms: Terms, audit: str | Path, output: str | Path
) -> dict[str, Any]:
    """Choose thresholds by the labels of an audit, with a promise, and write what reaches them.

    Args:
        folder: output folder of a finished run.
        terms: of the promise.
        audit: the labelled file of `audit.draw_audit`.
        output: folder for the accepted rows and report.json; it must not be there.

    Returns:
        the report, plain JSON values. Of each target: threshold (null where refused), reachable
        and reachable_at (a precision that can be had and its threshold, where refused), population,
        kept (those of it that the run kept), audited and right (labels in all), of_audited and
        of_right (labels at or above the threshold, or reachable_at), accepted (rows written).

    Raises:
        StoreError: the run has not ended, or `output` is there or cannot be written.
        DataError: a label is missing, wrong or not of this run; see `audit.read_audit`.
    """
    outputs, scored = _open(folder, output)
    targets = outputs.config.targets
    labels = read_audit(audit, scored, outputs.config.grades)
    grades: dict[str, Any] = {}
    for target in targets:
        rows = (scored.target == target) & labels.population
        choice = choose(
            scored.confidence[rows],
            labels.audited[rows],
            labels.right[rows],
            min_precision=terms.min_precision,
            risk=terms.risk(len(targets)),
        )
        grades[str(target)] = {
            "threshold": choice.threshold,
            "reachable": choice.reachable,
            "reachable_at": choice.reachable_at,
            "population": choice.population,
            "audited": int(labels.audited[rows].sum()),
            "right": int(labels.right[rows].sum()),
            "of_audited": choice.audited,
            "of_right": choice.right,
        }
    report = {"promise": True, **asdict(terms), "draw": str(labels.draw), "grades": grades}
    _write(outputs, scored, labels.audited & ~labels.right, report, Path(output))
    return report


def accept_estimated(
    folder: str | Path,
    terms: Terms,
    judgments: Sequence[str],
    output: str | Path,
    *,
    corpus: Sequence[str] = (),
    engines: str | Path = "engines",
    split: str = "dev",
) -> dict[str, Any]:
    """Estimate thresholds from judgments, which promises nothing, and write what reaches them.

    Args:
        folder: output folder of a finished run.
        terms: only `min_precision` matters.
        judgments: graded pairs, some of a split that the models did not learn from.
        output: folder for the accepted rows and report.json; it must not be there.
        corpus: documents of the judgments; by default those of the run.
        engines: of the run.
        split: of the judgments.

    Returns:
        the report, plain JSON values. Of each target: threshold (null where none reaches the
        precision), judged and right (pairs at or above it; without one, at the best), population,
        accepted, kept.

    Raises:
        As `accept_audited` and `held_out.score_judgments`.
    """
    outputs, scored = _open(folder, output)
    probs, truth = score_judgments(outputs, judgments, corpus=corpus, engines=engines, split=split)
    grades = {}
    for target in outputs.config.targets:
        found = estimate(probs[:, target], truth == target, terms.min_precision)
        population = int((scored.target == target).sum())
        grades[str(target)] = {**asdict(found), "population": population}
    report = {
        "promise": False,
        "min_precision": terms.min_precision,
        "judged": len(truth),
        "split": split,
        "grades": grades,
    }
    _write(outputs, scored, np.zeros(len(scored), bool), report, Path(output))
    return report


def _open(folder: str | Path, output: str | Path) -> tuple[Outputs, Scored]:
    if Path(output).exists():
        raise StoreError(f"{output}: it is there. Remove it, or give another --output.")
    outputs = open_outputs(Path(folder))
    return outputs, read_scored(outputs)


def _write(
    outputs: Outputs, scored: Scored, wrong: np.ndarray, report: dict[str, Any], output: Path
) -> None:
    """Count the accepted rows into the report, and write both."""
    accepted = np.zeros(len(scored), bool)
    for target, grade in report["grades"].items():
        mine = scored.target == int(target)
        if grade["threshold"] is not None:
            accepted |= mine & (scored.confidence >= grade["threshold"]) & ~wrong
        grade["accepted"] = int((accepted & mine).sum())
        grade["kept"] = int((scored.kept & mine).sum())
    put_folder(output, lambda new: _fill(new, outputs, scored.row[accepted], report))


def _fill(folder: Path, outputs: Outputs, rows: np.ndarray, report: Mapping[str, Any]) -> None:
    told = {"run": str(outputs.folder), "run_key": content_key(outputs.folder / MANIFEST), **report}
    text = json.dumps(told, ensure_ascii=False, indent=1)
    with writing(folder):
        for number, table in enumerate(take_rows(outputs, rows)):
            pq.write_table(table, folder / f"part-{number:05}.parquet", compression="zstd")
        (folder / "report.json").write_text(text + "\n", encoding="utf-8")
