"""A deterministic engine without a model, for everything around the engines.

Its texts follow from hashes of the request, so a run can be repeated and compared, and they take
every road through the pipeline: most name the first words of the document and the digit that the
suffix asks for (after `MARK`); a few are empty, far too long, a copy of the first line, or the same
for all requests of a document, or for all documents. Its scores read the digit back and agree with
it about seven times in ten.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ssra_engine.engines.engine import GENERATED, Engine, Sampling, scored_schema
from ssra_engine.errors import EngineError
from ssra_engine.keys import hash_strings, mix

__all__ = ["MARK", "FakeEngine"]

#: In a generated text, the digit of the grade asked for follows this character.
MARK = "#"

_AGREES = 0.72
_NO_DIGIT = -1


class FakeEngine(Engine):
    """Texts and label logits made from hashes. `salt` stands for the weights of the model."""

    name = "fake"

    def __init__(self, salt: int = 0) -> None:
        super().__init__()
        self.salt = salt

    def generate_batches(
        self, batches: Iterable[pa.RecordBatch], sampling: Sampling
    ) -> Iterator[pa.RecordBatch]:
        """See `Engine.generate_batches`; a text is one line and one token."""
        for batch in batches:
            started = time.perf_counter()
            completions = self._complete(batch, sampling)
            self.stats.requests += batch.num_rows
            self.stats.generated_tokens += completions.num_rows
            self.stats.seconds += time.perf_counter() - started
            yield completions

    def score_batches(
        self, batches: Iterable[pa.RecordBatch], labels: Sequence[str | int]
    ) -> Iterator[pa.RecordBatch]:
        """See `Engine.score_batches`; a label is one character or a token id."""
        if any(isinstance(label, str) and len(label) != 1 for label in labels):
            raise EngineError(f"the fake engine scores labels of one character, got {labels}.")
        for batch in batches:
            started = time.perf_counter()
            logits = _label_logits(batch, labels)
            flat = pa.array(logits.ravel(), pa.float32())
            column = pa.FixedSizeListArray.from_arrays(flat, len(labels))
            self.stats.requests += batch.num_rows
            self.stats.seconds += time.perf_counter() - started
            yield pa.RecordBatch.from_arrays([column], schema=scored_schema(len(labels)))

    def _complete(self, batch: pa.RecordBatch, sampling: Sampling) -> pa.RecordBatch:
        prefixes, suffixes = _dictionary(batch, "prefix"), _dictionary(batch, "suffix")
        request = np.repeat(np.arange(batch.num_rows, dtype=np.int32), sampling.n)
        sample = np.tile(np.arange(sampling.n, dtype=np.int16), batch.num_rows)
        document = prefixes.indices.to_numpy()[request]
        question = suffixes.indices.to_numpy()[request]
        seeds = batch.column("seed").to_numpy()[request]
        keys = mix(
            hash_strings(prefixes.dictionary)[document],
            hash_strings(suffixes.dictionary)[question],
            seeds if sampling.temperature > 0 else 0,
            sample if sampling.temperature > 0 else 0,
            self.salt,
        )
        text = _texts(prefixes.dictionary, suffixes.dictionary, document, question, keys)
        rows = len(keys)
        tokens = (keys >> np.uint64(33)).astype(np.int32)
        return pa.RecordBatch.from_arrays(
            [
                pa.array(request),
                pa.array(sample),
                text,
                pa.ListArray.from_arrays(np.arange(rows + 1, dtype=np.int32), tokens),
                pa.array(-_uniform(keys, 7).astype(np.float32)),
                pa.array(["stop"]).take(pa.array(np.zeros(rows, np.int8))),
            ],
            schema=GENERATED,
        )


def _texts(
    prefixes: pa.Array,
    suffixes: pa.Array,
    document: np.ndarray,
    question: np.ndarray,
    keys: np.ndarray,
) -> pa.StringArray:
    """One text a row: the road is drawn from the key's low bits, the words from the document."""
    named = pc.replace_substring_regex(prefixes, r"^[^:]*:\s*", "", max_replacements=1)
    first_line = pc.list_element(pc.split_pattern(named, "\n", max_splits=1), 0)
    words = pc.utf8_slice_codeunits(first_line, 0, 12).take(pa.array(document))
    digits = pc.utf8_slice_codeunits(pc.replace_substring_regex(suffixes, r"[^0-9]+", ""), 0, 1)
    digit = digits.take(pa.array(question))
    tail = _hexadecimal(keys)
    road = (keys & np.uint64(63)).astype(np.uint8)
    text = pc.binary_join_element_wise(words, MARK, digit, " ", tail, "")
    if not (road < 12).any():
        return text
    rare = pa.array(road)
    first = first_line.take(pa.array(document))
    popular = pc.binary_join_element_wise(f"popular {MARK}", digit, "")
    return pc.case_when(
        pc.make_struct(
            pc.less(rare, 2),
            pc.equal(rare, 2),
            pc.less(rare, 5),
            pc.less(rare, 9),
            pc.less(rare, 12),
        ),
        pa.scalar(" "),
        pc.binary_repeat(tail, 40),
        first,
        pc.binary_join_element_wise(words, "again", ""),
        popular,
        text,
    )


def _label_logits(batch: pa.RecordBatch, labels: Sequence[str | int]) -> np.ndarray:
    """float32[rows, labels]: noise, and a push for the digit after `MARK` or for its neighbour."""
    prefixes = _dictionary(batch, "prefix")
    suffixes = batch.column("suffix")
    keys = mix(
        hash_strings(prefixes.dictionary)[prefixes.indices.to_numpy()], hash_strings(suffixes)
    )
    count = len(labels)
    logits = 2.0 * np.stack([_uniform(keys, 16 + label) for label in range(count)], axis=1)
    names = [int(x) if isinstance(x, str) and x.isdecimal() else i for i, x in enumerate(labels)]
    found = _digits_after_mark(suffixes)[:, None] == np.array(names)[None, :]
    asked = found.argmax(axis=1)
    step = np.where(_uniform(keys, 2) < 0.5, -1, 1)
    told = np.where(_uniform(keys, 3) < _AGREES, asked, np.clip(asked + step, 0, count - 1))
    any_label = (_uniform(keys, 4) * count).astype(np.int64)
    chosen = np.where(found.any(axis=1), told, any_label)
    logits[np.arange(len(keys)), chosen] += 1.0 + 2.0 * _uniform(keys, 5)
    return logits.astype(np.float32)


def _digits_after_mark(texts: pa.StringArray) -> np.ndarray:
    """The digit after the first `MARK` of each text, int64[len(texts)]; _NO_DIGIT without one."""
    place = pc.find_substring(texts, MARK).to_numpy()
    offsets = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset :][: len(texts) + 1]
    data = np.frombuffer(texts.buffers()[2] or b"", np.uint8)
    after = offsets[:-1].astype(np.int64) + place + len(MARK)
    inside = (place >= 0) & (after < offsets[1:])
    digits = np.full(len(texts), _NO_DIGIT, np.int64)
    digits[inside] = data[after[inside]].astype(np.int64) - ord("0")
    return digits


def _dictionary(batch: pa.RecordBatch, name: str) -> pa.DictionaryArray:
    column = batch.column(name)
    return column if isinstance(column, pa.DictionaryArray) else column.dictionary_encode()


def _uniform(keys: np.ndarray, stream: int) -> np.ndarray:
    """Numbers in [0, 1) from the top 53 bits of a key mixed with the stream, float64."""
    return (mix(keys, stream) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _hexadecimal(keys: np.ndarray) -> pa.StringArray:
    """Twelve hexadecimal digits of each key."""
    shifts = np.arange(4, 52, 4, dtype=np.uint64)
    nibbles = (keys[:, None] >> shifts[None, :]) & np.uint64(15)
    letters = np.frombuffer(b"0123456789abcdef", np.uint8)[nibbles]
    offsets = np.arange(0, letters.size + 1, letters.shape[1], dtype=np.int32)
    return pa.StringArray.from_buffers(len(keys), pa.py_buffer(offsets), pa.py_buffer(letters))
