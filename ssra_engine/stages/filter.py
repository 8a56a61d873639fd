"""The filters a sample must pass on its own: its text, its score (arXiv 2509.16717, stage 2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ssra_engine.calibration import Calibration
from ssra_engine.engines.engine import Engine
from ssra_engine.keys import hash_strings, normalise
from ssra_engine.reasons import KEPT, reason_code
from ssra_engine.schema import DOCUMENT_TEXT_COLUMNS

__all__ = [
    "DocumentForms",
    "check_scores",
    "check_text",
    "document_forms",
    "score",
]

# A query is a copy of the title when one holds the other and is at most this much of it longer.
_COPIED_SHARE = 0.8

# A document text longer than this many times the longest query allowed is not compared with
# queries: NFKC and lower case shorten a text, but not by so much.
_COMPARED_LENGTH = 4


@dataclass(frozen=True)
class DocumentForms:
    """What a copied query would equal.

    Attributes:
        title: normalised title of each document, string[D].
        keys: hash of each normalised text column that is short enough, uint64[D, 4].
    """

    title: pa.StringArray
    keys: np.ndarray


def document_forms(documents: pa.RecordBatch, max_query_chars: int) -> DocumentForms:
    """Normalised forms of the texts of `documents` (`schema.CORPUS`), once for all its samples."""
    forms = []
    for name in DOCUMENT_TEXT_COLUMNS:
        texts = documents.column(name)
        short = pc.less_equal(pc.utf8_length(texts), _COMPARED_LENGTH * max_query_chars)
        forms.append(normalise(pc.if_else(short, texts, "")))
    return DocumentForms(forms[0], np.stack([hash_strings(form) for form in forms], axis=1))


def check_text(
    queries: pa.StringArray,
    *,
    normalised: pa.StringArray,
    keys: np.ndarray,
    ended: np.ndarray,
    document: np.ndarray,
    forms: DocumentForms,
    max_query_chars: int,
) -> np.ndarray:
    """Reject what is no query: empty, too long, or copied from the document.

    A query with bytes that are no character (they decode to U+FFFD) counts as empty: what it says
    is lost.
    A query is too long above `max_query_chars`, and also when generation ran into its limit: its
    end is missing. It is copied when its normalised form equals that of the title, text, ocr or
    asr, or when it and the title differ only by what surrounds the shorter one, which is at least
    80 % of the longer one's characters.

    Args:
        queries: white space collapsed, string[N].
        normalised: see `keys.normalise`, string[N].
        keys: hashes of `normalised`, uint64[N].
        ended: whether generation ended by itself, bool[N].
        document: index of each sample's document, int32[N].
        forms: of the documents.
        max_query_chars: in Unicode code points.

    Returns:
        reason codes, int8[N].
    """
    codes = np.full(len(queries), KEPT, np.int8)
    copied = (forms.keys[document] == keys[:, None]).any(axis=1)
    copied |= _holds_most_of_title(normalised, document, forms.title)
    codes[copied] = reason_code("copied")
    lengths = pc.utf8_length(queries).to_numpy()
    codes[(lengths > max_query_chars) | ~ended] = reason_code("too_long")
    broken = pc.match_substring(queries, "\ufffd").to_numpy(zero_copy_only=False)
    codes[(lengths == 0) | broken] = reason_code("empty")
    return codes


def _holds_most_of_title(
    normalised: pa.StringArray, document: np.ndarray, titles: pa.StringArray
) -> np.ndarray:
    query_length = pc.utf8_length(normalised).to_numpy()
    title_length = pc.utf8_length(titles).to_numpy()[document]
    shorter = np.minimum(query_length, title_length)
    longer = np.maximum(query_length, title_length)
    likely: np.ndarray = (shorter > 0) & (shorter >= _COPIED_SHARE * longer)
    rows = np.flatnonzero(likely)
    pairs = zip(
        normalised.take(pa.array(rows)).to_pylist(),
        titles.take(pa.array(document[rows])).to_pylist(),
        strict=True,
    )
    holds = np.fromiter((q in t or t in q for q, t in pairs), bool, len(rows))
    likely[rows] = holds
    return likely


def score(
    engine: Engine,
    batches: Iterator[pa.RecordBatch],
    labels: Sequence[str | int],
    calibration: Calibration,
    done: Callable[[int], None],
) -> np.ndarray:
    """Distribution over grades of each (document, query): its label logits, calibrated.

    Args:
        engine: the score model.
        batches: `REQUESTS` with score suffixes.
        labels: the label of each grade, lowest first.
        calibration: of the score model.
        done: told the number of requests scored, batch by batch.

    Returns:
        float32[N, len(labels)]; not a number where the model's logits are not.
    """
    parts = []
    for scores in engine.score_batches(batches, labels):
        flat = scores.column("logits").flatten().to_numpy(zero_copy_only=False)
        parts.append(calibration.probs(flat.reshape(-1, len(labels))))
        done(len(parts[-1]))
    return np.concatenate(parts) if parts else np.empty((0, len(labels)), np.float32)


def check_scores(probs: np.ndarray, grades: np.ndarray, min_confidence: float) -> np.ndarray:
    """Keep a sample only where the score model predicts the target grade, and surely enough.

    Args:
        probs: float32[N, G].
        grades: target grade of each sample, integer[N].
        min_confidence: least probability of the target grade.

    Returns:
        reason codes, int8[N]; `error` where the distribution is not a number.
    """
    codes = np.full(len(probs), KEPT, np.int8)
    confidence = probs[np.arange(len(probs)), grades]
    codes[confidence < min_confidence] = reason_code("low_confidence")
    codes[probs.argmax(axis=1) != grades] = reason_code("score_mismatch")
    codes[~np.isfinite(probs).all(axis=1)] = reason_code("error")
    return codes
