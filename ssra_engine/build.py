"""Stage 1: from judgments to a score model and a query model, in one engines folder.

    judgments -> score model -> grades for the unlabelled pairs -> query model

The folder holds ``score/`` and ``query/`` (plain safetensors folders that any backend opens, LoRA
merged), ``d2q.arrow`` (what the query model learned from, `schema.D2Q`), ``config.yaml`` and
``manifest.json``, and appears whole or not at all.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ssra_engine import __version__
from ssra_engine.calibration import Calibration
from ssra_engine.config import Config
from ssra_engine.corpus import Corpus, open_corpus
from ssra_engine.durable import locked, put_folder, remove, writing
from ssra_engine.engine_folder import (
    MANIFEST,
    Engines,
    content_key,
    engine_options,
    read_d2q,
    read_engines,
)
from ssra_engine.engines import BACKENDS, check_backend
from ssra_engine.errors import ConfigError, StoreError
from ssra_engine.judgments import read_judgments, read_pairs
from ssra_engine.keys import hash_strings, normalise
from ssra_engine.prompts import TEMPLATES
from ssra_engine.readers import files_key
from ssra_engine.schema import D2Q, PAIRS
from ssra_engine.stages.annotate import annotated, d2q_rows, score_requests, training_data
from ssra_engine.stages.filter import score
from ssra_engine.steps import NoProgress, Progress

if TYPE_CHECKING:
    from ssra_engine.models.questions import QuestionEncoder

__all__ = ["BuildReport", "build"]


@dataclass(frozen=True)
class BuildReport:
    """How a build ended.

    Attributes:
        output: the engines folder.
        figures: what the manifest holds of the data, the score model's quality and the training.
        did_nothing: the folder was there already, made of the same data and settings.
    """

    output: Path
    figures: dict[str, Any]
    did_nothing: bool


@dataclass(frozen=True)
class _Data:
    """Checked input: prompt text of every document, judged rows by split, unlabelled pairs.

    `pairs` are those whose query is not held out: what is learned from a pair must not know the
    queries that are to be measured on.
    """

    documents: pa.Table
    train: pa.Table
    held_out: pa.Table
    pairs: pa.Table
    pairs_of_held_out_queries: int


def build(
    config: Config,
    *,
    corpus: Sequence[str | Path],
    judgments: Sequence[str | Path],
    pairs: Sequence[str | Path] = (),
    output: str | Path,
    progress: Progress | None = None,
) -> BuildReport:
    """Train the score model, grade the pairs with it, and train the query model.

    Args:
        config: the tree; `model` says which backbone.
        corpus: documents; see `open_corpus`.
        judgments: graded rows; only those of split ``train`` are trained on, ``dev`` stops the
            training and calibrates.
        pairs: unlabelled (query, doc_id) rows, as of a click log; those of queries that the
            judgments hold out are left out.
        output: the engines folder. The same data and settings again: nothing is done. Others: it is
            built anew and replaced when the new one is whole; what does not depend on the
            difference is taken over. Of two builds at once, the second waits for the first.
        progress: told of each step.

    Raises:
        ConfigError: no backbone is given or it is not there, or the engine is the fake one.
        EngineError: the engine cannot run here.
        DataError: an input is bad; see `read_judgments`, `read_pairs` and `open_corpus`.
        StoreError: `output` holds something else, or cannot be written.
    """
    steps = progress or NoProgress()
    _check_settings(config)
    output = Path(output)
    _check_output(output)
    steps.begin("read the data", 0, 0)
    opened = open_corpus(corpus, limit=config.input.limit, on_error=config.input.on_error)
    data = _read(config, opened, judgments, pairs)
    fingerprint = _fingerprint(config, opened, judgments, pairs)
    with locked(output):
        there = read_engines(output) if (output / MANIFEST).exists() else None
        if there is not None and there.manifest["fingerprint"] == fingerprint:
            _prepare(config, output)
            return BuildReport(output, there.manifest["figures"], did_nothing=True)
        figures: dict[str, Any] = {}

        def fill(folder: Path) -> None:
            figures.update(_train(config, data, folder, fingerprint, there, steps))

        _replace(output, fill)
        _prepare(config, output)
    return BuildReport(output, figures, did_nothing=False)


def _check_settings(config: Config) -> None:
    backbone = config.model.backbone
    if backbone is None and config.model.preset is None:
        raise ConfigError("No backbone: give --backbone FOLDER_OR_GGUF or --preset tiny.")
    if backbone is not None and not Path(backbone).exists():
        raise ConfigError(
            f"model.backbone: '{backbone}' does not exist. Give the folder of a causal language "
            "model or a GGUF file."
        )
    if config.engine.backend == "fake":
        raise ConfigError("engine.backend: the fake backend cannot grade pairs; give auto.")
    if config.engine.backend != "auto":
        check_backend(config.engine.backend, config.engine.python)


def _prepare(config: Config, output: Path) -> None:
    """Make the checkpoints of a backend in another interpreter, unless they are there."""
    backend = config.engine.backend
    if backend in BACKENDS and BACKENDS[backend].own_python:
        from ssra_engine.engines.checkpoint import prepare_checkpoint

        for role in ("score", "query"):
            prepare_checkpoint(output / role)


def _replace(output: Path, fill: Callable[[Path], None]) -> None:
    """Let `fill` write a folder, which takes the place of `output` when it is whole."""
    replaced = output.with_name(output.name + ".old")
    new = output.with_name(output.name + ".new")
    with writing(output):
        remove(new)
    put_folder(new, fill)
    with writing(output):
        remove(replaced)
        if output.exists():
            output.rename(replaced)
        new.rename(output)
        remove(replaced)


def _fingerprint(
    config: Config, corpus: Corpus, judgments: Sequence[str | Path], pairs: Sequence[str | Path]
) -> dict[str, Any]:
    sections = {"seed", "grades", "input", "model", "annotate"}
    return {
        "version": __version__,
        "config": config.model_dump(mode="json", include=sections),
        "backbone": "" if config.model.backbone is None else content_key(config.model.backbone),
        "corpus": corpus.fingerprint(),
        "judgments": files_key(judgments),
        "pairs": files_key(pairs),
    }


def _score_model_parts(fingerprint: dict[str, Any]) -> dict[str, Any]:
    """What the score model depends on. A preset's tokenizer is trained on the pairs too."""
    parts = _training_data_parts(fingerprint)
    if fingerprint["config"]["model"]["preset"] is None:
        del parts["pairs"]
    return parts | {"config": {k: v for k, v in parts["config"].items() if k != "annotate"}}


def _training_data_parts(fingerprint: dict[str, Any]) -> dict[str, Any]:
    """What the training data of the query model depend on."""
    config = fingerprint["config"]
    model = {key: value for key, value in config["model"].items() if key != "query"}
    return fingerprint | {"config": config | {"model": model}}


def _check_output(output: Path) -> None:
    if output.exists() and (
        not output.is_dir() or (any(output.iterdir()) and not (output / MANIFEST).exists())
    ):
        raise StoreError(f"{output}: not empty and not an engines folder. Give another --output.")
    with writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)


def _template(config: Config) -> str:
    return config.model.prompts or ("plain" if config.model.preset else "instruct")


def _read(
    config: Config,
    opened: Corpus,
    judgments: Sequence[str | Path],
    pairs: Sequence[str | Path],
) -> _Data:
    opened.check()
    table = opened.table()
    texts = TEMPLATES[_template(config)].documents(table)
    documents = pa.table({"doc_id": table["doc_id"], "document": texts})
    judged = read_judgments(judgments, config.grades, doc_ids=table["doc_id"], seed=config.seed)
    unlabelled = read_pairs(pairs, doc_ids=table["doc_id"]) if pairs else PAIRS.empty_table()
    by_split = [
        d2q_rows(judged.filter(pc.equal(judged["split"], split)), documents, "judgment")
        for split in ("train", "dev")
    ]
    held_out = judged.filter(pc.not_equal(judged["split"], "train"))["query"]
    leaks = np.isin(_query_keys(unlabelled["query"]), _query_keys(held_out))
    usable = unlabelled.filter(pa.array(~leaks))
    return _Data(documents, by_split[0], by_split[1], usable, int(leaks.sum()))


def _query_keys(queries: pa.ChunkedArray) -> np.ndarray:
    return hash_strings(normalise(queries.combine_chunks()))


def _train(
    config: Config,
    data: _Data,
    folder: Path,
    fingerprint: dict[str, Any],
    there: Engines | None,
    steps: Progress,
) -> dict[str, Any]:
    from ssra_engine.models.backbone import load_backbone, save_backbone
    from ssra_engine.models.role_models import train_query_model

    model = config.model
    lora = None if model.preset else model.lora
    backbone = folder / "backbone" if model.preset else Path(str(model.backbone))
    figures: dict[str, Any] = {
        "documents": len(data.documents),
        "judgments": {
            "train": len(data.train),
            "dev": len(data.held_out),
            "train_grades": _per_grade(data.train["grade"], len(config.grades)),
        },
        "pairs": len(data.pairs),
        "pairs_of_held_out_queries": data.pairs_of_held_out_queries,
    }
    if model.preset:
        steps.begin("train the tiny backbone", 0, 0)
        figures["backbone"] = _train_tiny(config, data, backbone)
    network, tokenizer = load_backbone(backbone)
    encoder = _encoder(config, tokenizer)
    before = {} if there is None else there.manifest["fingerprint"]
    if there is not None and _score_model_parts(before) == _score_model_parts(fingerprint):
        steps.begin("keep the score model", 0, 0)
        figures["score"] = there.manifest["figures"]["score"]
        with writing(folder):
            shutil.copytree(there.folder / "score", folder / "score")
    else:
        figures["score"] = _score_model(config, data, folder, (network, tokenizer), encoder, steps)
        network, tokenizer = load_backbone(backbone)
    if there is not None and _training_data_parts(before) == _training_data_parts(fingerprint):
        d2q = read_d2q(there.folder)
    else:
        card = figures["score"]
        calibration = Calibration(card["temperature"], tuple(card["bias"]))
        d2q = _d2q(config, data, folder, calibration, steps)
    figures["d2q"] = _counts(d2q, len(config.grades))
    steps.begin("train the query model", 0, 0)
    network, figures["query"] = train_query_model(
        network, encoder, d2q, model.query, lora=lora, seed=config.seed
    )
    save_backbone(network, tokenizer, folder / "query")
    if model.preset:
        remove(backbone)
    _write_papers(config, folder, d2q, fingerprint, figures)
    return figures


def _score_model(
    config: Config,
    data: _Data,
    folder: Path,
    backbone: tuple[Any, Any],
    encoder: QuestionEncoder,
    steps: Progress,
) -> dict[str, Any]:
    """Train it from a model and tokenizer and save it; its card."""
    from ssra_engine.models.backbone import save_backbone
    from ssra_engine.models.role_models import train_score_model

    model = config.model
    steps.begin("train the score model", 0, 0)
    network, tokenizer = backbone
    network, card = train_score_model(
        network,
        encoder,
        data.train,
        data.held_out,
        model.score,
        lora=None if model.preset else model.lora,
        evenness=model.evenness,
        seed=config.seed,
    )
    save_backbone(network, tokenizer, folder / "score")
    return card


def _encoder(config: Config, tokenizer: Any) -> QuestionEncoder:
    from ssra_engine.models.questions import QuestionEncoder

    return QuestionEncoder(
        tokenizer,
        TEMPLATES[_template(config)],
        len(config.grades),
        max_document_tokens=config.model.max_document_tokens,
        max_query_tokens=config.model.max_query_tokens,
    )


def _write_papers(
    config: Config,
    folder: Path,
    d2q: pa.Table,
    fingerprint: dict[str, Any],
    figures: dict[str, Any],
) -> None:
    """All but the models."""
    with pa.OSFile(str(folder / "d2q.arrow"), "wb") as sink, pa.ipc.new_file(sink, D2Q) as writer:
        writer.write_table(d2q)
    (folder / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
    manifest = {
        "version": 2,
        "fingerprint": fingerprint,
        "grades": list(config.grades),
        "template": _template(config),
        "figures": figures,
    }
    (folder / MANIFEST).write_text(
        json.dumps(manifest, indent=1, ensure_ascii=False), encoding="utf-8"
    )


def _train_tiny(config: Config, data: _Data, folder: Path) -> dict[str, float]:
    from ssra_engine.models.backbone import save_backbone
    from ssra_engine.models.tiny import new_backbone, pretrain, train_tokenizer

    model = config.model
    documents = data.documents["document"].to_pylist()
    queries = pc.unique(
        pa.chunked_array([*data.train["query"].chunks, *data.pairs["query"].chunks])
    )
    asked = (f"Q: {query}\n" for query in queries.to_pylist())
    tokenizer = train_tokenizer([*documents, *asked], model.tiny.vocabulary)
    encoder = _encoder(config, tokenizer)
    context = model.max_document_tokens + 4 * model.max_query_tokens + 64
    network = new_backbone(tokenizer, model.tiny, context, config.seed)
    figures = pretrain(network, encoder, documents, model.tiny, seed=config.seed)
    save_backbone(network, tokenizer, folder)
    return figures


def _d2q(
    config: Config, data: _Data, folder: Path, calibration: Calibration, steps: Progress
) -> pa.Table:
    """Grade the pairs with the score model just saved, and merge them with the judgments."""
    from ssra_engine.engines import load_engine

    documents = data.documents
    labels = [str(grade) for grade in config.grades]
    rows = d2q_rows(
        data.pairs.append_column("grade", pa.array([0] * len(data.pairs), pa.int8())),
        documents,
        "score",
    )
    steps.begin("grade the pairs", len(rows), 0)
    done = 0

    def advance(scored: int) -> None:
        nonlocal done
        done += scored
        steps.update(done)

    engine = load_engine(folder / "score", **engine_options(config, config.engine.backend))
    try:
        requests = score_requests(rows, TEMPLATES[_template(config)], len(config.grades))
        probs = score(engine, requests, labels, calibration, advance)
    finally:
        engine.close()
    graded = annotated(data.pairs, probs)
    return training_data(
        data.train,
        d2q_rows(graded, documents, "score"),
        probs.max(1, initial=0.0),
        most=config.annotate.max_documents_per_query,
        least=config.annotate.min_confidence,
    )


def _counts(d2q: pa.Table, grades: int) -> dict[str, list[int]]:
    """Rows of each grade, by source."""
    return {
        source: _per_grade(d2q.filter(pc.equal(d2q["source"], source))["grade"], grades)
        for source in ("judgment", "score")
    }


def _per_grade(column: pa.ChunkedArray, grades: int) -> list[int]:
    counts: list[int] = np.bincount(column.to_numpy(), minlength=grades).tolist()
    return counts
