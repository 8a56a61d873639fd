"""Valid files of every format, and what is done to their bytes."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from files import FORMATS, write

from ssra_engine.schema import NEGATIVES

__all__ = ["mutate", "negatives_files", "table_files"]

_ROWS = [
    {
        "doc_id": f"doc {number}",
        "title": f"title {number} 小猫" if number % 3 else None,
        "text": "words " * (number * 5 + 1),
        "ocr": "",
        "query": f"query {number}",
        "grade": number % 4,
        "split": "train" if number % 2 else "dev",
    }
    for number in range(24)
]

# Numbers at the borders of the integers in headers, little-endian.
_NUMBERS = [
    number.to_bytes(width, "little", signed=number < 0)
    for width in (1, 2, 4, 8)
    for number in (0, 1, -1, (1 << (8 * width - 1)) - 1, -(1 << (8 * width - 1)), 255 >> 1)
]
_WORDS = [
    *(b"\0", b"\xff\xfe", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\r", b"\n", b"\r\n", b'"', b'""'),
    *(b"null", b"NaN", b"1e999", b"9" * 400, b"[" * 300, b"{" * 300, b'{"a":' * 200, b"true"),
    *(b"../../etc/passwd", b"&a ", b"*a", b"!!int x", b"!!timestamp x", b"!!bool 7", b": ", b"- "),
    *(b"ARROW1", b"PAR1", b"\xff\xff\xff\xff", b"doc_id", b"title", b"grade", b"doc_id,doc_id"),
]


def table_files(folder: Path) -> dict[str, bytes]:
    """Name to content: tables in every format, and variants of layout and compression."""
    table = pa.Table.from_pylist(_ROWS)
    found: dict[str, bytes] = {}
    for suffix in FORMATS:
        found[f"plain.{suffix}"] = write(table, folder / f"seed.{suffix}").read_bytes()
    layouts = table.set_column(1, "title", table["title"].cast(pa.string_view()))
    layouts = layouts.set_column(2, "text", table["text"].cast(pa.large_string()))
    layouts = layouts.set_column(3, "ocr", table["ocr"].dictionary_encode())
    layouts = layouts.append_column("other", pa.array([[{"a": n}] for n in range(len(table))]))
    for codec in (None, "lz4", "zstd"):
        options = pa.ipc.IpcWriteOptions(compression=codec)
        for suffix, new in (("arrow", pa.ipc.new_file), ("arrows", pa.ipc.new_stream)):
            sink = io.BytesIO()
            with new(sink, layouts.schema, options=options) as writer:
                writer.write_table(layouts, max_chunksize=9)
            found[f"layouts-{codec}.{suffix}"] = sink.getvalue()
    nested = table.append_column("other", pa.array([[{"a": n}] for n in range(len(table))]))
    for codec in ("none", "snappy", "gzip", "zstd", "lz4", "brotli"):
        sink = io.BytesIO()
        pq.write_table(
            nested,
            sink,
            compression=codec,
            data_page_version="2.0" if codec == "zstd" else "1.0",
            use_dictionary=codec != "gzip",
            write_page_checksum=codec == "lz4",
            row_group_size=10,
        )
        found[f"{codec}.parquet"] = sink.getvalue()
    quoted = 'doc_id,title,query,grade\r\nd1,"a\nb",q,1\r\nd2,"c""d",q,2\r\n'
    found["quoted.csv"] = quoted.encode()
    found["escaped.jsonl"] = b"".join(
        json.dumps(row).encode() + b"\n" for row in [*_ROWS[:6], {"doc_id": "x", "title": "\u2028"}]
    )
    return found


def negatives_files() -> dict[str, bytes]:
    """Name to content: mined negatives as lists, of which the readers make rows."""
    lists = [
        {
            "query": f"query {number}",
            "doc_id": f"doc {number}",
            "grade": number % 4,
            "score": 0.5,
            "negative_doc_ids": [f"doc {other}" for other in range(number % 3)],
            "negative_scores": [0.25] * (number % 3),
            "negative_grades": [0] * (number % 3),
        }
        for number in range(24)
    ]
    table = pa.Table.from_pylist(lists, schema=NEGATIVES)
    found: dict[str, bytes] = {}
    for codec in (None, "zstd"):
        sink = io.BytesIO()
        options = pa.ipc.IpcWriteOptions(compression=codec)
        with pa.ipc.new_file(sink, table.schema, options=options) as writer:
            writer.write_table(table, max_chunksize=9)
        found[f"negatives-{codec}.arrow"] = sink.getvalue()
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=10)
    return found | {"negatives.parquet": sink.getvalue()}


def mutate(data: bytes, dice: random.Random, others: list[bytes]) -> bytes:
    """A few random changes: bytes, numbers, words, pieces cut, doubled, moved, from elsewhere."""
    changed = bytearray(data)
    for _ in range(dice.choice([1, 1, 1, 2, 3, 5, 12])):
        dice.choice(_CHANGES)(changed, dice, others)
    return bytes(changed)


def _place(data: bytearray, dice: random.Random) -> int:
    """Any place; the ends, which hold headers and footers, more often."""
    if not data:
        return 0
    near = min(len(data), dice.choice([16, 128, 1024, len(data)]))
    return dice.randrange(near) if dice.random() < 0.5 else len(data) - 1 - dice.randrange(near)


def _flip(data: bytearray, dice: random.Random, others: list[bytes]) -> None:
    if data:
        data[_place(data, dice)] ^= 1 << dice.randrange(8)


def _byte(data: bytearray, dice: random.Random, others: list[bytes]) -> None:
    if data:
        data[_place(data, dice)] = dice.choice([0, 1, 127, 128, 255, dice.randrange(256)])


def _number(data: bytearray, dice: random.Random, others: list[bytes]) -> None:
    number = dice.choice(_NUMBERS)
    place = _place(data, dice)
    data[place : place + len(number)] = number


def _word(data: bytearray, dice: random.Random, others: list[bytes]) -> None:
    place = _place(data, dice)
    data[place:place] = dice.choice(_WORDS)


def _cut(data: bytearray, dice: random.Random, others: list[bytes]) -> None:
    place = _place(data, dice)
    del data[place : place + dice.choice([1, 2, 8, 64, len(data)])]


def _double(data: bytearray, dice: random.Random, others: list[bytes]) -> None:
    place, size = _place(data, dice), dice.choice([1, 4, 16, 256])
    data[place:place] = data[place : place + size] * dice.choice([1, 2, 50])


def _graft(data: bytearray, dice: random.Random, others: list[bytes]) -> None:
    other = dice.choice(others)
    start, place = dice.randrange(max(len(other), 1)), _place(data, dice)
    piece = other[start : start + dice.choice([8, 64, 512])]
    data[place : place + dice.choice([0, len(piece)])] = piece


_CHANGES: list[Callable[[bytearray, random.Random, list[bytes]], None]] = [
    *(_flip, _byte, _number, _word, _cut, _double, _graft)
]
