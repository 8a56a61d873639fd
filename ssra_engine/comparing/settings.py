"""What `ssra-engine compare` is asked for: one YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ssra_engine.comparing.methods import METHODS
from ssra_engine.config import Config, load_config
from ssra_engine.embedder.settings import TrainSettings
from ssra_engine.errors import ConfigError
from ssra_engine.yaml_file import read_yaml

__all__ = ["CompareSettings", "read_settings"]


class CompareSettings(BaseModel):
    """The file: where the data is, what is compared, and the settings of each part."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    corpus: tuple[str, ...] = Field(min_length=1, description="documents")
    judgments: tuple[str, ...] = Field(min_length=1, description="graded pairs")
    pairs: tuple[str, ...] = Field((), description="pairs without grades, for stage 1")
    base: Path = Field(description="what every embedder is trained from, see `train --base`")
    methods: tuple[str, ...] = Field(tuple(METHODS), description="names of methods.METHODS")
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    split: str = Field("dev", description="of the judgments that the figures are of")
    documents: int | None = Field(None, ge=1, description="queries are written for so many")
    pairs_seen: int | None = Field(
        None, ge=1, description="training pairs that each embedder sees; else embedder.epochs"
    )
    min_list: int = Field(10, ge=1, description="shorter judged lists have no nDCG")
    resamples: int = Field(1000, ge=0, description="of the bootstrap over queries")
    settings: dict[str, Any] = Field({}, description="of `build` and `run`, see config.py")
    embedder: dict[str, Any] = Field({}, description="of `train`, see embedder/settings.py")

    @field_validator("methods")
    @classmethod
    def _known(cls, methods: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in methods if name not in METHODS]
        if unknown or not methods:
            raise ValueError(f"choose among {', '.join(METHODS)}")
        return tuple(name for name in METHODS if name in methods)

    def config(self) -> Config:
        """Of `build` and `run`.

        Raises:
            ConfigError: a setting is unknown or out of range.
        """
        return load_config(overrides=self.settings)

    def training(self) -> TrainSettings:
        """Of the embedders.

        Raises:
            ConfigError: a setting is unknown or makes no sense.
        """
        told: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in self.embedder.items()
        }
        try:
            settings = TrainSettings(**told)
            settings.check()
        except (TypeError, AttributeError) as error:
            raise ConfigError(
                f"embedder: no such setting, or a wrong value: {error}. YAML reads 5e-5 as text; "
                "write 5.0e-5."
            ) from error
        return settings


def read_settings(path: Path) -> CompareSettings:
    """Read the file.

    Raises:
        ConfigError: it is missing or not YAML, a key is unknown or missing, or a value is wrong.
    """
    tree = read_yaml(path)
    try:
        settings = CompareSettings.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise ConfigError(f"{path}: {place}: {first['msg'].removeprefix('Value error, ')}.") from (
            error
        )
    settings.config()
    settings.training()
    return settings
