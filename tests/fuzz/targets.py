"""What reads files of strangers: each target is some valid files and a call that reads one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import pyarrow as pa
from documents import write_documents
from mutations import negatives_files, table_files
from resumable import run_half, run_here

from ssra_engine.auditing.answers import ANSWER, Answer, Answers, read_answers
from ssra_engine.config import load_config
from ssra_engine.corpus import open_corpus
from ssra_engine.embedder.tables import read_hard_negatives
from ssra_engine.engine_folder import read_engines
from ssra_engine.errors import SsraError
from ssra_engine.evaluation.outputs import open_outputs, read_samples
from ssra_engine.inspection import inspect_input
from ssra_engine.judgments import read_judgments, read_pairs
from ssra_engine.manifest import read_manifest
from ssra_engine.store import open_store
from ssra_engine.verify import verify_output

__all__ = ["Target", "make_targets"]

_CONFIG = """
seed: 7
grades: [0, 1, 2]
synthesize: {per_grade: 2, attempts: 3, temperature: 0.9, grades: [1, 2]}
filter: {min_confidence: 0.6, duplicates: document}
refine: &a {rounds: 2, documents: 5000}
model: {preset: tiny, lora: {rank: 8}}
"""


@dataclass(frozen=True)
class Target:
    """A reader and valid files for it, by name."""

    name: str
    files: Mapping[str, bytes]
    read: Callable[[Path], None]


def make_targets(folder: Path) -> list[Target]:
    """All targets; what they need beside the file under test is made in an empty folder."""
    tables = table_files(folder)
    targets = [
        Target("corpus", tables, _read_corpus),
        Target("judgments", tables, _read_judgments),
        Target("inspect", tables, lambda path: _refuse_or(lambda: inspect_input(str(path)))),
        Target("negatives", negatives_files(), _read_negatives),
        Target("answers", {"answers.arrows": _answers(folder)}, _read_answers),
        Target("config", {"config.yaml": _CONFIG.encode()}, _read_config),
    ]
    write_documents(folder / "corpus.arrow", 6)
    run_here(folder, 6, 3)
    (folder / "out").rename(folder / "whole")
    run_half(folder, 6, 3)
    (folder / "out").rename(folder / "half")
    for run, name in (
        ("whole", "manifest.json"),
        ("half", "manifest.json"),
        ("half", "journal"),
        ("whole", "config.yaml"),
        ("whole", "summary.json"),
        ("whole", "synthetic/part-00000.parquet"),
        ("half", "shards/final/000001.arrow"),
    ):
        files = {Path(name).name: (folder / run / name).read_bytes()}
        targets.append(Target(f"{run} {name}", files, _of_run(folder / run, name)))
    targets.append(_engines(folder / "engines"))
    return targets


def _refuse_or(*calls: Callable[[], object]) -> None:
    """Make every call; a refusal of one is no reason not to make the others."""
    for call in calls:
        try:
            call()
        except SsraError as error:
            if not str(error).strip():
                raise AssertionError("a refusal without words") from error


def _read_corpus(path: Path) -> None:
    def read(on_error: str) -> None:
        corpus = open_corpus([path], on_error=on_error)  # type: ignore[arg-type]
        corpus.check()
        for _ in corpus.batches_with_errors(7):
            pass

    _refuse_or(lambda: read("stop"), lambda: read("reject"))


def _read_judgments(path: Path) -> None:
    _refuse_or(lambda: read_judgments([path], (0, 1, 2, 3)), lambda: read_pairs([path]))


def _read_negatives(path: Path) -> None:
    doc_ids = pa.chunked_array([[f"doc {number}" for number in range(24)]])
    _refuse_or(lambda: read_hard_negatives([path], doc_ids, (0, 1, 2, 3)))


def _answers(folder: Path) -> bytes:
    """A file of three answers."""
    answers = Answers(folder / "answers.arrows", "an audit")
    time = datetime(2026, 1, 2, tzinfo=timezone.utc)
    for number in range(3):
        answers.append(Answer(ANSWER, f"k{number}", "a query", "d", "2", "Anna", time))
    answers.close()
    return (folder / "answers.arrows").read_bytes()


def _read_answers(path: Path) -> None:
    _refuse_or(lambda: read_answers(path), lambda: Answers(path, "an audit").close())


def _read_config(path: Path) -> None:
    _refuse_or(lambda: load_config(path).to_yaml())


def _of_run(run: Path, name: str) -> Callable[[Path], None]:
    """Reads a copy of an output folder in which one file is that under test."""

    def read(path: Path) -> None:
        copy = run.with_name("copy")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(run, copy)
        shutil.copy(path, copy / name)

        def samples() -> None:
            for part in open_outputs(copy).parts:
                for _ in read_samples(part):
                    pass

        def go_on() -> None:
            manifest = read_manifest(run)
            assert manifest is not None
            with open_store(copy, manifest.fingerprint, "") as store:
                if store.finished:
                    store.summary()

        _refuse_or(lambda: verify_output(copy), samples, go_on)

    return read


def _engines(folder: Path) -> Target:
    for part in ("score", "query"):
        (folder / part).mkdir(parents=True)
    (folder / "d2q.arrow").touch()
    (folder / "config.yaml").write_text(load_config().to_yaml())
    manifest = {
        "version": 2,
        "grades": [0, 1, 2, 3],
        "template": "plain",
        "fingerprint": {},
        "figures": {"score": {"temperature": 1.0, "bias": []}},
    }

    def read(path: Path) -> None:
        shutil.copy(path, folder / "manifest.json")
        _refuse_or(lambda: read_engines(folder))

    return Target("engines", {"manifest.json": json.dumps(manifest).encode()}, read)
