"""Which engine backends there are, and what each needs to run. Imports none of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec

__all__ = ["BACKENDS", "Backend"]


@dataclass(frozen=True)
class Backend:
    """A way to run a model.

    Attributes:
        name: what ``--backend`` calls it.
        summary: one line for `ssra-engine doctor`.
        packages: modules it imports.
        install: what to install for them.
        needs_folder: whether it opens a model folder.
    """

    name: str
    summary: str
    packages: tuple[str, ...] = ()
    install: str = "ssra-engine"
    needs_folder: bool = True

    def problem(self) -> str | None:
        """Why it cannot run here and what to do about it, or None."""
        missing = [package for package in self.packages if find_spec(package) is None]
        if not missing:
            return None
        return f"needs {', '.join(missing)}: pip install '{self.install}'"


BACKENDS: Mapping[str, Backend] = {
    backend.name: backend
    for backend in (
        Backend("torch", "documents shared between prompts, on the CPU", ("torch", "transformers")),
        Backend("fake", "texts and scores from hashes, without a model", needs_folder=False),
    )
}
