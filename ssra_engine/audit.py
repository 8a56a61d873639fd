"""The audit of a run: a random sample of its scored pairs, labelled blindly and read back.

The rows say nothing of the target, the grade or the score. Which rows are drawn follows from the
run and the draw (`Draw`), which every row names; so a row that was left out, added or taken from
another run is noticed when the labels come back.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ssra_engine.corpus import open_corpus
from ssra_engine.durable import put_file
from ssra_engine.errors import ConfigError, DataError
from ssra_engine.evaluation.oracle import oracle_grades, read_facets
from ssra_engine.evaluation.outputs import Outputs, document_files, open_outputs
from ssra_engine.keys import mix
from ssra_engine.readers import Source, check_columns, checked_cells, find_sources, read
from ssra_engine.schema import DOCUMENT_TEXT_COLUMNS
from ssra_engine.scored import Scored, read_scored, take_rows
from ssra_engine.stages.accept import surest

__all__ = [
    "LABELLED",
    "NO_GRADE",
    "AuditReport",
    "Audited",
    "Draw",
    "documents_of",
    "draw_audit",
    "drawn",
    "open_run",
    "read_audit",
    "read_labels",
    "sample_keys",
]

#: Label of a query that has no grade: nobody can tell what it asks for. It counts as wrong.
NO_GRADE = "-"

#: In the folder of an audit page, the labels that `read_audit` reads.
LABELLED = "audit.parquet"

_COLUMNS = ("query", "doc_id", *DOCUMENT_TEXT_COLUMNS, "label", "sample_key", "draw")
_DRAW = re.compile(r"(\d+) per grade of the surest (\d*\.?\d+(?:e-\d+)?), seed (\d+)")
_WHOLE = re.compile(r"\d+(\.0*)?")
_ORACLE_SCALE = (0, 1, 2, 3)
# Tells the hashes of audits from those of other uses of a sample's seed.
_SALT = 0xA0D17


@dataclass(frozen=True)
class Draw:
    """How an audit is drawn.

    Attributes:
        per_grade: samples of each target grade, or all where there are fewer.
        seed: of the draw.
        surest: share of the samples of each target to draw from, the surest ones. A threshold
            below theirs cannot be chosen, and the others get more labels.
    """

    per_grade: int
    seed: int
    surest: float = 1.0

    def __str__(self) -> str:
        return f"{self.per_grade} per grade of the surest {self.surest!r}, seed {self.seed}"


@dataclass(frozen=True)
class AuditReport:
    """What was drawn: the file, samples drawn of each target, and whether the oracle labelled."""

    file: Path
    drawn: dict[int, int]
    labelled: bool


@dataclass(frozen=True)
class Audited:
    """Labels that came back.

    Attributes:
        draw: how the samples were drawn.
        population: which of the scored samples it drew from, bool[N].
        audited: which were drawn, bool[N].
        label: label of those, -1 where the query has no grade, int8[N].
        right: which of those have their target as the label, bool[N].
    """

    draw: Draw
    population: np.ndarray
    audited: np.ndarray
    label: np.ndarray
    right: np.ndarray


def draw_audit(
    folder: str | Path,
    draw: Draw,
    file: str | Path,
    *,
    corpus: Sequence[str] = (),
    oracle: bool = False,
) -> AuditReport:
    """Draw an audit of a finished run and write it as CSV, in an order that tells nothing.

    Args:
        folder: output folder of the run.
        draw: how many, and which.
        file: the CSV; one that is there is never replaced, it may hold labels.
        corpus: the documents of the run; by default the files that it recorded.
        oracle: fill in the labels by the oracle of the simulated world.

    Raises:
        StoreError: the folder is not the output of a finished run, or the file cannot be written.
        DataError: the corpus cannot be read, or is not the one of the run.
        ConfigError: the file is there, or the oracle cannot grade this run.
    """
    file = Path(file)
    if file.exists():
        raise ConfigError(f"{file}: it is there and may hold labels. Give another --output.")
    outputs, inputs = open_run(folder, corpus)
    scored = read_scored(outputs)
    chosen = drawn(scored, draw)[1]
    table = pa.concat_tables(take_rows(outputs, scored.row[chosen]))
    labels = _oracle_labels(outputs, inputs, table) if oracle else [""] * len(table)
    put_file(file, _csv(_rows(outputs, inputs, table, labels, draw)))
    targets = scored.target[chosen]
    counts = {grade: int((targets == grade).sum()) for grade in outputs.config.targets}
    return AuditReport(file, counts, oracle)


def open_run(folder: str | Path, corpus: Sequence[str] = ()) -> tuple[Outputs, list[str]]:
    """A finished run and the files of its documents.

    Raises:
        StoreError: the folder is not the output of a finished run, or its documents are not known.
        DataError: the corpus cannot be read, or is not the one of the run.
    """
    outputs = open_outputs(Path(folder))
    return outputs, list(document_files(outputs, corpus))


def drawn(scored: Scored, draw: Draw) -> tuple[np.ndarray, np.ndarray]:
    """What an audit draws from, and what it draws.

    Of each target the samples whose hash under the draw's seed is lowest: a choice without
    replacement that depends on neither labels nor the order of the output.

    Returns:
        population bool[len(scored)], drawn bool[len(scored)].
    """
    population, chosen = np.zeros((2, len(scored)), bool)
    rank = mix(scored.seed, draw.seed, _SALT)
    for target in np.unique(scored.target):
        rows = np.flatnonzero(scored.target == target)
        rows = rows[surest(scored.confidence[rows], draw.surest)]
        population[rows] = True
        chosen[rows[np.argsort(rank[rows], kind="stable")[: draw.per_grade]]] = True
    return population, chosen


def read_audit(file: str | Path, scored: Scored, grades: Sequence[int]) -> Audited:
    """Read the labels of an audit and join them with the samples they are of.

    Args:
        file: as `draw_audit` wrote it, in any supported format, with every label filled in: a
            grade, or "-" for a query that has none; or the folder of an audit page.
        scored: samples of the run.
        grades: the scale.

    Raises:
        DataError: a label is missing or not on the scale; a row is given twice, is missing, or is
            not of this run and draw.
    """
    source = _one_source(file)
    cells, places = _read_cells(source, ("label", "sample_key", "draw"))
    draw = _one_draw(source, cells["draw"], places)
    population, chosen = drawn(scored, draw)
    rows = np.flatnonzero(chosen)
    expected = dict(zip(sample_keys(scored.seed[rows], draw), rows.tolist(), strict=True))
    given = np.full(len(scored), -1, np.int8)
    labels = zip(cells["sample_key"], cells["label"], places.tolist(), strict=True)
    for key, label, place in labels:
        if key not in expected:
            raise source.error(
                f"{key!r} was not drawn from this run, or stands here twice",
                "Give the file that `ssra-engine audit` wrote for this run, one label a row",
                column="sample_key",
                place=place,
            )
        given[expected.pop(key)] = _label(source, label, place, grades)
    if expected:
        raise source.error(
            f"{len(expected)} of the {len(rows)} rows that were drawn are missing",
            f"Label every row that was drawn; write {NO_GRADE} where a query has no grade",
        )
    return Audited(draw, population, chosen, given, chosen & (given == scored.target))


def read_labels(
    files: Sequence[str | Path], grades: Sequence[int], doc_ids: pa.Array | pa.ChunkedArray
) -> pa.Table:
    """Read what audits say of their pairs, to learn from it.

    That needs no whole draw: rows may be missing, and one without a label is left out. A pair that
    was labelled several times keeps its first label.

    Args:
        files: as for `read_audit`, of any runs.
        grades: the scale.
        doc_ids: string, every known document.

    Returns:
        query, doc_id: string; label: int8, -1 where the query has no grade.

    Raises:
        DataError: a label is not on the scale, or a document is not known.
    """
    known = set(doc_ids.to_pylist())
    labels: dict[tuple[str, str], int] = {}
    for source in map(_one_source, files):
        cells, places = _read_cells(source, ("query", "doc_id", "label"))
        for query, doc_id, label, place in zip(*cells.values(), places.tolist(), strict=True):
            if doc_id not in known:
                raise source.error(
                    f"{doc_id!r} is not in the corpus",
                    "Give the documents of the audited run too",
                    column="doc_id",
                    place=place,
                )
            if label:
                labels.setdefault((query, doc_id), _label(source, label, place, grades))
    queries, documents = zip(*labels, strict=True) if labels else ((), ())
    return pa.table(
        {
            "query": pa.array(queries, pa.string()),
            "doc_id": pa.array(documents, pa.string()),
            "label": pa.array(labels.values(), pa.int8()),
        }
    )


def sample_keys(seeds: np.ndarray, draw: Draw) -> list[str]:
    """Names of samples that tell nothing of them; to sort by them is to shuffle."""
    keys = mix(seeds, draw.seed, _SALT + 1)
    return [f"{key:016x}" for key in keys.tolist()]


def _rows(
    outputs: Outputs, inputs: Sequence[str], table: pa.Table, labels: list[str], draw: Draw
) -> list[dict[str, Any]]:
    documents = documents_of(outputs, inputs, table.column("doc_id").unique())
    keys = sample_keys(table.column("seed").to_numpy(), draw)
    pairs = zip(
        table.column("query").to_pylist(),
        table.column("doc_id").to_pylist(),
        labels,
        keys,
        strict=True,
    )
    rows = [
        {"query": query, **documents[doc_id], "label": label, "sample_key": key, "draw": str(draw)}
        for query, doc_id, label, key in pairs
    ]
    return sorted(rows, key=lambda row: str(row["sample_key"]))


def documents_of(
    outputs: Outputs, inputs: Sequence[str], wanted: pa.Array | pa.ChunkedArray
) -> dict[str, dict[str, str]]:
    """Some documents of a run, rows of `schema.CORPUS` by their doc_id."""
    settings = outputs.config.input
    corpus = open_corpus(inputs, limit=settings.limit, on_error=settings.on_error)
    found: dict[str, dict[str, str]] = {}
    for batch in corpus.batches():
        mine = batch.filter(pc.is_in(batch.column("doc_id"), wanted))
        found.update((row["doc_id"], row) for row in mine.to_pylist())
    return found


def _oracle_labels(outputs: Outputs, inputs: Sequence[str], table: pa.Table) -> list[str]:
    facets = read_facets(inputs, table.column("doc_id").unique())
    known = all(doc_id in facets for doc_id in table.column("doc_id").to_pylist())
    if not known or outputs.config.grades != _ORACLE_SCALE:
        raise ConfigError(
            f"{outputs.folder}: the oracle grades simulated documents only, 0 to 3. Leave out "
            "--oracle and label by hand."
        )
    return [NO_GRADE if grade < 0 else str(grade) for grade in oracle_grades(table, facets)]


def _csv(rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    # With the mark, spreadsheets read other scripts than Latin.
    return text.getvalue().encode("utf-8-sig")


def _one_source(file: str | Path) -> Source:
    labelled = Path(file) / LABELLED
    sources = find_sources([labelled if labelled.is_file() else file])
    if len(sources) > 1:
        raise DataError("an audit is one file", file=str(file), mend="Give the file itself")
    return sources[0]


def _read_cells(source: Source, names: Sequence[str]) -> tuple[dict[str, list[str]], np.ndarray]:
    """Some columns, a null as an empty text, and where the rows stand."""
    check_columns(source, names)
    cells: dict[str, list[str]] = {name: [] for name in names}
    places = [np.empty(0, np.int64)]
    for rows in read(source, dict.fromkeys(names, "text")):
        texts, faults = checked_cells(source, rows, names)
        for bad in sorted([*rows.bad, *faults.values()], key=lambda row: row.place):
            raise source.error(bad.problem, bad.mend, column=bad.column, place=bad.place)
        for name, column in texts.items():
            cells[name] += pc.utf8_trim_whitespace(pc.fill_null(column, "")).to_pylist()
        places.append(rows.places)
    return cells, np.concatenate(places)


def _one_draw(source: Source, cells: list[str], places: np.ndarray) -> Draw:
    for text, place in zip(cells, places.tolist(), strict=True):
        if text != cells[0] or not _DRAW.fullmatch(text):
            raise source.error(
                f"{text!r} is not the draw of this audit",
                "Leave the column as `ssra-engine audit` wrote it, with one draw in one file",
                column="draw",
                place=place,
            )
    if not cells:
        raise source.error("there are no rows", "Give the file that `ssra-engine audit` wrote")
    parts = _DRAW.fullmatch(cells[0])
    assert parts is not None
    return Draw(int(parts[1]), int(parts[3]), float(parts[2]))


def _label(source: Source, label: str, place: int, grades: Sequence[int]) -> int:
    """The grade, or -1 where the query has none."""
    if label == NO_GRADE:
        return -1
    if _WHOLE.fullmatch(label) and int(float(label)) in grades:
        return int(float(label))
    scale = ", ".join(map(str, grades))
    raise source.error(
        f"{label!r} is not one of the grades {scale}" if label else "the label is missing",
        f"Write a grade, or {NO_GRADE} where the query has none",
        column="label",
        place=place,
    )
