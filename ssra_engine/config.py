"""The configuration: one typed tree, YAML in and out.

Every command-line flag has its place here, and the effective tree is written beside every output.
"""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import Any, Literal, TypeAlias

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ssra_engine.budget import parse_budget
from ssra_engine.errors import ConfigError
from ssra_engine.presets import PRESETS
from ssra_engine.teaching.settings import RationaleConfig, RewriteConfig
from ssra_engine.yaml_file import read_yaml

__all__ = [
    "ActorConfig",
    "AnnotateConfig",
    "Config",
    "CrossEncoderConfig",
    "EngineConfig",
    "FilterConfig",
    "InputConfig",
    "LoraConfig",
    "ModelConfig",
    "OutputConfig",
    "RefineConfig",
    "Role",
    "RunnerConfig",
    "ScheduleConfig",
    "SynthesizeConfig",
    "TinyConfig",
    "TrainConfig",
    "load_config",
]

#: What a model does in a run, or before it.
Role: TypeAlias = Literal["score", "query", "comparator", "teacher"]

# A few hundred bytes of YAML can be a value of 10^9 leaves, through aliases of aliases.
_SHORTLY = reprlib.Repr()
_SHORTLY.maxlevel, _SHORTLY.maxstring, _SHORTLY.maxother = 3, 200, 200


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InputConfig(_Section):
    """How documents are read."""

    limit: int | None = Field(None, ge=1, description="read at most this many documents")
    on_error: Literal["stop", "reject"] = Field(
        "stop", description="end at a bad document, or send it to rejected and go on"
    )


class LoraConfig(_Section):
    """LoRA (arXiv 2106.09685); the defaults follow the public code of arXiv 2509.16717."""

    rank: int = Field(32, ge=1)
    alpha: float = Field(64.0, gt=0)
    dropout: float = Field(0.1, ge=0, lt=1)


class TinyConfig(_Section):
    """The backbone of `--preset tiny`: a small causal LM trained from scratch on the corpus."""

    vocabulary: int = Field(4096, ge=300)
    width: int = Field(192, ge=32)
    layers: int = Field(3, ge=1)
    heads: int = Field(3, ge=2)
    pretrain_tokens: int = Field(150_000, ge=0, description="tokens seen before any judgment")
    pretrain_rate: float = Field(1e-3, gt=0)
    pretrain_rows: int = Field(8, ge=1, description="documents in a pretraining step")

    @model_validator(mode="after")
    def _whole_heads(self) -> TinyConfig:
        if self.width % (2 * self.heads):
            raise ValueError(
                f"width must be a multiple of twice the heads, got {self.width} and {self.heads}"
            )
        return self


class ScheduleConfig(_Section):
    """How long and how fast a model is trained."""

    epochs: float = Field(3.0, gt=0)
    max_steps: int | None = Field(None, ge=1, description="fewer epochs where they take more")
    rate: float = Field(1e-4, gt=0, description="peak learning rate, cosine schedule")
    warmup: float = Field(0.05, ge=0, lt=1, description="share of steps with a rising rate")
    weight_decay: float = Field(1e-3, ge=0)
    batch_rows: int = Field(32, ge=1)
    patience: int = Field(2, ge=1, description="evaluations on held-out queries without progress")


class TrainConfig(ScheduleConfig):
    """Settings of one supervised training of a causal LM."""

    attention_rate: float = Field(
        1.0, gt=0, description="factor of the rate for attention weights of a full training"
    )
    train_embeddings: bool = Field(True, description="of a full training")


class CrossEncoderConfig(ScheduleConfig):
    """A cross-encoder as score model: an encoder that reads query and document side by side."""

    backbone: str | None = Field(None, description="folder of an encoder")
    rate: float = Field(5e-5, gt=0, description="peak learning rate, cosine schedule")


class ModelConfig(_Section):
    """Which language model plays the roles, and how it is trained."""

    backbone: str | None = Field(None, description="folder of a causal LM, or a GGUF file")
    preset: Literal["tiny"] | None = Field(None, description="train a backbone from scratch")
    prompts: Literal["plain", "instruct"] | None = Field(
        None, description="prompt templates; plain for tiny, instruct otherwise"
    )
    max_document_tokens: int = Field(256, ge=8)
    max_query_tokens: int = Field(48, ge=4)
    max_rationale_tokens: int = Field(48, ge=4)
    tiny: TinyConfig = TinyConfig()
    lora: LoraConfig = LoraConfig()
    evenness: float = Field(
        1.0,
        ge=0,
        le=1,
        description="how far the score model forgets that judged grades are mostly the extremes",
    )
    score_model: Literal["causal", "cross-encoder"] = Field(
        "causal", description="kind of the score model"
    )
    score: TrainConfig = Field(TrainConfig(), description="training of a causal score model")
    score_together: int = Field(
        1,
        ge=1,
        description="judged queries of a document that a causal score model learns at once; more "
        "take less time where documents have many, and make larger batches",
    )
    rationales: Literal["none", "train", "write"] = Field(
        "none",
        description="reasons in the judgments: ignore them, let a causal score model learn to "
        "write them, or let it also write one before each grade",
    )
    cross_encoder: CrossEncoderConfig = CrossEncoderConfig()
    query: TrainConfig = TrainConfig()
    train_comparator: bool = Field(
        False, description="train a comparator on judged queries that share a document"
    )
    compare: TrainConfig = Field(TrainConfig(), description="training of the comparator")

    @model_validator(mode="after")
    def _one_backbone(self) -> ModelConfig:
        if self.backbone is not None and self.preset is not None:
            raise ValueError("give a backbone or a preset, not both")
        crossed = self.score_model == "cross-encoder"
        if crossed and self.rationales != "none":
            raise ValueError("a cross-encoder writes nothing: leave out --rationales")
        if crossed != (self.cross_encoder.backbone is not None):
            raise ValueError(
                "a cross-encoder needs an encoder: give --score-backbone FOLDER with it"
                if crossed
                else "--score-backbone is for --score-model cross-encoder"
            )
        return self


class AnnotateConfig(_Section):
    """Stage 1: re-annotation of unlabelled pairs, and the training data of the query model."""

    min_confidence: float = Field(0.0, ge=0, le=1, description="drop annotations below this")
    max_documents_per_query: int = Field(
        4, ge=1, description="a popular query teaches the query model at most this often"
    )


class SynthesizeConfig(_Section):
    """Generation of queries."""

    grades: tuple[int, ...] | None = Field(None, description="target grades; default: all")
    per_grade: int = Field(1, ge=1, description="accepted samples per document and grade")
    attempts: int = Field(
        3, ge=1, description="waves of sampling; a later wave asks only for what is still short"
    )
    budget: str | None = Field(
        None,
        description="most of the final synthesis: so many samples, tokens written by the query "
        "model, or seconds, as in 20000 samples; with seconds the rows depend on the machine",
    )
    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(0.95, gt=0, le=1)
    max_new_tokens: int = Field(32, ge=1)

    @field_validator("budget")
    @classmethod
    def _readable(cls, budget: str | None) -> str | None:
        if budget is not None:
            parse_budget(budget)
        return budget


class FilterConfig(_Section):
    """What a sample must pass to be kept."""

    max_query_chars: int = Field(64, ge=1)
    scored: bool = Field(
        True, description="reject a query that the score model does not give its target grade"
    )
    min_confidence: float = Field(0.0, ge=0, le=1, description="probability of the target grade")
    comparator: str = Field(
        "score",
        description="pairwise check by the score model's expected grade (score), by no one (none), "
        "by the comparator of the engines folder (trained), or by a language model: its folder or "
        "GGUF file",
    )
    duplicates: Literal["global", "document"] = Field(
        "global",
        description="one sample per (query, target) in the whole output, or only per document",
    )
    near_duplicates: Literal["none", "document", "global"] = Field(
        "document",
        description="reject near duplicates nowhere, among the queries of a document, or also "
        "among those of one target in the whole output",
    )
    similarity: float = Field(
        0.8, gt=0, le=1, description="share of 3-grams from which queries are near duplicates"
    )


class RefineConfig(_Section):
    """Stage 2: rounds of synthesis, filtering and retraining before the final synthesis."""

    rounds: int = Field(1, ge=0)
    documents: int = Field(2000, ge=1, description="documents sampled for each round")
    samples: int = Field(2, ge=1, description="samples per document and grade in a round")


class EngineConfig(_Section):
    """Inference."""

    backend: str = Field("auto", description="auto, torch, fake or an installed backend")
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    batch_tokens: int = Field(8192, ge=64)
    threads: int | None = Field(None, ge=1)
    python: str | None = Field(
        None, description="of tensorrt_llm and vllm: the interpreter that has them"
    )
    tensor_parallel: int = Field(1, ge=1, description="of those: GPUs that share a model")
    block_reuse: bool = Field(
        True, description="of those: keep a document's cache; false for repeatable scores"
    )
    memory: float | None = Field(
        None, gt=0, lt=1, description="of those: share of a GPU's memory to take"
    )
    start_seconds: float = Field(1800, gt=0, description="of those: to load a model")
    batch_seconds: float = Field(600, gt=0, description="of those: a longer silence is a hang")

    @field_validator("backend")
    @classmethod
    def _one_spelling(cls, backend: str) -> str:
        return backend.replace("-", "_")


class ActorConfig(_Section):
    """Ray actors that hold one model."""

    replicas: int = Field(1, ge=1, description="actors, each of which loads the model")
    cpus: float = Field(1.0, ge=0, description="of each")
    gpus: float = Field(0.0, ge=0, description="of each")


class RunnerConfig(_Section):
    """Where the engines run; it changes no row."""

    kind: Literal["local", "ray"] = "local"
    address: str | None = Field(
        None, description="Ray cluster, such as auto; without it one is started on this machine"
    )
    actors: dict[Role, ActorConfig] = Field({}, description="by role")
    shards_at_once: int = Field(4, ge=1, description="shards worked on at a time with Ray")
    start_seconds: float = Field(1800, gt=0, description="for an actor to load its model")
    batch_seconds: float = Field(600, gt=0, description="a longer silence is a hang")
    retries: int = Field(3, ge=0, description="times a batch is sent again when its actor fails")


class OutputConfig(_Section):
    """What is written, and in which pieces."""

    format: Literal["parquet", "arrow"] = "parquet"
    shard_documents: int = Field(2000, ge=1)


class Config(_Section):
    """The whole tree."""

    seed: int = Field(0, ge=0, lt=2**63)
    grades: tuple[int, ...] = Field((0, 1, 2, 3), description="the grade scale, ascending from 0")
    input: InputConfig = InputConfig()
    model: ModelConfig = ModelConfig()
    rewrite: RewriteConfig = RewriteConfig()
    rationale: RationaleConfig = RationaleConfig()
    annotate: AnnotateConfig = AnnotateConfig()
    synthesize: SynthesizeConfig = SynthesizeConfig()
    filter: FilterConfig = FilterConfig()
    refine: RefineConfig = RefineConfig()
    engine: EngineConfig = EngineConfig()
    runner: RunnerConfig = RunnerConfig()
    output: OutputConfig = OutputConfig()

    @field_validator("grades")
    @classmethod
    def _scale(cls, grades: tuple[int, ...]) -> tuple[int, ...]:
        if grades != tuple(range(len(grades))) or not 2 <= len(grades) <= 10:
            raise ValueError("grades must be 0,1,..,G-1 with 2 to 10 grades")
        return grades

    @model_validator(mode="after")
    def _targets(self) -> Config:
        targets = self.synthesize.grades
        if targets is not None:
            unknown = sorted(set(targets) - set(self.grades))
            if unknown or not targets or len(set(targets)) != len(targets):
                raise ValueError(
                    f"synthesize.grades must be distinct grades of the scale {list(self.grades)}, "
                    f"got {list(targets)}"
                )
        return self

    @property
    def targets(self) -> tuple[int, ...]:
        """Target grades of the synthesis, ascending."""
        chosen = self.synthesize.grades
        return self.grades if chosen is None else tuple(sorted(chosen))

    def to_yaml(self) -> str:
        """The effective tree as YAML; `load_config` reads it back to an equal tree."""
        return yaml.safe_dump(
            self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100
        )


def load_config(path: str | Path | None = None, overrides: dict[str, Any] | None = None) -> Config:
    """Read a YAML file (or the defaults) and lay `overrides` over it.

    Args:
        path: a YAML file; None for the defaults.
        overrides: dotted keys, such as ``{"synthesize.per_grade": 2}``; None values are skipped.

    Raises:
        ConfigError: the file is missing or not YAML, a key is unknown, or a value is out of range.
    """
    tree: dict[str, Any] = {}
    source = "the command line" if path is None else str(path)
    if path is not None:
        tree = read_yaml(Path(path))
    for key, value in (overrides or {}).items():
        if value is None:
            continue
        *parents, leaf = key.split(".")
        node = tree
        for parent in parents:
            child = node.setdefault(parent, {})
            if not isinstance(child, dict):
                raise ConfigError(f"{source}: '{parent}' must be a mapping of settings.")
            node = child
        node[leaf] = value
    model = tree.get("model")
    preset = model.get("preset") if isinstance(model, dict) else None
    if isinstance(preset, str) and preset in PRESETS:
        tree = _lay_over(PRESETS[preset], tree)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the configuration"
        reason = first["msg"].removeprefix("Value error, ")
        raise ConfigError(
            f"{source}: {place}: {reason} (got {_SHORTLY.repr(first['input'])})."
            if first["type"] != "extra_forbidden"
            else f"{source}: {place}: no such setting."
        ) from error


def _lay_over(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, above in top.items():
        below = merged.get(key)
        both = isinstance(below, dict) and isinstance(above, dict)
        merged[key] = _lay_over(dict(below or {}), above) if both else above
    return merged
