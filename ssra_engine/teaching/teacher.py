"""The teacher: a language model that is asked by prompt, and what of its answers is used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from ssra_engine.config import Config
from ssra_engine.content import content_key
from ssra_engine.engine_folder import engine_options
from ssra_engine.engines import BACKENDS, check_backend, load_engine
from ssra_engine.engines.engine import Engine, Sampling
from ssra_engine.errors import ConfigError
from ssra_engine.isolation import engine_call
from ssra_engine.keys import hash_strings, normalise
from ssra_engine.prompts import STOP, collapse_whitespace
from ssra_engine.stages.filter import DocumentForms, check_text
from ssra_engine.stages.synthesize import generate, request_batches
from ssra_engine.teaching.settings import TeacherConfig

__all__ = ["Answers", "Asked", "Teacher", "ask", "teacher_of"]

# Fewer at a time than queries are: an answer is ten times as long, and a signal waits for a batch.
_BATCH_REQUESTS = 256


@dataclass(frozen=True)
class Teacher:
    """A language model that is not trained here.

    Attributes:
        fingerprint: changes when the model does.
        open: loads it.
    """

    fingerprint: str
    open: Callable[[], Engine]


@dataclass(frozen=True)
class Asked:
    """N questions, those about one document side by side.

    Attributes:
        prefixes: prompt prefix of each document, string[D].
        document: index of each question's document, ascending, int32[N].
        suffixes: string[N].
        seeds: uint64[N].
        forms: of D texts of which an answer must not be a copy.
    """

    prefixes: pa.Array
    document: np.ndarray
    suffixes: pa.Array
    seeds: np.ndarray
    forms: DocumentForms


@dataclass(frozen=True)
class Answers:
    """What was written.

    Attributes:
        texts: one line each, string[N].
        codes: of `reasons`, int8[N]; `KEPT` where the text can be used.
        tokens: written, int32[N].
    """

    texts: pa.Array
    codes: np.ndarray
    tokens: np.ndarray


def teacher_of(model: str | Path | None, config: Config, settings: TeacherConfig) -> Teacher:
    """The teacher in a model folder or a GGUF file; nothing is loaded yet.

    Args:
        model: may be None for the fake backend.
        config: backend, precision, batches and threads.
        settings: of what it is asked for.

    Raises:
        ConfigError: there is no such model.
        EngineError: there is no such backend, or it cannot run here.
    """
    backend = config.engine.backend
    if backend not in ("auto", *BACKENDS):
        known = ", ".join(("auto", *BACKENDS))
        raise ConfigError(f"engine.backend: no backend '{backend}'. Choose one of {known}.")
    if backend == "fake":
        return Teacher("fake", lambda: load_engine(None, "fake"))
    if model is None or not Path(model).exists():
        raise ConfigError(
            "No teacher: give --model FOLDER_OR_GGUF."
            if model is None
            else f"--model: '{model}' does not exist. Give the folder of a causal language model "
            "or a GGUF file."
        )
    if backend != "auto":
        check_backend(backend, config.engine.python)
    path = Path(model).absolute()  # for other processes too
    options = engine_options(config, backend)
    options["max_document_tokens"] = settings.max_document_tokens
    return Teacher(content_key(path), lambda: load_engine(path, **options))


def ask(
    engine: Engine, asked: Asked, settings: TeacherConfig, done: Callable[[int], None]
) -> Answers:
    """Let a teacher answer, and look at each answer.

    An answer ends at a line break. It is of no use when it is empty or has broken characters, runs
    into a limit, so that its end is missing, or says again what it was made from.

    Args:
        engine: the teacher.
        asked: the questions.
        settings: of the generation.
        done: told the number of questions answered, batch by batch.

    Raises:
        EngineCallError: the engine fails.
    """
    sampling = Sampling(
        max_new_tokens=settings.max_new_tokens,
        temperature=settings.temperature,
        top_p=settings.top_p,
        stop=(STOP,),
    )
    batches = request_batches(
        asked.prefixes, asked.document, asked.suffixes, asked.seeds, _BATCH_REQUESTS
    )
    with engine_call():
        texts, ended, tokens = generate(engine, batches, sampling, done)
    texts = collapse_whitespace(texts)
    normalised = normalise(texts)
    codes = check_text(
        texts,
        normalised=normalised,
        keys=hash_strings(normalised),
        ended=ended,
        document=asked.document,
        forms=asked.forms,
        max_query_chars=settings.max_chars,
    )
    return Answers(texts, codes, tokens)
