"""YAML files that hold a mapping of settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ssra_engine.errors import ConfigError

__all__ = ["read_yaml"]

#: A larger file is no configuration.
_MOST_BYTES = 1 << 20


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds; an empty one of an empty file.

    Raises:
        ConfigError: it is missing, larger than 1 MiB, not YAML, or no mapping.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ConfigError(f"{path}: larger than {_MOST_BYTES >> 20} MiB; not a configuration.")
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file.") from error
    except ConfigError:
        raise
    except Exception as error:  # a value of another type than its tag says raises anything
        reason = str(error) or type(error).__name__
        raise ConfigError(f"{path}: not a readable YAML file: {reason[:1000]}.") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: the top level must be a mapping of settings.")
    return tree
