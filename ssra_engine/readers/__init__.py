"""Streaming readers of tabular files: Arrow file and stream, Parquet, JSONL, CSV, TSV.

`find_sources` turns what a user typed (files, folders, globs, URIs) into an ordered list of files
of known format, `column_types` says which columns a file has, and `read` streams them as `Rows`.
What the columns mean is the business of `corpus` and `judgments`.
"""

from ssra_engine.readers.cells import MAX_CELL_BYTES, blank, is_text, text_cells
from ssra_engine.readers.jsonl import Kind
from ssra_engine.readers.rows import BadRow, Rows
from ssra_engine.readers.source import Source, files_key, find_sources
from ssra_engine.readers.stream import (
    check_columns,
    checked_cells,
    column_types,
    read,
    schema_metadata,
)

__all__ = [
    "MAX_CELL_BYTES",
    "BadRow",
    "Kind",
    "Rows",
    "Source",
    "blank",
    "check_columns",
    "checked_cells",
    "column_types",
    "files_key",
    "find_sources",
    "is_text",
    "read",
    "schema_metadata",
    "text_cells",
]
