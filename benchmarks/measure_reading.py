"""How fast one core reads documents, by format, as the driver of a run does: docs/scale.md.

python benchmarks/measure_reading.py --documents 200000
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ssra_engine.corpus import open_corpus

_SHARD = 2000


def main() -> None:
    """Write the documents in each format and read them again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=200_000)
    count = parser.parse_args().documents
    numbers = range(count)
    table = pa.table(
        {
            "doc_id": [f"doc-{number}" for number in numbers],
            "title": [f"short video {number}" for number in numbers],
            "text": [f"{number} about " + "red panda 小猫钓鱼 " * 20 for number in numbers],
        }
    )
    pa.set_cpu_count(1)
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        pq.write_table(table, base / "corpus.parquet")
        with pa.ipc.new_file(base / "corpus.arrow", table.schema) as writer:
            writer.write_table(table, max_chunksize=10_000)
        with (base / "corpus.jsonl").open("w", encoding="utf-8") as lines:
            for row in table.to_pylist():
                lines.write(json.dumps(row, ensure_ascii=False) + "\n")
        for suffix in ("parquet", "jsonl", "arrow"):
            corpus = open_corpus([base / f"corpus.{suffix}"])
            started = time.process_time()
            rows = sum(len(batch) for batch, _ in corpus.batches_with_errors(_SHARD))
            seconds = time.process_time() - started
            assert rows == count
            print(f"{suffix:8} {rows / seconds:12,.0f} documents a second of processor time")


if __name__ == "__main__":
    main()
