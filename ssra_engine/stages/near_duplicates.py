"""Near duplicates: queries that share most of their character 3-grams.

The similarity of two queries is the Jaccard index of their sets of 3-grams, taken over the letters
and digits of the normalised query (`keys.normalise`) with two blanks at each end. It is one rule
for every script, and white space and punctuation do not matter to it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ssra_engine.buckets import HELD, Buckets
from ssra_engine.disk_array import disk_array
from ssra_engine.keys import mix, splitmix64

__all__ = ["find_near_repeats", "near_repeats", "similarity"]

_NO_LETTER_OR_DIGIT = r"[^\p{L}\p{M}\p{N}]+"
_PAD = "\0\0"

# MinHash (Broder, 1997): queries are compared when all values of one band of theirs are equal. So
# many bands that a pair just similar enough is missed once in a thousand times.
_BAND_VALUES = 4
_MISSED = 1e-3
# Of queries with one band in common, each is compared with the first of them only: were there
# many, comparing all pairs would take for ever.
_COMPARED = 64

_BAND = np.dtype([("key", "<u8"), ("row", "<u8")])
_PAIR = np.dtype([("key", "<u8"), ("earlier", "<u8")])


def similarity(one: str, other: str) -> float:
    """Jaccard index of the 3-grams of two forms (see `_forms`)."""
    ours, theirs = _grams(one), _grams(other)
    shared = len(ours & theirs)
    return shared / (len(ours) + len(theirs) - shared)


def near_repeats(
    queries: pa.Array, group: np.ndarray, alive: np.ndarray, least: float
) -> np.ndarray:
    """Living rows that are near duplicates of an earlier row of their group that stays, bool[N].

    Args:
        queries: normalised, string[N].
        group: integer[N].
        alive: rows that count, bool[N].
        least: similarity from which two queries are near duplicates.
    """
    again = np.zeros(len(alive), bool)
    rows = np.flatnonzero(alive)
    rows = rows[np.argsort(group[rows], kind="stable")]
    _, counts = np.unique(group[rows], return_counts=True)
    several = np.repeat(counts > 1, counts)
    rows, groups = rows[several], group[rows][several]
    if not len(rows):
        return again
    forms = _forms(queries.take(pa.array(rows)))
    sketches, sizes = _sketches(forms)
    found = []
    for lag in range(1, int(counts.max())):
        first = np.flatnonzero(groups[lag:] == groups[:-lag])
        likely = _may_be_near(sketches, sizes, first, first + lag, least)
        found.append(np.stack([first[likely] + lag, first[likely]], axis=1))
    pairs = np.concatenate(found)
    for later, earlier in pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))].tolist():
        if again[rows[later]] or again[rows[earlier]]:
            continue
        again[rows[later]] = similarity(forms[later].as_py(), forms[earlier].as_py()) >= least
    return again


def find_near_repeats(
    chunks: Iterable[tuple[pa.Array, np.ndarray, np.ndarray]],
    rows: int,
    least: float,
    scratch: Path,
    held: int = HELD,
) -> np.ndarray:
    """Rows of a long table that are near duplicates of an earlier row of their group that stays.

    As `near_repeats`, for tables that do not fit memory: what is known of each row lies in files,
    and MinHash proposes the pairs that are compared. A pair that is just similar enough is missed
    with a probability of 1e-3, and of more than 64 queries with one band in common each is compared
    with the first 64. It is deterministic: the same table gives the same answer.

    Args:
        chunks: consecutive (normalised queries string[n], group uint64[n], alive bool[n]) of the
            table, in row order.
        rows: length of the table.
        least: similarity from which two queries are near duplicates.
        scratch: a folder to work in, with no files of this function yet.
        held: entries held in memory before files are written.

    Returns:
        uint8[rows], 1 where the row is a near duplicate; a memory map.
    """
    table = _Table(rows, scratch)
    bands = Buckets(scratch, "bands", _BAND, held)
    count = math.ceil(math.log(_MISSED) / math.log1p(-(least**_BAND_VALUES))) if least < 1 else 1
    start = 0
    for queries, group, alive in chunks:
        living = np.flatnonzero(alive)
        forms = _forms(queries.take(pa.array(living)))
        table.add(living + start, forms)
        for keys in _band_keys(forms, count):
            entries = np.empty(len(living), _BAND)
            entries["key"], entries["row"] = mix(keys, group[living]), living + start
            bands.add(entries)
        start += len(alive)
    table.written()
    pairs = Buckets(scratch, "pairs", _PAIR, held)
    shift = np.uint64(64 - max(rows, 2).bit_length())
    for entries in bands.drain():
        for later, earlier in _propose(entries):
            likely = _may_be_near(table.sketches, table.sizes, earlier, later, least)
            proposed = np.empty(int(likely.sum()), _PAIR)
            # Buckets by the top bits of the row itself come in the order of the table.
            proposed["key"] = later[likely] << shift
            proposed["earlier"] = earlier[likely]
            pairs.add(proposed)
    answer = disk_array(scratch / "near", np.uint8, rows)
    for proposals in pairs.drain():
        ordered = np.unique(proposals)
        later = (ordered["key"] >> shift).tolist()
        for one, other in zip(later, ordered["earlier"].tolist(), strict=True):
            if not answer[one] and not answer[other]:
                answer[one] = similarity(table.form(one), table.form(other)) >= least
    return answer


class _Table:
    """Form, sketch and size of each row, in files."""

    def __init__(self, rows: int, scratch: Path) -> None:
        self.sketches = disk_array(scratch / "sketches", np.uint64, rows)
        self.sizes = disk_array(scratch / "sizes", np.int32, rows)
        self._places = disk_array(scratch / "places", np.int64, rows, 2)
        self._path = scratch / "forms"
        self._file = self._path.open("wb")
        self._texts = np.empty(0, np.uint8)

    def add(self, rows: np.ndarray, forms: pa.Array) -> None:
        self.sketches[rows], self.sizes[rows] = _sketches(forms)
        encoded = forms.cast(pa.binary()).to_pylist()
        ends = self._file.tell() + np.cumsum(list(map(len, encoded)), dtype=np.int64)
        self._places[rows, 0] = np.concatenate([[self._file.tell()], ends])[:-1]
        self._places[rows, 1] = ends
        self._file.write(b"".join(encoded))

    def written(self) -> None:
        size = self._file.tell()
        self._file.close()
        if size:
            self._texts = np.memmap(self._path, np.uint8, "r")

    def form(self, row: int) -> str:
        first, last = self._places[row]
        return self._texts[first:last].tobytes().decode()


def _forms(queries: pa.Array) -> pa.Array:
    """Letters and digits of normalised queries; the query itself where it has none."""
    forms = pc.replace_substring_regex(queries, _NO_LETTER_OR_DIGIT, "")
    return pc.if_else(pc.equal(forms, ""), queries, forms)


def _grams(form: str) -> set[str]:
    padded = f"{_PAD}{form}{_PAD}"
    return {padded[place : place + 3] for place in range(len(padded) - 2)}


def _gram_keys(forms: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """The 3-grams of all forms one after another, uint64, and where those of each begin, int64."""
    texts = forms.to_pylist()
    stream = np.frombuffer((_PAD + _PAD.join(texts) + _PAD).encode("utf-32-le"), np.uint32)
    points = stream.astype(np.uint64)
    # Three code points of 21 bits. Texts share the blanks between them, so no gram spans two.
    grams = points[:-2] << np.uint64(42) | points[1:-1] << np.uint64(21) | points[2:]
    sizes = np.fromiter(map(len, texts), np.int64, len(texts)) + 2
    return grams, np.cumsum(sizes) - sizes


def _sketches(forms: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """A 64-bit set of hashed 3-grams for each form, uint64[N], and how many it has, int32[N]."""
    if not len(forms):
        return np.empty(0, np.uint64), np.empty(0, np.int32)
    grams, starts = _gram_keys(forms)
    bits = np.uint64(1) << (splitmix64(grams) >> np.uint64(58))
    sizes = np.diff(np.append(starts, len(grams))).astype(np.int32)
    return np.bitwise_or.reduceat(bits, starts), sizes


def _may_be_near(
    sketches: np.ndarray, sizes: np.ndarray, one: np.ndarray, other: np.ndarray, least: float
) -> np.ndarray:
    """Whether pairs of rows can be near duplicates, bool[P]; false is certain.

    Two sets A and B are similar enough where |A xor B| <= (1-t)/(1+t) (|A|+|B|), and each bit in
    which the sketches differ stands for at least one element of A xor B.
    """
    differ = np.bitwise_count(sketches[one] ^ sketches[other])
    most: np.ndarray = (1 - least) / (1 + least) * (sizes[one] + sizes[other])
    may_be: np.ndarray = differ <= most + 1e-9
    return may_be


def _band_keys(forms: pa.Array, count: int) -> Iterator[np.ndarray]:
    """Key of each band of each form, uint64[N]: of its number and its MinHash values."""
    if not len(forms):
        return
    grams, starts = _gram_keys(forms)
    for band in range(count):
        keys = np.full(len(starts), band, np.uint64)
        for value in range(_BAND_VALUES):
            hashes = mix(grams, band * _BAND_VALUES + value)
            keys = mix(keys, np.minimum.reduceat(hashes, starts))
        yield keys


def _propose(entries: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(later, earlier) rows with equal keys, each with the first `_COMPARED` of its key."""
    entries = np.sort(entries, order=["key", "row"])
    key, row = entries["key"], entries["row"]
    again = np.append(False, key[1:] == key[:-1])
    start = np.maximum.accumulate(np.where(again, 0, np.arange(len(key))))
    for number in range(_COMPARED):
        later = np.flatnonzero(start + number < np.arange(len(key)))
        if not len(later):
            return
        yield row[later], row[start[later] + number]
