"""How large the record batches of an Arrow file say they are, read before they are decompressed.

A compressed buffer begins with its length in full, and a reader allocates and fills that much: a
few kilobytes can ask for any amount of memory. Layout: arrow.apache.org/docs/format/Columnar.html
(encapsulated messages, buffer compression), and the FlatBuffers of format/Message.fbs and File.fbs.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pyarrow as pa

from ssra_engine.readers.source import Source

__all__ = ["MOST_BATCH_BYTES", "check_declared"]

#: A record batch that decompresses to more is refused.
MOST_BATCH_BYTES = 2 << 30

_MAGIC = b"ARROW1"
_CONTINUATION = 0xFFFFFFFF
_DICTIONARY, _RECORDS = 2, 3


def check_declared(source: Source) -> None:
    """Look at every message of a local Arrow file or stream; data is not read.

    Raises:
        DataError: a record batch or dictionary says it is larger than `MOST_BATCH_BYTES`.
        pa.ArrowInvalid: the file is damaged.
    """
    with source.filesystem.open_input_file(source.path) as file:
        places = _blocks(file) if source.format == "arrow file" else _messages(file)
        try:
            for place in places:
                declared = _declared(file, place)
                if declared > MOST_BATCH_BYTES:
                    raise source.error(
                        f"a record batch decompresses to {declared:,} bytes, at most "
                        f"{MOST_BATCH_BYTES:,} fit",
                        "Write the file with fewer rows a batch",
                    )
        except (struct.error, IndexError, OverflowError) as error:
            raise pa.ArrowInvalid(f"a damaged message header: {error}") from error


class _Table:
    """A table of a FlatBuffer: fields by number, found through its vtable."""

    def __init__(self, data: bytes, place: int) -> None:
        self._data = data
        self._place = place
        self._vtable = place - _number("<i", data, place)

    def field(self, number: int) -> int | None:
        """Where a field lies, or None where it has its default."""
        if 4 + 2 * number >= _number("<H", self._data, self._vtable):
            return None
        offset = _number("<H", self._data, self._vtable + 4 + 2 * number)
        return self._place + offset if offset else None

    def scalar(self, number: int, form: str) -> int:
        """A field that is a number; 0 by default."""
        place = self.field(number)
        return 0 if place is None else _number(form, self._data, place)

    def table(self, number: int) -> _Table | None:
        """A field that is a table."""
        place = self.field(number)
        return (
            None if place is None else _Table(self._data, place + _number("<I", self._data, place))
        )

    def structs(self, number: int, form: str) -> list[tuple[int, ...]]:
        """A field that is a vector of structs of numbers."""
        place = self.field(number)
        if place is None:
            return []
        place += _number("<I", self._data, place)
        count, size = _number("<I", self._data, place), struct.calcsize(form)
        end = place + 4 + count * size
        if end > len(self._data):
            raise IndexError("a vector goes beyond its message")
        return list(struct.iter_unpack(form, self._data[place + 4 : end]))


def _number(form: str, data: bytes, place: int) -> int:
    if place < 0:
        raise IndexError("an offset points before its message")
    (value,) = struct.unpack_from(form, data, place)
    return int(value)


def _blocks(file: pa.NativeFile) -> Iterator[int]:
    """Where the messages lie that the footer of a file names."""
    size = file.size()
    file.seek(max(size - 10, 0))
    tail = file.read(10)
    length = _number("<i", tail, 0)
    if tail[4:] != _MAGIC or not 0 < length <= size - 10:
        raise pa.ArrowInvalid("the footer is damaged")
    file.seek(size - 10 - length)
    data = file.read(length)
    footer = _Table(data, _number("<I", data, 0))
    for vector in (2, 3):  # dictionaries, record batches
        for offset, *_ in footer.structs(vector, "<qi4xq"):
            yield offset


def _messages(file: pa.NativeFile) -> Iterator[int]:
    """Where the messages of a stream lie, one after the other."""
    place, size = 0, file.size()
    while place + 8 <= size:
        yield place
        message, end = _message(file, place)
        if message is None:
            return
        place = end + max(message.scalar(3, "<q"), 0)


def _message(file: pa.NativeFile, place: int) -> tuple[_Table | None, int]:
    """The header of a message, None at the end of a stream; and where its body begins."""
    if not 0 <= place <= file.size():
        raise IndexError("a message beyond the file")
    file.seek(place)
    prefix = file.read(8)
    mark, length = struct.unpack("<Ii", prefix)
    if mark != _CONTINUATION or length < 0:
        raise IndexError("no message where one is expected")
    if length == 0:
        return None, place + 8
    data = file.read(length)
    return _Table(data, _number("<I", data, 0)), place + 8 + length


def _declared(file: pa.NativeFile, place: int) -> int:
    """Bytes that a message's compressed buffers say they hold in all."""
    message, body = _message(file, place)
    kind = 0 if message is None else message.scalar(1, "<B")
    batch = None if message is None else message.table(2)
    if batch is not None and kind == _DICTIONARY:
        batch = batch.table(1)
    elif kind != _RECORDS:
        return 0
    if batch is None or batch.field(3) is None:
        return 0
    total = 0
    for offset, length in batch.structs(2, "<qq"):
        if length >= 8 and 0 <= body + offset <= file.size():
            file.seek(body + offset)
            total += max(_number("<q", file.read(8), 0), 0)
    return total
