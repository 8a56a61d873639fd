from __future__ import annotations

import numpy as np
import pyarrow as pa

from ssra_engine.reasons import KEPT, decode_reasons, encode_reasons, reason_code
from ssra_engine.schema import REASONS, REJECTED


def test_there_and_back() -> None:
    codes = np.array([KEPT, *range(len(REASONS)), KEPT], np.int8)
    column = decode_reasons(codes)
    assert column.type == REJECTED.field("reason").type
    assert column.to_pylist() == [None, *REASONS, None]
    assert encode_reasons(column).tolist() == codes.tolist()
    assert encode_reasons(pa.chunked_array([column, column])).tolist() == codes.tolist() * 2


def test_codes_do_not_depend_on_the_dictionary() -> None:
    column = pa.array(["error", None, "empty"]).dictionary_encode()
    assert encode_reasons(column).tolist() == [reason_code("error"), KEPT, reason_code("empty")]
    assert len(encode_reasons(column.slice(0, 0))) == 0
