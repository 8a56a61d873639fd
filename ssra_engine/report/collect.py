"""All that a report says of a run, as a JSON tree."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ssra_engine.auditing.findings import acceptances_of, audit_of
from ssra_engine.corpus import open_corpus
from ssra_engine.engine_folder import Engines, open_roles, read_engines
from ssra_engine.errors import ConfigError, DataError, EngineError, StoreError
from ssra_engine.evaluation.outputs import Outputs, Part, open_outputs, read_samples
from ssra_engine.evaluation.samples import evaluate_samples
from ssra_engine.keys import normalise
from ssra_engine.reasons import KEPT
from ssra_engine.report.embedder import read_evaluations
from ssra_engine.report.frequent import FrequentTexts
from ssra_engine.report.reservoir import Reservoir
from ssra_engine.report.throughput import throughput
from ssra_engine.schema import DOCUMENT_TEXT_COLUMNS, REASONS

__all__ = ["collect"]

_DEFAULT_ENGINES = Path("engines")
_FREQUENT = 12
_EXCERPT = 240


def collect(
    folder: Path,
    *,
    corpus: Sequence[str] = (),
    engines: Path | None = None,
    embedder: Sequence[str | Path] = (),
    audit: str | Path | None = None,
    accepted: Sequence[str | Path] = (),
    documents: int = 20_000,
    samples: int = 40,
    seed: int = 0,
) -> dict[str, Any]:
    """Collect the figures of a finished run.

    Memory is bounded by `documents` and `samples`, whatever the size of the run, unless there is
    an audit of it or an acceptance, which cost some 50 bytes for each scored query.

    Args:
        folder: output folder.
        corpus: its documents; by default the files that it recorded, and where these cannot be
            read the report goes without diversity and without the documents of its samples.
        engines: what made it; by default ``engines``, if that is what made it.
        embedder: reports of `evaluate model` or `compare`.
        audit: labelled file or folder of an audit; by default ``audit`` or ``audit.csv``, where
            that is a fully labelled one of this run.
        accepted: folders of `accept`; by default ``accepted``, where that is of this run.
        documents: diversity looks at the queries of about this many.
        samples: shown per target grade of the kept ones; of the rejected ones a quarter per reason.
        seed: of the samples shown.

    Returns:
        plain JSON values; a part that is not known is null and ``missing`` says why.

    Raises:
        StoreError: the folder is not the output of a finished run, or a part of it is damaged.
        DataError: `corpus`, `embedder`, `audit` or `accepted` is given and cannot be used.
        EngineError: `engines` is given and is not what made the run.
    """
    outputs = open_outputs(folder)
    manifest, summary = (_read_json(folder / f"{name}.json") for name in ("manifest", "summary"))
    missing: dict[str, str] = {}
    built = _find_engines(outputs, engines, missing)
    frequent = FrequentTexts()
    reservoir = Reservoir((samples, max(1, samples // 4)), seed)
    matrices = [_read_part(part, outputs, frequent, reservoir) for part in outputs.parts]
    varied = _find_samples(outputs, corpus, documents, missing)
    shown = reservoir.rows()
    return {
        "output": folder.resolve().name,
        "targets": list(outputs.config.targets),
        "grades": list(outputs.config.grades),
        "simulated": None if varied is None else varied["simulated"],
        "summary": summary,
        "parts": _funnels(outputs, summary),
        "matrices": matrices,
        "balance": _balance(built, summary, len(outputs.config.grades)),
        "score_model": None if built is None else built.manifest["figures"]["score"],
        "diversity": None if varied is None else varied["diversity"],
        "diversity_documents": None if varied is None else varied["documents"],
        "oracle": None if varied is None else varied["oracle"],
        "frequent": [asdict(one) for one in frequent.top(_FREQUENT) if one.least > 1],
        "throughput": throughput(manifest["records"]),
        "samples": _told(shown, {} if varied is None else _excerpts(outputs, corpus, shown)),
        "audit": audit_of(outputs, audit),
        "accepted": acceptances_of(outputs, accepted),
        "embedder": read_evaluations(embedder),
        "provenance": _provenance(outputs, manifest, built),
        "config": (folder / "config.yaml").read_text(encoding="utf-8"),
        "missing": missing,
    }


def _read_json(path: Path) -> dict[str, Any]:
    try:
        tree: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read: {error}.") from error
    return tree


def _find_engines(outputs: Outputs, given: Path | None, missing: dict[str, str]) -> Engines | None:
    """The engines that made the run; why not, in `missing`, where nobody said which they are."""
    if outputs.engines == "fake":
        missing["engines"] = "This run was made by the fake engine, which is no model."
        return None
    folder = given or _DEFAULT_ENGINES
    try:
        if open_roles(folder, outputs.config).fingerprint != outputs.engines:
            raise EngineError(
                f"{folder}: these are not the engines that made {outputs.folder}, or they were "
                "built anew since. Give those with --engines."
            )
        return read_engines(folder)
    except (ConfigError, EngineError) as error:
        if given is not None:
            raise
        missing["engines"] = f"The engines of this run were not found: give --engines. ({error})"
        return None


def _find_samples(
    outputs: Outputs, corpus: Sequence[str], documents: int, missing: dict[str, str]
) -> dict[str, Any] | None:
    try:
        return evaluate_samples(outputs.folder, corpus, documents=documents)
    except (DataError, StoreError) as error:
        if corpus:
            raise
        missing["corpus"] = f"The documents of this run were not found: give --corpus. ({error})"
        return None


def _read_part(
    part: Part, outputs: Outputs, frequent: FrequentTexts, reservoir: Reservoir
) -> dict[str, Any]:
    """Scored samples by target and predicted grade, before any filter by score."""
    targets, grades = outputs.config.targets, len(outputs.config.grades)
    final = part is outputs.parts[-1]
    counts = np.zeros((len(targets), grades), np.int64)
    for table in read_samples(part):
        scored = table.filter(pc.is_valid(table["grade"]))
        rows = np.searchsorted(targets, scored["target"].to_numpy())
        cells = rows * grades + scored["grade"].to_numpy()
        counts += np.bincount(cells, minlength=counts.size).reshape(counts.shape)
        if final:
            reservoir.add(table)
            queries = normalise(pc.fill_null(table["query"], "").combine_chunks())
            frequent.add(queries.filter(pc.not_equal(queries, "")))
    return {"part": part.name, "model": part.model, "counts": counts.tolist()}


def _funnels(outputs: Outputs, summary: dict[str, Any]) -> list[dict[str, Any]]:
    counts = [*summary["rounds"], summary]
    return [
        {"part": part.name, "model": part.model, "grades": one["grades"], "total": one["total"]}
        for part, one in zip(outputs.parts, counts, strict=True)
    ]


def _balance(built: Engines | None, summary: dict[str, Any], grades: int) -> list[dict[str, Any]]:
    """How many rows each grade has: judged, taught to the query model, and kept at the end."""
    sets = []
    figures = {} if built is None else built.manifest["figures"]
    # Engines of an earlier version hold fewer figures.
    if "train_grades" in figures.get("judgments", {}):
        counts = figures["judgments"]["train_grades"]
        sets.append({"set": "judgments (train)", "counts": counts})
    if "d2q" in figures:
        pairs = zip(*figures["d2q"].values(), strict=True)
        sets.append({"set": "taught to the query model", "counts": [sum(pair) for pair in pairs]})
    kept = [summary["grades"].get(str(grade), {"kept": 0})["kept"] for grade in range(grades)]
    sets.append({"set": "kept queries", "counts": kept})
    return sets


def _excerpts(
    outputs: Outputs, corpus: Sequence[str], shown: list[dict[str, Any]]
) -> dict[str, str]:
    """The first words of the documents of some samples."""
    wanted = pa.array(dict.fromkeys(row["doc_id"] for row in shown), pa.string())
    settings = outputs.config.input
    inputs = list(corpus) or list(outputs.inputs)
    opened = open_corpus(inputs, limit=settings.limit, on_error=settings.on_error)
    found: dict[str, str] = {}
    for batch in opened.batches():
        mine = batch.filter(pc.is_in(batch.column("doc_id"), wanted))
        for row in mine.to_pylist():
            told = " · ".join(row[name] for name in DOCUMENT_TEXT_COLUMNS if row[name])
            found[row["doc_id"]] = told[:_EXCERPT] + ("…" if len(told) > _EXCERPT else "")
        if len(found) == len(wanted):
            break
    return found


def _told(shown: list[dict[str, Any]], documents: dict[str, str]) -> list[dict[str, Any]]:
    rows = []
    for row in shown:
        fate = "kept" if row["reason"] == KEPT else REASONS[row["reason"]]
        sure = None if row["confidence"] is None else round(row["confidence"], 4)
        told = {name: row[name] for name in ("target", "grade", "query", "doc_id")}
        document = documents.get(row["doc_id"])
        rows.append({**told, "fate": fate, "confidence": sure, "document": document})
    return rows


def _provenance(
    outputs: Outputs, manifest: dict[str, Any], built: Engines | None
) -> dict[str, Any]:
    made = None if built is None else built.manifest["fingerprint"]
    files = {}
    for record in manifest["records"]:
        files.update(record.get("files", {}))
    return {
        "version": manifest["fingerprint"]["code"],
        "seed": outputs.config.seed,
        "inputs": list(outputs.inputs),
        "documents": outputs.fingerprint,
        "engines": outputs.engines,
        "backbone": None
        if built is None
        else built.config.model.backbone or f"preset {built.config.model.preset}",
        "judgments": None if made is None else made.get("judgments"),
        "files": [
            {"name": name, **{key: file.get(key) for key in ("rows", "bytes", "xxh3")}}
            for name, file in files.items()
        ],
    }
