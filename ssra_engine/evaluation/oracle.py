"""How often the oracle of a simulated world agrees with the target grade, filter by filter."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ssra_engine.readers import find_sources, read, schema_metadata
from ssra_engine.reasons import KEPT, reason_code
from ssra_engine.simulate import SIMULATED, oracle_grade

__all__ = ["STEPS", "agreement", "oracle_grades", "read_facets", "wilson"]

#: The samples, then what each filter leaves of them.
STEPS = ("generated", "score filter", "pairwise filter", "kept")

_UNPARSED = -1
_Z = 1.959963984540054  # of the normal distribution, two-sided 95 %


def oracle_grades(samples: pa.Table, facets: Mapping[str, Mapping[str, Any]]) -> np.ndarray:
    """True grade of each sample, int8[len(samples)]; -1 where the query cannot be parsed.

    Args:
        samples: rows of `outputs.SAMPLES`.
        facets: of each of their documents.
    """
    known: dict[tuple[str, str], int] = {}
    grades = np.empty(len(samples), np.int8)
    pairs = zip(
        samples.column("query").to_pylist(), samples.column("doc_id").to_pylist(), strict=True
    )
    for row, (query, doc_id) in enumerate(pairs):
        if (query, doc_id) not in known:
            grade = oracle_grade(query or "", {"facets": facets[doc_id]})
            known[query, doc_id] = _UNPARSED if grade is None else grade
        grades[row] = known[query, doc_id]
    return grades


def read_facets(inputs: Sequence[str], wanted: pa.Array) -> dict[str, dict[str, Any]]:
    """Facets of those of the `wanted` doc_ids that are in simulated files."""
    facets: dict[str, dict[str, Any]] = {}
    for source in find_sources(inputs):
        if SIMULATED not in schema_metadata(source):
            continue
        for rows in read(source, None):
            doc_ids = rows.columns["doc_id"]
            mine = pc.is_in(doc_ids, wanted)
            pairs = zip(
                doc_ids.filter(mine).to_pylist(),
                rows.columns["facets"].filter(mine).to_pylist(),
                strict=True,
            )
            facets.update(pairs)
    return facets


def agreement(
    samples: pa.Table, truth: np.ndarray, targets: tuple[int, ...], first_wave: int
) -> list[dict[str, Any]]:
    """Agreement of the oracle with the target, for each of `STEPS` and each target grade.

    `generated` are the samples of the first wave, whatever became of them: a later wave asks only
    where an earlier one failed. The duplicates that only the end of a run takes out, over all
    documents, have passed the pairwise filter.

    Args:
        samples: rows of `outputs.SAMPLES`.
        truth: see `oracle_grades`.
        targets: ascending.
        first_wave: samples asked for at first, per document and target.

    Returns:
        step, target, samples, agree, unparsed, rate (null without samples), low and high (Wilson).
    """
    code = samples.column("reason").to_numpy()
    target = samples.column("target").to_numpy()
    scored = samples.column("grade").is_valid().to_numpy()
    repeated = np.isin(code, [reason_code("duplicate"), reason_code("near_duplicate")])
    ordered = (code == KEPT) | (repeated & scored)
    masks = (
        samples.column("sample").to_numpy() < first_wave,
        ordered | (code == reason_code("pairwise_inconsistent")),
        ordered,
        code == KEPT,
    )
    rows = []
    for step, mask in zip(STEPS, masks, strict=True):
        for grade in targets:
            mine = truth[mask & (target == grade)]
            agree, count = int((mine == grade).sum()), len(mine)
            low, high = wilson(agree, count)
            rows.append(
                {
                    "step": step,
                    "target": grade,
                    "samples": count,
                    "agree": agree,
                    "unparsed": int((mine == _UNPARSED).sum()),
                    "rate": agree / count if count else None,
                    "low": low,
                    "high": high,
                }
            )
    return rows


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson, JASA 1927); (0, 1) without trials."""
    if trials == 0:
        return 0.0, 1.0
    share, z2 = successes / trials, _Z**2
    centre = share + z2 / (2 * trials)
    spread = _Z * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    scale = 1 + z2 / trials
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)
