"""Text files, a block of whole lines at a time.

A block is parsed in columns by pyarrow where that is exact: one row a line, no quotes, nothing
malformed. Any other block is parsed by the standard library, row by row, which knows the line of
every row and what is wrong with it. Both give the same rows.
"""

from __future__ import annotations

from collections.abc import Iterator

from ssra_engine.readers.source import Source

__all__ = ["MAX_LINE_BYTES", "blocks"]

#: A longer line is not read: its row is bad.
MAX_LINE_BYTES = 64 << 20

_BLOCK_BYTES = 1 << 20
_BOM = b"\xef\xbb\xbf"


def blocks(source: Source) -> Iterator[bytes | None]:
    """Blocks of whole lines, each line with its line break, the last one too; no byte order mark.

    None stands for one line of more than `MAX_LINE_BYTES`.
    """
    with source.filesystem.open_input_stream(source.path, compression=None) as stream:
        pieces: list[bytes] = []
        skipping = False
        first = True
        while chunk := stream.read(_BLOCK_BYTES):
            if first:
                chunk = chunk.removeprefix(_BOM)
                first = False
            if skipping:
                end = chunk.find(b"\n") + 1
                if not end:
                    continue
                yield None
                skipping = False
                chunk = chunk[end:]
            end = chunk.rfind(b"\n") + 1
            if end:
                yield b"".join((*pieces, chunk[:end]))
                pieces = []
            if end < len(chunk):
                pieces.append(chunk[end:])
            if sum(map(len, pieces)) > MAX_LINE_BYTES:
                pieces = []
                skipping = True
        if skipping:
            yield None
        elif pieces:
            yield b"".join((*pieces, b"\n"))
