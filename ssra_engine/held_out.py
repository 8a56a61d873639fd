"""Judgments that no model was trained on, scored by the score model of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ssra_engine.corpus import open_corpus
from ssra_engine.engine_folder import open_roles
from ssra_engine.errors import DataError, EngineError
from ssra_engine.evaluation.outputs import Outputs
from ssra_engine.judgments import read_split
from ssra_engine.roles import Roles, fake_roles
from ssra_engine.schema import CORPUS
from ssra_engine.stages.annotate import d2q_rows, score_requests
from ssra_engine.stages.filter import score

__all__ = ["score_judgments"]


def score_judgments(
    outputs: Outputs,
    judgments: Sequence[str],
    *,
    corpus: Sequence[str] = (),
    engines: str | Path = "engines",
    split: str = "dev",
) -> tuple[np.ndarray, np.ndarray]:
    """Score one split of some judgments as the run scored its samples.

    Args:
        outputs: a finished run.
        judgments: graded pairs.
        corpus: their documents; by default those of the run.
        engines: the engines of the run.
        split: one that the models did not learn from.

    Returns:
        probabilities of each grade float32[N, G], and the judged grade int8[N].

    Raises:
        DataError: an input is bad, or a judged document is not in the corpus.
        EngineError: these are not the engines of the run.
    """
    roles = _roles(outputs, engines)
    judged = read_split(judgments, outputs.config.grades, split, seed=outputs.config.seed)
    documents = _documents(outputs, list(corpus) or list(outputs.inputs), judged["doc_id"])
    texts = roles.template.documents(documents)
    known = pa.table({"doc_id": documents["doc_id"], "document": texts})
    requests = score_requests(
        d2q_rows(judged, known, "judgment"), roles.score_template, len(outputs.config.grades)
    )
    engine = roles.open_score()
    try:
        probs = score(engine, requests, roles.labels, roles.calibration, lambda _: None)
    finally:
        engine.close()
    return probs, judged["grade"].to_numpy()


def _roles(outputs: Outputs, engines: str | Path) -> Roles:
    config = outputs.config
    fake = fake_roles(config.grades, config.filter.comparator)
    if outputs.engines == fake.fingerprint:
        return fake
    roles = open_roles(engines, config)
    if roles.fingerprint != outputs.engines:
        raise EngineError(
            f"{engines}: these are not the engines that made {outputs.folder}, or they were built "
            "anew since. Give those with --engines."
        )
    return roles


def _documents(outputs: Outputs, inputs: Sequence[str], wanted: pa.ChunkedArray) -> pa.Table:
    """The judged documents."""
    settings = outputs.config.input
    batches = open_corpus(inputs, on_error=settings.on_error).batches()
    found = pa.Table.from_batches(
        (batch.filter(pc.is_in(batch.column("doc_id"), wanted)) for batch in batches), CORPUS
    )
    missing = wanted.filter(pc.invert(pc.is_in(wanted, found["doc_id"].combine_chunks())))
    if len(missing):
        raise DataError(
            f"{missing[0].as_py()!r} and {len(missing.unique()) - 1} other judged documents are "
            "not in it",
            file=inputs[0] if inputs else None,
            column="doc_id",
            mend="Give the documents of the judgments with --corpus",
        )
    return found
