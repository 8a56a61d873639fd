"""What an embedder is trained on, as texts: judgments, synthetic queries and hard negatives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from ssra_engine.embedder.settings import TrainSettings
from ssra_engine.embedder.tables import read_hard_negatives, read_synthetic
from ssra_engine.errors import ConfigError, DataError
from ssra_engine.evaluation.embedding import document_texts
from ssra_engine.judgments import read_judgments
from ssra_engine.keys import hash_strings, normalise

__all__ = ["TrainingRows", "read_training_rows"]

_PAIRS = pa.schema([("query", pa.string()), ("doc_id", pa.string()), ("grade", pa.int8())])

#: Draws of a document that is not relevant, before the corpus counts as having none.
_DRAWS = 1000


@dataclass(frozen=True)
class TrainingRows:
    """Rows for the trainer.

    Attributes:
        dataset: query, document, negative_1 .. negative_n (strings) and label (float32).
        counts: how many pairs there are of each grade and source, and what was left out.
    """

    dataset: Dataset
    counts: dict[str, Any] = field(default_factory=dict)


def read_training_rows(
    documents: pa.Table,
    judgments: Sequence[str | Path] | pa.Table,
    grades: Sequence[int],
    settings: TrainSettings,
    *,
    synthetic: Path | None = None,
    negatives: Sequence[str | Path] = (),
) -> TrainingRows:
    """Read the judgments of split train, then synthetic queries, then the negatives of both.

    A synthetic query that the judgments hold out (in any split but train), as it stands or but for
    case, width and white space, is left out; so is a synthetic pair that was judged. Judgments that
    name no dev rows are split with seed 0, as `evaluate model` splits them.

    With a table of negatives, a pair has `settings.negatives` of them, by falling similarity. Those
    that are known to be of its grade or higher are left out, so that a pair of a low grade may be a
    negative beside one of a high grade. Then come `settings.judged_negatives` documents that its
    query has at a lower grade, drawn at random. In the place of those that are missing come random
    documents that are not known to be relevant.

    Args:
        documents: `schema.CORPUS`.
        judgments: as `read_judgments` takes them, or what it gave.
        grades: the scale.
        settings: labels, number of negatives, seed.
        synthetic: see `tables.read_synthetic`; None for none.
        negatives: see `tables.read_hard_negatives`; empty for none.

    Raises:
        DataError: a file or a row is bad, a doc_id is not in `documents`, no negative belongs to
            a pair, or no pair has a label above 0.
        StoreError: the run of `synthetic` has not ended.
        ConfigError: the recipe names a label that no pair has.
    """
    judged = judgments
    if not isinstance(judged, pa.Table):
        judged = read_judgments(judged, grades, doc_ids=documents["doc_id"])
    train = judged.filter(pc.equal(judged["split"], "train"))
    pairs = train.select(_PAIRS.names).cast(_PAIRS)
    counts: dict[str, Any] = {"judgments": _per_grade(pairs, grades)}
    if synthetic is not None:
        made = read_synthetic(synthetic, documents["doc_id"], grades)
        made, left_out = _unseen(made.rename_columns(_PAIRS.names), judged)
        counts["synthetic"] = {**_per_grade(made, grades), **left_out}
        pairs = pa.concat_tables([pairs, made])
    labels = _labels(pairs["grade"].to_numpy(), grades, settings)
    _check_labels(labels, settings)
    texts = document_texts(documents)
    own = pc.index_in(pairs["doc_id"], value_set=documents["doc_id"].combine_chunks())
    columns = {
        "query": pairs["query"].combine_chunks(),
        "document": texts.take(own.combine_chunks()),
    }
    if negatives or settings.judged_negatives:
        mined = None
        if negatives:
            mined = read_hard_negatives(negatives, documents["doc_id"], grades)
        chosen, counts["negatives"] = _choose(mined, pairs, documents["doc_id"], settings)
        for number, column in enumerate(chosen.T, start=1):
            columns[f"negative_{number}"] = texts.take(pa.array(column))
    columns["label"] = pa.array(labels)
    return TrainingRows(Dataset.from_dict(columns), counts)


def _keys(queries: pa.ChunkedArray) -> np.ndarray:
    return hash_strings(normalise(queries.combine_chunks()))


def _per_grade(pairs: pa.Table, grades: Sequence[int]) -> dict[str, int]:
    found = pairs["grade"].to_numpy()
    return {str(grade): int((found == grade).sum()) for grade in grades}


def _unseen(made: pa.Table, judged: pa.Table) -> tuple[pa.Table, dict[str, int]]:
    """Synthetic pairs whose query is not held out, and that nobody judged."""
    held_out = judged.filter(pc.not_equal(judged["split"], "train"))["query"]
    keys = _keys(made["query"])
    leaks = np.isin(keys, _keys(held_out))
    known = set(zip(_keys(judged["query"]).tolist(), judged["doc_id"].to_pylist(), strict=True))
    pairs = zip(keys.tolist(), made["doc_id"].to_pylist(), strict=True)
    repeats = np.fromiter((pair in known for pair in pairs), bool, len(made)) & ~leaks
    kept = made.filter(pa.array(~leaks & ~repeats))
    counts = {"of held-out queries": int(leaks.sum()), "judged already": int(repeats.sum())}
    return kept.cast(_PAIRS), counts


def _labels(grades: np.ndarray, scale: Sequence[int], settings: TrainSettings) -> np.ndarray:
    if not settings.binary_labels:
        return grades.astype(np.float32)
    relevant = (max(scale) + 1) // 2 if settings.relevant is None else settings.relevant
    return (grades >= relevant).astype(np.float32)


def _check_labels(labels: np.ndarray, settings: TrainSettings) -> None:
    found = np.unique(labels)
    if not (found > 0).any():
        raise DataError(
            "no pair to train on has a label above 0",
            mend="Give pairs that match, or a lower --relevant",
        )
    for label in settings.recipe or {}:
        if label not in found:
            shown = ", ".join(f"{one:g}" for one in found)
            raise ConfigError(f"recipe: no pair has the label {label}; the labels are {shown}.")


def _choose(
    mined: pa.Table | None, pairs: pa.Table, doc_ids: pa.ChunkedArray, settings: TrainSettings
) -> tuple[np.ndarray, dict[str, int]]:
    """Rows of documents, int64[len(pairs), negatives of a pair], and where they came from."""
    corpus = doc_ids.combine_chunks()
    queries = _keys(pairs["query"]).tolist()
    own = pc.index_in(pairs["doc_id"], value_set=corpus).to_numpy().tolist()
    of_query: dict[int, dict[int, int]] = {}
    for query, document, grade in zip(queries, own, pairs["grade"].to_pylist(), strict=True):
        of_query.setdefault(query, {})[document] = grade
    found, counts = ({}, {}) if mined is None else _of_pairs(mined, corpus, of_query)
    counts |= {"random in their place": 0}
    if settings.judged_negatives:
        counts["judged"] = 0
    width = settings.judged_negatives + (0 if mined is None else settings.negatives)
    generator = np.random.default_rng(settings.seed)
    chosen = np.empty((len(pairs), width), np.int64)
    for row, (query, document) in enumerate(zip(queries, own, strict=True)):
        known = of_query[query]
        best = found.get((query, document), [])[: settings.negatives]
        if settings.judged_negatives:
            lower = [one for one in known if known[one] < known[document] and one not in best]
            drawn = generator.permutation(lower)[: settings.judged_negatives].tolist()
            counts["judged"] += len(drawn)
            best = [*best, *map(int, drawn)]
        barred = {document, *best, *(one for one in known if known[one] > 0)}
        while len(best) < width:
            best = [*best, _draw(generator, len(corpus), barred)]
            counts["random in their place"] += 1
        chosen[row] = best
    return chosen, counts


def _of_pairs(
    mined: pa.Table,
    corpus: pa.Array,
    of_query: Mapping[int, Mapping[int, int]],
) -> tuple[dict[tuple[int, int], list[int]], dict[str, int]]:
    """Usable negatives of each (query key, document), by falling score.

    Args:
        mined: `HARD_NEGATIVES`.
        corpus: string, every doc_id.
        of_query: query key -> row of a document -> its grade.
    """
    scores = pc.fill_null(mined["score"], -np.inf).to_numpy()
    mined = mined.take(pa.array(np.argsort(-scores, kind="stable")))
    columns = zip(
        _keys(mined["query"]).tolist(),
        pc.index_in(mined["doc_id"], value_set=corpus).to_pylist(),
        pc.index_in(mined["negative_id"], value_set=corpus).to_pylist(),
        mined["negative_grade"].to_pylist(),
        strict=True,
    )
    found: dict[tuple[int, int], list[int]] = {}
    used = strange = too_good = 0
    for query, document, negative, grade in columns:
        grades = of_query.get(query, {})
        of_pair = grades.get(document)
        known = grades.get(negative, grade)
        if of_pair is None:
            strange += 1
        elif known is not None and known >= of_pair:
            too_good += 1
        elif negative not in found.setdefault((query, document), []):
            used += 1
            found[query, document].append(negative)
    if not used:
        raise DataError(
            f"none of the {len(mined)} negatives can be used: {strange} belong to no pair that is "
            f"trained on, {too_good} are relevant",
            mend="Mine negatives for the same judgments and synthetic queries",
        )
    return found, {
        "usable": used,
        "of other pairs": strange,
        "relevant": too_good,
        "pairs with one": sum(1 for one in found.values() if one),
    }


def _draw(generator: np.random.Generator, documents: int, barred: set[int]) -> int:
    for _ in range(_DRAWS):
        row = int(generator.integers(documents))
        if row not in barred:
            barred.add(row)
            return row
    raise DataError(
        f"hardly any of the {documents} documents is not relevant to some query",
        mend="Give the whole corpus, ask for fewer --negatives-per-pair, or leave out --negatives",
    )
