"""What `build` wrote: an engines folder, opened as the roles of a run."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa

from ssra_engine.calibration import Calibration
from ssra_engine.config import Config, load_config
from ssra_engine.content import content_key
from ssra_engine.engines import BACKENDS, load_engine
from ssra_engine.engines.engine import Engine
from ssra_engine.errors import ConfigError, EngineError
from ssra_engine.prompts import COMPARATOR_TEMPLATE, TEMPLATES, PairTemplate, PromptTemplate
from ssra_engine.roles import Roles, asks_model

__all__ = [
    "MANIFEST",
    "Engines",
    "content_key",
    "engine_options",
    "open_roles",
    "open_score_model",
    "read_d2q",
    "read_engines",
    "score_template",
]

MANIFEST = "manifest.json"
_MEND = "Make it anew with `ssra-engine build`, or give the right --engines"


@dataclass(frozen=True)
class Engines:
    """An engines folder: its manifest, and the configuration it was built with."""

    folder: Path
    manifest: dict[str, Any]
    config: Config

    @property
    def grades(self) -> tuple[int, ...]:
        """The scale of the models."""
        return tuple(self.manifest["grades"])


def read_engines(folder: str | Path) -> Engines:
    """Read the manifest of an engines folder; no model is loaded.

    Raises:
        EngineError: it is not a whole engines folder.
    """
    folder = Path(folder)
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        whole = manifest["version"] == 2 and all(
            key in manifest for key in ("fingerprint", "grades", "template", "figures")
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EngineError(f"{folder}: not an engines folder. {_MEND}.") from error
    if not whole or manifest["template"] not in TEMPLATES:
        raise EngineError(f"{path}: written by another version of this program. {_MEND}.")
    for part in ("score", "query", "d2q.arrow"):
        if not (folder / part).exists():
            raise EngineError(f"{folder}: '{part}' is missing. {_MEND}.")
    return Engines(folder, manifest, load_config(folder / "config.yaml"))


def open_roles(folder: str | Path, config: Config) -> Roles:
    """The models of an engines folder, to be loaded when a run needs them.

    Args:
        folder: what `build` wrote.
        config: of the run: backend, precision, batches and threads.

    Raises:
        EngineError: it is not a whole engines folder.
    """
    engines = read_engines(Path(folder).absolute())  # for other processes too
    built = engines.config
    options = engine_options(built, config.engine.backend, config)
    card = engines.manifest["figures"]["score"]

    def open_query(trained: Path | None) -> Engine:
        return load_engine(engines.folder / "query" if trained is None else trained, **options)

    def open_comparator() -> Engine:
        if comparator == "trained":
            return load_engine(engines.folder / "comparator", **options)
        own = {} if config.engine.backend == "fake" else {"dtype": config.engine.dtype}
        return load_engine(Path(comparator).absolute(), **options | own)

    def retrain(d2q: pa.Table, target: Path, seed: int) -> None:
        _retrain(engines, d2q, target, seed)

    comparator = config.filter.comparator
    key = content_key(engines.folder)
    if comparator == "trained":
        if not (engines.folder / "comparator").exists():
            raise ConfigError(
                f"filter.comparator: {folder} has no trained comparator. Build it with "
                "--train-comparator."
            )
    elif asks_model(comparator):
        if not Path(comparator).exists():
            raise ConfigError(
                f"filter.comparator: '{comparator}' does not exist. Give score, none, trained, or "
                "the folder or GGUF file of a language model."
            )
        key += content_key(comparator)
    return Roles(
        fingerprint=key,
        template=TEMPLATES[engines.manifest["template"]],
        score_template=score_template(built, engines.manifest["template"]),
        compare_template=TEMPLATES[engines.manifest["template"]]
        if comparator == "trained"
        else COMPARATOR_TEMPLATE,
        labels=tuple(str(grade) for grade in engines.grades),
        calibration=Calibration(float(card["temperature"]), tuple(card["bias"])),
        open_score=lambda: open_score_model(engines.folder / "score", built, options),
        open_comparator=open_comparator if asks_model(comparator) else None,
        open_query=open_query,
        d2q=lambda: read_d2q(engines.folder),
        retrain=retrain,
    )


def engine_options(built: Config, backend: str, run: Config | None = None) -> dict[str, Any]:
    """Options of `load_engine` for models built with `built`, in a run of `run`.

    A preset's model is too small for bfloat16 to pay, so it stays in float32 unless asked.
    """
    settings = (run or built).engine
    options: dict[str, Any] = {"backend": backend}
    if backend != "fake":
        small = built.model.preset is not None and settings.dtype == "auto"
        options |= {
            "dtype": "float32" if small else settings.dtype,
            "batch_tokens": settings.batch_tokens,
            "threads": settings.threads,
            "max_document_tokens": built.model.max_document_tokens,
        }
    if backend in BACKENDS and BACKENDS[backend].own_python:
        own = ("python", "tensor_parallel", "block_reuse", "memory")
        options |= settings.model_dump(include={*own, "start_seconds", "batch_seconds"})
    return options


def score_template(built: Config, template: str) -> PromptTemplate:
    """How the score model of a build is asked, in a family of prompts."""
    asked = TEMPLATES[template]
    if built.model.score_model == "causal":
        return asked
    return PairTemplate(**{field.name: getattr(asked, field.name) for field in fields(asked)})


def open_score_model(folder: Path, built: Config, options: dict[str, Any]) -> Engine:
    """Load a score model of either kind.

    Args:
        folder: of the model.
        built: configuration it was built with.
        options: see `engine_options`; a cross-encoder runs in torch whatever the backend.

    Raises:
        EngineError: it cannot be loaded.
    """
    if options["backend"] == "fake":
        return load_engine(folder, **options)
    if built.model.score_model == "causal":
        engine = load_engine(folder, **options)
        return engine if built.model.rationales != "write" else _reasoning(engine, built)
    from ssra_engine.engines.cross_encoder_engine import CrossEncoderEngine

    return CrossEncoderEngine(
        folder,
        bfloat16=options["dtype"] == "bfloat16",
        batch_tokens=options["batch_tokens"],
        threads=options["threads"],
    )


def _reasoning(engine: Engine, built: Config) -> Engine:
    from ssra_engine.engines.reasoning_engine import ReasoningEngine

    template = TEMPLATES[built.model.prompts or ("plain" if built.model.preset else "instruct")]
    grades, limit = len(built.grades), built.model.max_rationale_tokens
    return ReasoningEngine(engine, template, grades, max_new_tokens=limit)


def _retrain(engines: Engines, d2q: pa.Table, target: Path, seed: int) -> None:
    """Train the first query model further on `d2q`, with the settings of its own training."""
    from ssra_engine.models.backbone import load_backbone, save_backbone
    from ssra_engine.models.questions import QuestionEncoder
    from ssra_engine.models.role_models import train_query_model

    model = engines.config.model
    network, tokenizer = load_backbone(engines.folder / "query")
    encoder = QuestionEncoder(
        tokenizer,
        TEMPLATES[engines.manifest["template"]],
        len(engines.grades),
        max_document_tokens=model.max_document_tokens,
        max_query_tokens=model.max_query_tokens,
    )
    lora = None if model.preset else model.lora
    network, _ = train_query_model(network, encoder, d2q, model.query, lora=lora, seed=seed)
    save_backbone(network, tokenizer, target)


def read_d2q(folder: Path) -> pa.Table:
    """What the first query model of an engines folder learned from, `schema.D2Q`.

    Raises:
        EngineError: it cannot be read.
    """
    path = folder / "d2q.arrow"
    try:
        with pa.memory_map(str(path)) as source:
            return pa.ipc.open_file(source).read_all()
    except (OSError, pa.ArrowInvalid) as error:
        raise EngineError(f"{path}: not readable: {error}. {_MEND}.") from error
