"""How much of a description stands in its document, whatever its language and script.

A description is cut into pieces of four letters or digits, within words; of Chinese, Japanese and
Korean, whose characters say more, into pieces of two characters. Most words that only hold a
sentence together are shorter, and give no piece.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ssra_engine.keys import normalise
from ssra_engine.schema import DOCUMENT_TEXT_COLUMNS

__all__ = ["overlap"]

_DENSE = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}"
#: What parts the words of other scripts, and what the runs of these.
_GAPS = (rf"(?:[^\p{{L}}\p{{M}}\p{{N}}]|[{_DENSE}])+", rf"[^{_DENSE}]+")


def overlap(descriptions: pa.Array, documents: pa.RecordBatch) -> np.ndarray:
    """The share of the pieces of each description that stand in a field of its document.

    A piece counts once, however often it is said. Case and forms of characters do not matter.

    Args:
        descriptions: string[N], without nulls.
        documents: the document of each, rows of `schema.CORPUS`.

    Returns:
        float64[N]; not a number where a description has no piece.
    """
    fields = [documents.column(name) for name in DOCUMENT_TEXT_COLUMNS]
    told = normalise(pc.binary_join_element_wise(*fields, "\n")).to_pylist()
    written = normalise(descriptions)
    words, dense = (pc.replace_substring_regex(written, gap, " ").to_pylist() for gap in _GAPS)
    shares = np.full(len(descriptions), np.nan)
    for row, document in enumerate(told):
        pieces = _pieces(words[row], 4) | _pieces(dense[row], 2)
        if pieces:
            shares[row] = sum(piece in document for piece in pieces) / len(pieces)
    return shares


def _pieces(text: str, length: int) -> set[str]:
    return {
        run[start : start + length]
        for run in text.split()
        for start in range(len(run) - length + 1)
    }
