"""`ssra-engine mine`: files in, a table of hard negatives out, made once.

    corpus, judgments, samples of a run -> embedding model -> candidates -> score model -> negatives

What was made, and of what, stands in the metadata of the table's schema under `METADATA`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ssra_engine import __version__
from ssra_engine.content import content_key
from ssra_engine.corpus import Corpus, open_corpus
from ssra_engine.durable import put_file
from ssra_engine.embedder.tables import read_synthetic, synthetic_folder
from ssra_engine.errors import ConfigError, StoreError
from ssra_engine.evaluation.embedding import load_model
from ssra_engine.judgments import read_split
from ssra_engine.keys import hash_strings, mix, normalise
from ssra_engine.negatives.embedding import Embedding
from ssra_engine.negatives.score_model import ScoreModel
from ssra_engine.negatives.settings import Settings
from ssra_engine.negatives.slices import SlicedModel
from ssra_engine.negatives.tables import mine_negatives
from ssra_engine.readers import files_key
from ssra_engine.roles import Roles
from ssra_engine.schema import ANNOTATED, JUDGMENTS
from ssra_engine.steps import NoProgress, Progress

__all__ = ["METADATA", "RELEVANT", "MineReport", "MineTask", "mine_to_file"]

#: Key, in the schema's metadata, of a JSON tree: `made_of`, what the rows follow from, and
#: `figures`.
METADATA = b"ssra_engine.mine"

#: Pairs that were mined as negatives and are none: judgments by the score model.
RELEVANT = pa.schema([*JUDGMENTS, ANNOTATED.field("probs"), ANNOTATED.field("source")])

_SUFFIXES = (".parquet", ".arrow")
_PAIR = ["query", "doc_id", "grade"]


@dataclass(frozen=True)
class MineTask:
    """What to mine, where from and where to.

    Attributes:
        corpus: files of documents.
        judgments: files of judgments.
        model: folder of a sentence-transformers model.
        output: file that gets `schema.NEGATIVES`; its suffix says in which format.
        settings: which candidates become negatives.
        synthetic: output folder of `run` or `accept`, whose samples are pairs too.
        relevant: file that gets `RELEVANT`; needs a score model.
        split: of the judgments to mine for, or "all".
        grades: the scale.
        query_prompt: in place of the model's own.
        document_prompt: the same for documents.
        batch_size: texts of one forward pass.
        cache: folder that keeps the vectors.
        seed: of draws.
    """

    corpus: Sequence[str]
    judgments: Sequence[str]
    model: Path
    output: Path
    settings: Settings
    synthetic: Path | None = None
    relevant: Path | None = None
    split: str = "train"
    grades: tuple[int, ...] = (0, 1, 2, 3)
    query_prompt: str | None = None
    document_prompt: str | None = None
    batch_size: int = 32
    cache: Path | None = None
    seed: int = 0


@dataclass(frozen=True)
class MineReport:
    """How mining ended.

    Attributes:
        figures: counts, plain JSON values.
        did_nothing: the files were there already, made of the same data and settings.
    """

    figures: dict[str, Any]
    did_nothing: bool


def mine_to_file(
    task: MineTask, roles: Roles | None = None, progress: Progress | None = None
) -> MineReport:
    """Mine hard negatives of every pair of grade 1 or higher, and write them durably.

    Memory: texts and vectors of the corpus, and what `mine_hard_negatives` needs.

    Args:
        task: see there. The same data, models and settings again: nothing is done. Others: the
            files are made anew, and replaced when the new ones are whole.
        roles: whose score model grades each candidate before it is chosen; one that it calls as
            relevant as the positive, or more, gives way to the next.
        progress: told of each step.

    Raises:
        ConfigError: a setting is wrong.
        DataError: a file or a row is bad, a document is not in the corpus, or no row is in the
            split.
        EngineError: a model cannot be opened, or gives NaN.
        StoreError: an output is something else, or cannot be written.
    """
    steps = progress or NoProgress()
    outputs = _check_outputs(task, roles)
    steps.begin("read the data", 0, 0)
    opened = open_corpus(task.corpus)
    opened.check()
    made_of = _made_of(task, opened, roles)
    there = [_read_metadata(path) for path in outputs]
    if all(one is not None and one["made_of"] == made_of for one in there):
        assert there[0] is not None
        return MineReport(there[0]["figures"], did_nothing=True)
    documents = opened.table()
    pairs = _read_pairs(task, documents["doc_id"])
    mined, scorer = _mine(task, pairs, documents, roles, steps)
    figures = _figures(mined, pairs, documents)
    relevant = RELEVANT.empty_table()
    if scorer is not None:
        relevant = _relevant(scorer.found, pairs, task)
        figures["graded"] = scorer.graded
        figures["relevant"] = _counts(relevant["grade"])
    metadata = {METADATA: json.dumps({"made_of": made_of, "figures": figures}).encode()}
    # The negatives last: where they are, all is.
    if task.relevant is not None:
        _write(task.relevant, relevant.replace_schema_metadata(metadata))
    _write(task.output, mined.replace_schema_metadata(metadata))
    return MineReport(figures, did_nothing=False)


def _mine(
    task: MineTask, pairs: pa.Table, documents: pa.Table, roles: Roles | None, steps: Progress
) -> tuple[pa.Table, ScoreModel | None]:
    """`schema.NEGATIVES`, and the score model, closed, with what it graded."""
    how = Embedding(
        batch_size=task.batch_size,
        query_prompt=task.query_prompt,
        corpus_prompt=task.document_prompt,
        cache_folder=None if task.cache is None else str(task.cache / content_key(task.model)),
    )
    model = SlicedModel(load_model(task.model), steps)
    if roles is None:
        return mine_negatives(pairs, documents, model, task.settings, how, seed=task.seed), None
    with closing(ScoreModel(roles, documents, steps)) as scorer:
        mined = mine_negatives(
            pairs, documents, model, task.settings, how, grader=scorer, seed=task.seed
        )
        return mined, scorer


def _check_outputs(task: MineTask, roles: Roles | None) -> list[Path]:
    outputs = [task.output] if task.relevant is None else [task.output, task.relevant]
    for path in outputs:
        if path.suffix not in _SUFFIXES:
            raise ConfigError(f"{path}: the name must end with {' or '.join(_SUFFIXES)}.")
    if task.relevant is not None and roles is None:
        raise ConfigError("Only a score model can tell relevant documents. Add --engines.")
    if task.relevant is not None and task.relevant.resolve() == task.output.resolve():
        raise ConfigError(f"{task.output}: negatives and relevant pairs need a file each.")
    return outputs


def _made_of(task: MineTask, opened: Corpus, roles: Roles | None) -> dict[str, Any]:
    """All that the rows follow from, as plain JSON values."""
    return {
        "version": __version__,
        "corpus": opened.fingerprint(),
        "judgments": files_key(task.judgments),
        "synthetic": ""
        if task.synthetic is None
        else files_key([synthetic_folder(task.synthetic)]),
        "model": content_key(task.model),
        "engines": "" if roles is None else roles.fingerprint,
        "settings": asdict(task.settings),
        "prompts": [task.query_prompt, task.document_prompt],
        "split": task.split,
        "grades": list(task.grades),
        "seed": task.seed,
    }


def _read_pairs(task: MineTask, doc_ids: pa.ChunkedArray) -> pa.Table:
    """Query, doc_id and grade: of judgments, and of samples that nobody judged or holds out."""
    # Always the seed 0, as in training: what is held out there must not be mined here.
    told = {"doc_ids": doc_ids, "seed": 0}
    judged = read_split(task.judgments, task.grades, task.split, **told).select(_PAIR)
    if task.synthetic is None:
        return judged
    every = read_split(task.judgments, task.grades, "all", **told)
    held_out = np.setdiff1d(_keys(every["query"]), _keys(judged["query"]))
    samples = read_synthetic(task.synthetic, doc_ids, task.grades)
    samples = samples.rename_columns(_PAIR).cast(judged.schema)
    judged_already = np.isin(_pair_keys(samples), _pair_keys(every))
    fresh = ~np.isin(_keys(samples["query"]), held_out) & ~judged_already
    return pa.concat_tables([judged, samples.filter(pa.array(fresh))])


def _keys(queries: pa.ChunkedArray) -> npt.NDArray[np.uint64]:
    return hash_strings(normalise(queries.combine_chunks()))


def _pair_keys(pairs: pa.Table) -> npt.NDArray[np.uint64]:
    return mix(_keys(pairs["query"]), hash_strings(pairs["doc_id"].combine_chunks()))


def _relevant(graded: pa.Table, pairs: pa.Table, task: MineTask) -> pa.Table:
    """What the score model calls as relevant as some positive of the query, as `RELEVANT`."""
    best = pairs.group_by(["query", "doc_id"], use_threads=False).aggregate([("grade", "max")])
    positive = best.filter(pc.greater(best["grade_max"], 0))
    lowest = positive.group_by("query", use_threads=False).aggregate([("grade_max", "min")])
    place = pc.index_in(graded["query"], value_set=lowest["query"].combine_chunks())
    found = graded.filter(pc.greater_equal(graded["grade"], lowest["grade_max_min"].take(place)))
    split = "train" if task.split == "all" else task.split
    found = found.append_column("split", pa.array([split] * len(found), pa.string()))
    found = found.sort_by([("query", "ascending"), ("doc_id", "ascending")])
    return found.select(RELEVANT.names).cast(RELEVANT)


def _figures(mined: pa.Table, pairs: pa.Table, documents: pa.Table) -> dict[str, Any]:
    grades = pc.list_flatten(mined["negative_grades"])
    return {
        "documents": len(documents),
        "pairs": {"given": _counts(pairs["grade"]), "with_negatives": len(mined)},
        "negatives": {"all": len(grades), "of_grade": _counts(grades)},
    }


def _counts(grades: pa.ChunkedArray) -> dict[str, int]:
    """Rows of each grade; those without one are unknown."""
    counted = {str(one["values"]): one["counts"] for one in pc.value_counts(grades).to_pylist()}
    if "None" in counted:
        counted["unknown"] = counted.pop("None")
    return dict(sorted(counted.items()))


def _write(path: Path, table: pa.Table) -> None:
    sink = pa.BufferOutputStream()
    if path.suffix == ".parquet":
        pq.write_table(table, sink, compression="zstd")
    else:
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    put_file(path, sink.getvalue())


def _read_metadata(path: Path) -> dict[str, Any] | None:
    """What an earlier run wrote about itself; None where there is no file.

    Raises:
        StoreError: the file is none of ours.
    """
    if not path.exists():
        return None
    try:
        if path.suffix == ".parquet":
            schema = pq.read_schema(path)
        else:
            with pa.memory_map(str(path)) as source:
                schema = pa.ipc.open_file(source).schema
        tree: dict[str, Any] = json.loads((schema.metadata or {})[METADATA])
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        raise StoreError(
            f"{path}: not written by `ssra-engine mine`, and left as it is. Give another name."
        ) from error
    return tree
