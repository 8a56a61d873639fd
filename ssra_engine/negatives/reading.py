"""Columns of texts and grades out of a Dataset or an Arrow table."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ssra_engine.errors import DataError
from ssra_engine.negatives.settings import MiningError

__all__ = ["corpus_texts", "grade_column", "pick_columns", "text_column"]

_log = logging.getLogger(__name__)

_HIGHEST = np.iinfo(np.int8).max


def pick_columns(dataset: Any, anchor: str | None, positive: str | None) -> tuple[str, str]:
    """The columns of queries and positives: those named, or else the first and the second.

    Raises:
        MiningError: there are no rows, or no second column, or both would be the same.
    """
    names = dataset.column_names
    if len(dataset) == 0:
        raise MiningError("the dataset has no rows. Give pairs of query and positive.")
    for name in (anchor, positive):
        if name and name not in names:
            _log.warning("there is no column %r; the column is taken by its place instead.", name)
    if not anchor or anchor not in names:
        anchor = str(names[0])
    if not positive or positive not in names:
        if len(names) < 2:
            raise MiningError(
                f"the dataset has one column, '{names[0]}'. It needs two: query and positive."
            )
        positive = str(names[1])
    if anchor == positive:
        raise MiningError(f"column '{anchor}' would be both query and positive. Name both columns.")
    return anchor, positive


def text_column(dataset: Any, name: str) -> list[str]:
    """The texts of a column.

    Raises:
        DataError: a cell that is no text.
    """
    column = dataset[name]
    values = column.to_pylist() if isinstance(column, pa.ChunkedArray) else list(column)
    _check_texts(values, name)
    return values


def corpus_texts(corpus: Sequence[str] | pa.Array | pa.ChunkedArray | None) -> list[str]:
    """The documents of a corpus; none where there is no corpus.

    Raises:
        MiningError: one text instead of many.
        DataError: a document that is no text.
    """
    if isinstance(corpus, str):
        raise MiningError("corpus is one text. Give a list of texts.")
    if isinstance(corpus, (pa.Array, pa.ChunkedArray)):
        corpus = corpus.to_pylist()
    texts = list(corpus or ())
    _check_texts(texts, "corpus")
    return texts


def grade_column(dataset: Any, name: str) -> npt.NDArray[np.int8]:
    """The grades of a column, int8.

    Raises:
        MiningError: there is no such column.
        DataError: a cell that is no whole number from 0 to 127.
    """
    if name not in dataset.column_names:
        raise MiningError(
            f"there is no column '{name}' with grades, but {', '.join(dataset.column_names)}."
        )
    column = dataset[name]
    values = column.to_pylist() if isinstance(column, pa.ChunkedArray) else list(column)
    for row, value in enumerate(values):
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        if not whole or not 0 <= value <= _HIGHEST:
            raise DataError(
                f"{value!r} is no grade",
                column=name,
                row=row,
                mend=f"Give whole numbers from 0 to {_HIGHEST}",
            )
    return np.asarray(values, np.int8)


def _check_texts(values: Sequence[Any], name: str) -> None:
    for row, value in enumerate(values):
        if not isinstance(value, str):
            raise DataError(
                f"expected a text, found {value!r}",
                column=name,
                row=row,
                mend="Remove such rows or fill them in",
            )
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"half a surrogate pair at character {error.start} of {value[:40]!r}",
                column=name,
                row=row,
                mend="Decode the text again from its source",
            ) from error
