"""The checked input of a build: judgments by split, and pairs that leak no held-out query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ssra_engine.audit import read_labels
from ssra_engine.config import Config
from ssra_engine.corpus import Corpus
from ssra_engine.errors import DataError
from ssra_engine.judgments import read_judgments, read_pairs
from ssra_engine.keys import hash_strings, mix, normalise
from ssra_engine.prompts import TEMPLATES
from ssra_engine.schema import D2Q, PAIRS
from ssra_engine.stages.annotate import d2q_rows

__all__ = ["BuildData", "read_data", "template_name"]


@dataclass(frozen=True)
class BuildData:
    """Checked input: prompt text of every document, judged rows by split, unlabelled pairs.

    `pairs` are those whose query is not held out: what is learned from a pair must not know the
    queries that are to be measured on. `rationales` are those of the train rows. `audited` of the
    train rows are from audits; so are the rows of `unclear`, whose queries have no grade.
    """

    documents: pa.Table
    train: pa.Table
    held_out: pa.Table
    pairs: pa.Table
    pairs_of_held_out_queries: int
    rationales: list[str | None] | None = None
    audited: int = 0
    unclear: pa.Table = field(default_factory=D2Q.empty_table)


def template_name(config: Config) -> str:
    """Name of the prompt family that the models are trained with."""
    return config.model.prompts or ("plain" if config.model.preset else "instruct")


def read_data(
    config: Config,
    opened: Corpus,
    judgments: Sequence[str | Path],
    pairs: Sequence[str | Path],
    audits: Sequence[str | Path] = (),
) -> BuildData:
    """Read and check what a build is given.

    Raises:
        DataError: an input is bad; see `read_judgments`, `read_pairs`, `audit.read_labels` and
            `open_corpus`.
    """
    opened.check()
    table = opened.table()
    texts = TEMPLATES[template_name(config)].documents(table)
    documents = pa.table({"doc_id": table["doc_id"], "document": texts})
    judged = read_judgments(
        judgments, config.grades, doc_ids=table["doc_id"], seed=config.seed, rationales=True
    )
    unlabelled = read_pairs(pairs, doc_ids=table["doc_id"]) if pairs else PAIRS.empty_table()
    by_split = [
        d2q_rows(judged.filter(pc.equal(judged["split"], split)), documents, "judgment")
        for split in ("train", "dev")
    ]
    held_out = _query_keys(judged.filter(pc.not_equal(judged["split"], "train"))["query"])
    leaks = np.isin(_query_keys(unlabelled["query"]), held_out)
    usable = unlabelled.filter(pa.array(~leaks))
    graded, unclear = _audited(config, audits, documents, judged, held_out)
    rationales = _train_rationales(config, judged, judgments)
    return BuildData(
        documents,
        pa.concat_tables([by_split[0], graded]),
        by_split[1],
        usable,
        int(leaks.sum()),
        None if rationales is None else rationales + [None] * len(graded),
        len(graded),
        unclear,
    )


def _audited(
    config: Config,
    audits: Sequence[str | Path],
    documents: pa.Table,
    judged: pa.Table,
    held_out: np.ndarray,
) -> tuple[pa.Table, pa.Table]:
    """What audits teach: rows with a grade and rows without one, `schema.D2Q`.

    Neither a query that is held out is learned from, nor is a judged pair learned twice.
    """
    labels = read_labels(audits, config.grades, documents["doc_id"])
    known = np.isin(_pair_keys(labels), _pair_keys(judged))
    known |= np.isin(_query_keys(labels["query"]), held_out)
    labels = labels.filter(pa.array(~known)).rename_columns(["query", "doc_id", "grade"])
    clear = pc.greater_equal(labels["grade"], 0)
    return (
        d2q_rows(labels.filter(clear), documents, "judgment"),
        d2q_rows(labels.filter(pc.invert(clear)), documents, "judgment"),
    )


def _train_rationales(
    config: Config, judged: pa.Table, judgments: Sequence[str | Path]
) -> list[str | None] | None:
    if config.model.rationales == "none":
        return None
    found: list[str | None] = judged.filter(pc.equal(judged["split"], "train"))[
        "rationale"
    ].to_pylist()
    if not any(found):
        raise DataError(
            "no train judgment has a rationale",
            file=str(judgments[0]),
            column="rationale",
            mend="Let `ssra-engine rationale` write them, or leave out --rationales",
        )
    return found


def _query_keys(queries: pa.ChunkedArray) -> np.ndarray:
    return hash_strings(normalise(queries.combine_chunks()))


def _pair_keys(rows: pa.Table) -> np.ndarray:
    return mix(_query_keys(rows["query"]), hash_strings(rows["doc_id"].combine_chunks()))
