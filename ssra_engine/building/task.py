"""What is to be built, as the parts of a build are told."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssra_engine.building.data import BuildData
from ssra_engine.config import Config
from ssra_engine.durable import writing
from ssra_engine.engine_folder import Engines
from ssra_engine.steps import Progress

__all__ = ["Task"]


@dataclass(frozen=True)
class Task:
    """What is to be built.

    Attributes:
        config: the tree.
        data: checked input.
        folder: an empty folder for the models.
        fingerprint: of what they are made from.
        there: an engines folder to take over from, or None.
        steps: told of each step.
    """

    config: Config
    data: BuildData
    folder: Path
    fingerprint: dict[str, Any]
    there: Engines | None
    steps: Progress

    def keeps(self, parts: Callable[[dict[str, Any]], dict[str, Any]]) -> bool:
        """Whether the engines that are there were made from the same, as far as `parts` tells."""
        if self.there is None:
            return False
        return parts(self.there.manifest["fingerprint"]) == parts(self.fingerprint)

    def take_over(self, role: str, name: str) -> dict[str, Any]:
        """Copy the model of a role that `keeps` has found to be the same; its figures."""
        assert self.there is not None
        self.steps.begin(f"keep {name}", 0, 0)
        with writing(self.folder):
            shutil.copytree(self.there.folder / role, self.folder / role)
        figures: dict[str, Any] = self.there.manifest["figures"][role]
        return figures
