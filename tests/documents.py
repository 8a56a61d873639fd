"""Small made-up documents for tests of the run."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from ssra_engine.schema import CORPUS

_WORDS = ("red panda", "小猫钓鱼", "Straße", "how to fold", "第三集", "ﬁne tuning", "rain", "龙")


def make_documents(count: int, start: int = 0) -> pa.RecordBatch:
    """`count` documents of `schema.CORPUS`, each a function of its number."""
    rows = []
    for number in range(start, start + count):
        first, second = _WORDS[number % 8], _WORDS[number * 5 // 8 % 8]
        rows.append(
            {
                "doc_id": f"doc-{number}",
                "title": f"{first} {second}  {number}",
                "text": "" if number % 3 else f"{second}\n: about {first}",
                "ocr": first if number % 5 == 0 else "",
                "asr": "",
            }
        )
    return pa.RecordBatch.from_pylist(rows, schema=CORPUS)


def write_documents(path: Path, count: int) -> Path:
    """An Arrow file of `make_documents`."""
    batch = make_documents(count)
    with pa.ipc.new_file(path, batch.schema) as writer:
        writer.write_batch(batch)
    return path
