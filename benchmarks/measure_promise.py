"""How often acceptance keeps its promise, over redraws of the audit of simulated runs.

    python benchmarks/measure_promise.py out ... [--per-grade 300] [--surest 1] [--redraws 1000]
        [--precisions 0.9,0.7,0.6,0.5] [--judgments FILE --corpus FILE --engines FOLDER]
    python benchmarks/measure_promise.py planted [...]

Each `out` is the folder of a finished run over a simulated world. The oracle grades every scored
pair, so the precision of what each redraw accepts is known: of all pairs at or above the threshold
(what is promised), of those of them that were not audited (the rest), and of the rows written.
`planted` is no run but numbers: four grades of 3,000 pairs, right with a chance that grows with the
confidence. With --judgments (one run), the thresholds estimated from them are measured too.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ssra_engine.audit import Draw, drawn
from ssra_engine.evaluation.oracle import oracle_grades, read_facets
from ssra_engine.evaluation.outputs import open_outputs
from ssra_engine.held_out import score_judgments
from ssra_engine.scored import Scored, read_scored, take_rows
from ssra_engine.stages.accept import choose, estimate

_CONFIDENCE = 0.95
# Chance to be right of the least and the surest pair of each planted grade; the last is hopeless.
_PLANTED = ((0.2, 1.0), (0.5, 1.0), (0.37, 0.97), (0.3, 0.85))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--per-grade", type=int, default=300)
    parser.add_argument("--surest", type=float, default=1.0)
    parser.add_argument("--redraws", type=int, default=1000)
    parser.add_argument("--precisions", default="0.9,0.7,0.6,0.5")
    parser.add_argument("--judgments")
    parser.add_argument("--corpus")
    parser.add_argument("--engines")
    given = parser.parse_args()
    precisions = [float(part) for part in given.precisions.split(",")]
    for name in given.runs:
        scored, right = _planted() if name == "planted" else _graded(Path(name))
        print(f"\n{name}: {len(scored):,} scored pairs", flush=True)
        if given.judgments:
            _measure_estimates(given, Path(name), scored, right, precisions)
        for precision in precisions:
            for target in np.unique(scored.target).tolist():
                mine = scored.target == target
                row = _measure(scored.at(mine), right[mine], given, precision)
                print(json.dumps({"precision": precision, "target": target, **row}), flush=True)


def _graded(folder: Path) -> tuple[Scored, np.ndarray]:
    outputs = open_outputs(folder)
    scored = read_scored(outputs)
    table = pa.concat_tables(take_rows(outputs, scored.row))
    facets = read_facets(outputs.inputs, table.column("doc_id").unique())
    return scored, oracle_grades(table, facets) == scored.target


def _planted(pairs: int = 3000) -> tuple[Scored, np.ndarray]:
    random = np.random.default_rng(0)
    target = np.repeat(np.arange(len(_PLANTED), dtype=np.int8), pairs)
    confidence = random.random(len(target), np.float32)
    low, high = np.array(_PLANTED)[target].T
    right = random.random(len(target)) < high - (high - low) * (1 - confidence) ** 2
    seed = random.integers(0, 2**63, len(target)).astype(np.uint64)
    kept = np.ones(len(target), bool)
    return Scored(np.arange(len(target)), target, confidence, seed, kept), right


def _measure(
    scored: Scored, right: np.ndarray, given: argparse.Namespace, precision: float
) -> dict[str, Any]:
    """One target: what became of the redraws, in counts and means."""
    best = _in_hindsight(scored.confidence, right, precision)
    refused, broken, rest_below, written_below = 0, 0, 0, 0
    told_too_high, reachable, sizes = 0, [], []
    for seed in range(given.redraws):
        population, audited = drawn(scored, Draw(given.per_grade, seed, given.surest))
        choice = choose(
            scored.confidence[population],
            audited[population],
            right[population],
            min_precision=precision,
            risk=1 - _CONFIDENCE,
        )
        if choice.threshold is None:
            refused += 1
            reachable.append(choice.reachable)
            reached = scored.confidence >= choice.reachable_at
            told_too_high += right[reached].mean() < choice.reachable
            continue
        accepted = scored.confidence >= choice.threshold
        broken += right[accepted].mean() < precision
        rest = accepted & ~audited
        rest_below += bool(rest.any()) and right[rest].mean() < precision
        written_below += right[accepted & ~(audited & ~right)].mean() < precision
        sizes.append(int(accepted.sum()))
    accepted_draws = given.redraws - refused
    return {
        "pairs": len(scored),
        "right": round(float(right.mean()), 3),
        "hindsight": best,
        "refused": refused,
        "accepted": accepted_draws,
        "promise_broken": int(broken),
        "rest_below": int(rest_below),
        "written_below": int(written_below),
        "reachable_mean": round(float(np.mean(reachable)), 3) if reachable else None,
        "reachable_too_high": int(told_too_high),
        "size_mean": round(float(np.mean(sizes))) if sizes else None,
        "of_hindsight": round(float(np.mean(sizes)) / best, 2) if sizes and best else None,
    }


def _in_hindsight(confidence: np.ndarray, right: np.ndarray, precision: float) -> int:
    """Pairs above the lowest threshold whose true precision is high enough."""
    order = np.argsort(-confidence, kind="stable")
    share = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    reached = np.flatnonzero(share >= precision)
    return int(reached[-1]) + 1 if len(reached) else 0


def _measure_estimates(
    given: argparse.Namespace,
    folder: Path,
    scored: Scored,
    right: np.ndarray,
    precisions: list[float],
) -> None:
    probs, truth = score_judgments(
        open_outputs(folder), [given.judgments], corpus=[given.corpus], engines=given.engines
    )
    for precision in precisions:
        for target in np.unique(scored.target).tolist():
            found = estimate(probs[:, target], truth == target, precision)
            row: dict[str, Any] = {"estimate": precision, "target": target}
            row |= {"judged": found.judged, "judged_right": found.right}
            if found.threshold is not None:
                accepted = (scored.target == target) & (scored.confidence >= found.threshold)
                row |= {
                    "threshold": round(found.threshold, 3),
                    "accepted": int(accepted.sum()),
                    "true_precision": round(float(right[accepted].mean()), 3),
                }
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
