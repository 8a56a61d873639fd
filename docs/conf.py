"""How `bin/docs` builds these pages with Sphinx."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from sphinx.application import Sphinx

from ssra_engine import __version__

project = "ssra-engine"
project_copyright = "the authors of ssra-engine, Apache-2.0"
version = release = __version__

extensions = ["generated", "myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header", "toc.not_included"]

# In docstrings, `name` is code.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_use_ivar = True

html_theme = "furo"
html_title = "ssra-engine"
html_theme_options = {"source_directory": "docs/"}


def _plain_bars(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    """In docstrings |x| is an absolute value, not a substitution."""
    lines[:] = [line.replace("|", "\\|") for line in lines]


def setup(app: Sphinx) -> None:
    """Register the hook."""
    app.connect("autodoc-process-docstring", _plain_bars)
