"""Text cells: from any Arrow text type to `string`, with the bad ones named."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["BLANK", "MAX_CELL_BYTES", "BadCell", "blank", "is_text", "text_cells"]

#: A larger cell is a mistake (a quote that never closes, a file pasted into a column), and would
#: break the promise of bounded memory.
MAX_CELL_BYTES = 16 << 20

#: Text of which a prompt shows nothing: white space, control and format characters only.
BLANK = r"^[\s\pZ\pC]*$"

#: Index of the cell, what is wrong, the mend.
BadCell = tuple[int, str, str]


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type can hold text; a column of nulls can."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return any(
        check(kind)
        for check in (
            pa.types.is_string,
            pa.types.is_large_string,
            pa.types.is_string_view,
            pa.types.is_null,
        )
    )


def blank(texts: pa.Array) -> pa.Array:
    """Mask of the texts that show nothing; null stays null."""
    return pc.match_substring_regex(texts, BLANK)


def text_cells(array: pa.Array) -> tuple[pa.Array, list[BadCell]]:
    """Look at every byte of a text column.

    Args:
        array: any type that `is_text` accepts, as it came from the file.

    Returns:
        string[len(array)], valid UTF-8, with nulls where the file has them and where a cell is
        bad; and the bad cells: invalid UTF-8, NUL bytes, larger than `MAX_CELL_BYTES`.

    Raises:
        pa.ArrowInvalid: the array's offsets or indices are damaged.
    """
    array = _decoded(array)
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), pa.string()), []
    if len(array) == 0:
        return array.cast(pa.string()), []
    raw = array.view(pa.large_binary() if pa.types.is_large_string(array.type) else pa.binary())
    raw.validate(full=True)  # offsets, before anything follows them
    if _clean(array, raw):
        return array.cast(pa.string()), []
    values = raw.to_pylist()
    bad = [(i, *found) for i, value in enumerate(values) if (found := _fault(value)) is not None]
    for index, _, _ in bad:
        values[index] = None
    return pa.array(values, pa.binary()).cast(pa.string()), bad


def _decoded(array: pa.Array) -> pa.Array:
    """`string`, `large_string` or `null`, with nothing but the layout changed."""
    if pa.types.is_dictionary(array.type):
        values = _decoded(array.dictionary)
        indices = array.indices
        indices.validate()
        bounds = pc.min_max(indices)
        low, high = bounds["min"].as_py(), bounds["max"].as_py()
        if low is not None and (low < 0 or high >= len(values)):
            raise pa.ArrowInvalid(f"dictionary index {low if low < 0 else high} out of range")
        if not pa.types.is_null(values.type):
            large = pa.types.is_large_string(values.type)
            values.view(pa.large_binary() if large else pa.binary()).validate(full=True)
        return values.take(indices)
    if pa.types.is_string_view(array.type):
        views = array.view(pa.binary_view())
        views.validate(full=True)
        return views.cast(pa.large_binary()).view(pa.large_string())
    return array


def _clean(array: pa.Array, raw: pa.Array) -> bool:
    _, offsets_buffer, data = raw.buffers()
    kind = np.int64 if pa.types.is_large_binary(raw.type) else np.int32
    offset = raw.offset * np.dtype(kind).itemsize
    offsets = np.frombuffer(offsets_buffer, kind, len(raw) + 1, offset)
    if int(np.diff(offsets).max()) > MAX_CELL_BYTES:
        return False
    if offsets[-1] > offsets[0]:
        text = np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]]
        if int(text.min()) == 0:
            return False
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _fault(value: bytes | None) -> tuple[str, str] | None:
    if value is None:
        return None
    if len(value) > MAX_CELL_BYTES:
        return (
            f"the cell holds {len(value) >> 20} MiB of text, at most {MAX_CELL_BYTES >> 20} fit",
            "Cut the text, or look for a quote that is never closed",
        )
    if b"\0" in value:
        return f"a NUL byte at byte {value.index(0)}", "Remove it; is it binary data?"
    try:
        value.decode("utf-8")
    except UnicodeDecodeError as error:
        return (
            f"invalid UTF-8 at byte {error.start} (0x{value[error.start]:02x})",
            "Write the file as UTF-8, for instance with iconv -t UTF-8",
        )
    return None
