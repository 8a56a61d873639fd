"""Why a sample was rejected, as small integers while it is worked on and as words in the tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ssra_engine.schema import DESCRIPTION_REASONS, REASONS

__all__ = ["KEPT", "decode_reasons", "encode_reasons", "reason_code"]

#: Code of a sample that passed; every other code is an index into
#: `schema.DESCRIPTION_REASONS`, which begins with `schema.REASONS`.
KEPT = -1


def reason_code(reason: str) -> int:
    """Code of a reason of `schema.DESCRIPTION_REASONS`."""
    return DESCRIPTION_REASONS.index(reason)


def encode_reasons(reasons: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Codes of a `reason` column, int8[len(reasons)]; `KEPT` where it is null."""
    if isinstance(reasons, pa.ChunkedArray):
        reasons = reasons.combine_chunks()
    codes = pc.index_in(reasons.cast(pa.string()), pa.array(DESCRIPTION_REASONS))
    codes = pc.if_else(codes.is_valid(), codes, KEPT)
    return np.asarray(codes.to_numpy(zero_copy_only=False), np.int8)


def decode_reasons(codes: np.ndarray, names: Sequence[str] = REASONS) -> pa.DictionaryArray:
    """The `reason` column of codes, int8[N], by their names; null where they are `KEPT`."""
    return pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes == KEPT), pa.array(names))
