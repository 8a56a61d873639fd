"""What is kept about shards, at the number of shards of a hundred million documents.

    python benchmarks/measure_manifest.py [--shards 50000]

Commits so many shards of a few rows to an output folder, opens it again as a resume does, and ends
the run: memory, sizes and times of everything but the rows themselves.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa

from ssra_engine.config import Config, FilterConfig
from ssra_engine.ending import end_section
from ssra_engine.engines.fake import FakeEngine
from ssra_engine.roles import fake_roles
from ssra_engine.schema import CORPUS
from ssra_engine.section import Section
from ssra_engine.shard import Job, synthesize_shard
from ssra_engine.store import Store, open_store


def a_few_rows() -> pa.Table:
    rows = [{name: f"{name} {n}" for name in CORPUS.names} for n in range(2)]
    config = Config()
    job = Job(config, fake_roles(config.grades), FakeEngine(), FakeEngine(), 0, 1, 1)
    return synthesize_shard(pa.RecordBatch.from_pylist(rows, schema=CORPUS), job)


def final(store: Store, shards: int) -> Section:
    return Section(
        store,
        "final",
        kept="synthetic",
        rejected="rejected",
        file_format="parquet",
        shard_count=shards,
    )


@contextmanager
def told(what: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds, memory = time.perf_counter() - start, psutil.Process().memory_info().rss / 2**20
    print(f"{what:28} {seconds:8.1f} s, resident memory {memory:6.0f} MB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, default=50_000)
    shards = parser.parse_args().shards
    rows = a_few_rows()
    fingerprint = {"inputs": "none"}
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "out"
        half = shards // 2
        with told("the empty folder"), open_store(output, fingerprint, "") as store:
            section = final(store, shards)
        with told("the first half of shards"), open_store(output, fingerprint, "") as store:
            section = final(store, shards)
            for index in range(half):
                section.commit(index, rows, {"documents": 2000, "seconds": 1.0})
        with told("resuming, the second half"), open_store(output, fingerprint, "") as store:
            section = final(store, shards)
            assert len(section.shards) == half
            for index in range(half, shards):
                section.commit(index, rows, {"documents": 2000, "seconds": 1.0})
        journal = (output / "journal").stat().st_size
        with open_store(output, fingerprint, "") as store:
            with told("opening it with all shards"):
                section = final(store, shards)
            with told("the end: parts, manifest"):
                end_section(section, FilterConfig(), (0, 1, 2, 3))
            counts = np.array(store.find("section", section="final")["counts"])
            assert counts.sum() == shards * len(rows)
            store.finish({"documents": shards * 2000})
        manifest = (output / "manifest.json").stat().st_size
        print(f"journal {journal / 2**20:.1f} MB, manifest {manifest / 2**20:.1f} MB")


if __name__ == "__main__":
    main()
