"""Graded synthetic queries for search, and the embedding model they train (arXiv 2509.16717)."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
