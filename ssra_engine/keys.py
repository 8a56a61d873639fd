"""64-bit keys: of documents, requests and queries, in columns.

Strings are hashed with XXH3 and numbers are mixed in with splitmix64 (Steele et al., OOPSLA 2014),
so a key depends on values only: not on the platform, the process or the size of a batch.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from ssra_engine.prompts import collapse_whitespace

__all__ = ["hash_strings", "mix", "normalise", "splitmix64"]


def hash_strings(texts: pa.Array, seed: int = 0) -> np.ndarray:
    """XXH3 of the UTF-8 bytes of each text (no nulls), uint64[len(texts)]."""
    values = texts.cast(pa.binary()).to_numpy(zero_copy_only=False)
    if seed:
        keys = (xxhash.xxh3_64_intdigest(value, seed) for value in values)
        return np.fromiter(keys, np.uint64, len(values))
    return np.fromiter(map(xxhash.xxh3_64_intdigest, values), np.uint64, len(values))


def splitmix64(values: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64: a bijection that spreads uint64 `values` over 64 bits."""
    z = values + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def mix(keys: np.ndarray, *numbers: np.ndarray | int) -> np.ndarray:
    """Fold numbers (arrays that broadcast, or ints >= 0) into `keys`, uint64, one at a time."""
    for number in numbers:
        keys = splitmix64(keys ^ splitmix64(np.atleast_1d(np.asarray(number)).astype(np.uint64)))
    return keys


def normalise(texts: pa.Array) -> pa.Array:
    """The form under which two queries are the same: NFKC, lower case, white space collapsed."""
    lowered = pc.utf8_lower(pc.utf8_normalize(texts, "NFKC"))
    return collapse_whitespace(lowered)
