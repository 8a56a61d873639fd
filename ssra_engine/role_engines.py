"""The engines of a run, opened when they are first needed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ssra_engine.config import Role
from ssra_engine.engines.engine import Engine, EngineStats
from ssra_engine.roles import Roles
from ssra_engine.runners.runner import Runner
from ssra_engine.store import Store

__all__ = ["RoleEngines"]

_log = logging.getLogger(__name__)


class RoleEngines:
    """Engines by role, and by version of the query model.

    Attributes:
        stats: of the engines opened so far, by name.
    """

    def __init__(self, roles: Roles, store: Store, runner: Runner) -> None:
        self._roles = roles
        self._store = store
        self._runner = runner
        self._open: dict[str, Engine] = {}
        self.stats: dict[str, list[EngineStats]] = {}

    def folder(self, version: int) -> Path:
        """Where a retrained query model is; absolute, for other processes."""
        return self._store.folder.absolute() / "rounds" / str(version) / "query"

    def score(self) -> Engine:
        """The score model."""
        return self._engine("score", "score", self._roles.open_score)

    def comparator(self) -> Engine | None:
        """The language model that compares queries, where there is one."""
        load = self._roles.open_comparator
        return None if load is None else self._engine("comparator", "comparator", load)

    def query(self, version: int) -> Engine:
        """A query model by its version; 0 is that of the engines folder.

        Raises:
            StoreError: the files of a retrained one were changed.
        """
        name = f"query v{version + 1}"
        if name in self._open:
            return self._open[name]
        trained = self._store.find("model", round=version)
        if trained is None:
            return self._engine(name, "query", partial(self._roles.open_query, None))
        self._store.check(trained.get("files", {}))
        return self._engine(name, "query", partial(self._roles.open_query, self.folder(version)))

    def close(self) -> None:
        """Release all engines; their statistics stay."""
        for engine in self._open.values():
            engine.close()
        self._open = {}

    def _engine(self, name: str, role: Role, load: Callable[[], Engine]) -> Engine:
        if name not in self._open:
            _log.info("loading the %s model", name)
            self._open[name] = self._runner.open(role, load)
            self.stats.setdefault(name, []).append(self._open[name].stats)
        return self._open[name]
