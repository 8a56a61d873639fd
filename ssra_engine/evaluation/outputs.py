"""The output folder of a finished run, as the evaluation reads it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ssra_engine.config import Config, load_config
from ssra_engine.corpus import open_corpus
from ssra_engine.errors import DataError, StoreError
from ssra_engine.manifest import Manifest, read_manifest
from ssra_engine.reasons import KEPT, encode_reasons

__all__ = ["SAMPLES", "Outputs", "Part", "document_files", "open_outputs", "read_samples"]

#: Samples of a part, kept and rejected together; `reason` is a code of `reasons`.
SAMPLES = pa.schema(
    [
        pa.field("query", pa.string()),
        pa.field("doc_id", pa.string()),
        pa.field("target", pa.int8()),
        pa.field("grade", pa.int8()),
        pa.field("confidence", pa.float32()),
        pa.field("sample", pa.int16()),
        pa.field("reason", pa.int8()),
    ]
)


@dataclass(frozen=True)
class Part:
    """One synthesis of a run: a round's, or the final one.

    Attributes:
        name: "round 1", .. or "final".
        model: version of the query model that wrote it, from 1.
        folders: of its kept and its rejected rows.
        documents: how many it was asked for.
        first_wave: samples asked for per document and grade before any was judged.
    """

    name: str
    model: int
    folders: tuple[Path, Path]
    documents: int
    first_wave: int


@dataclass(frozen=True)
class Outputs:
    """A finished run.

    Attributes:
        folder: its output folder.
        config: of the run.
        inputs: files of its documents, as the run named them.
        fingerprint: of those files (`corpus.Corpus.fingerprint`).
        engines: fingerprint of the models (`roles.Roles.fingerprint`).
        parts: rounds in order, then the final synthesis.
    """

    folder: Path
    config: Config
    inputs: tuple[str, ...]
    fingerprint: str
    engines: str
    parts: tuple[Part, ...]


def open_outputs(folder: Path) -> Outputs:
    """Look at an output folder.

    Raises:
        StoreError: it is not the output of a run, or the run has not ended.
    """
    manifest = _read_manifest(folder)
    config = load_config(folder / "config.yaml")
    corpus = manifest.find("corpus")
    documents, settings = int(corpus["documents"]), config.refine
    parts = [
        Part(
            f"round {number}",
            number,
            (folder / f"rounds/{number}/kept", folder / f"rounds/{number}/rejected"),
            min(documents, settings.documents),
            settings.samples,
        )
        for number in range(1, settings.rounds + 1)
    ]
    final = (folder / "synthetic", folder / "rejected")
    parts.append(Part("final", settings.rounds + 1, final, documents, config.synthesize.per_grade))
    return Outputs(
        folder,
        config,
        tuple(corpus.get("inputs", ())),
        str(manifest.fingerprint.get("inputs")),
        str(manifest.fingerprint.get("engines")),
        tuple(parts),
    )


def document_files(outputs: Outputs, corpus: Sequence[str] = ()) -> tuple[str, ...]:
    """The files of a run's documents: those that are given, or those that it recorded.

    Raises:
        StoreError: none are given, and the run recorded none.
        DataError: they cannot be read, or are not those of the run.
    """
    files = tuple(corpus) or outputs.inputs
    if not files:
        raise StoreError(
            f"{outputs.folder}: the files of the documents are not known. Give --corpus."
        )
    try:
        fingerprint = open_corpus(files).fingerprint()
    except DataError as error:
        if corpus or "no such file" not in error.problem:
            raise
        raise DataError(
            error.problem,
            file=error.file,
            mend="The run recorded this name, as seen from where it was started: start this there "
            "too, or give the files with --corpus",
        ) from error
    if fingerprint != outputs.fingerprint:
        raise DataError(
            f"these are not the documents of {outputs.folder}, or they have changed since",
            file=files[0],
            mend="Give the files of the run, in its order, with --corpus",
        )
    return files


def read_samples(part: Part) -> Iterator[pa.Table]:
    """The samples of a part (`SAMPLES`), file by file; documents that failed are left out.

    Raises:
        StoreError: a file is missing or damaged.
    """
    for kind, folder in zip(("kept", "rejected"), part.folders, strict=True):
        files = sorted(folder.glob("part-*"))
        if not files:
            raise StoreError(f"{folder}: there are no {kind} rows. Run again into another folder.")
        for path in files:
            table = _read_table(path, rejected=kind == "rejected")
            yield table.filter(table.column("target").is_valid())


def _read_manifest(folder: Path) -> Manifest:
    manifest = read_manifest(folder)
    if manifest is None:
        raise StoreError(
            f"{folder}: not the output of a run. Give the --output of `ssra-engine run`."
        )
    if manifest.state != "finished":
        raise StoreError(f"{folder}: the run has not ended. Run the same command again first.")
    return manifest


def _read_table(path: Path, *, rejected: bool) -> pa.Table:
    names = [name for name in SAMPLES.names if rejected or name != "reason"]
    try:
        if path.suffix == ".parquet":
            table = pq.read_table(path, columns=names)
        else:
            with pa.memory_map(str(path)) as source:
                table = pa.ipc.open_file(source).read_all().select(names)
    except (OSError, KeyError, pa.ArrowException) as error:
        raise StoreError(f"{path}: cannot be read: {error}.") from error
    if rejected:
        codes = pa.array(encode_reasons(table.column("reason")))
        table = table.drop_columns(["reason"]).append_column("reason", codes)
    else:
        table = table.append_column("reason", pa.array([KEPT] * len(table), pa.int8()))
    return table.select(SAMPLES.names).cast(SAMPLES)
