"""kill -9 of the driver at random moments."""

from __future__ import annotations

import multiprocessing
import random
import shutil
import time
from pathlib import Path

from documents import write_documents
from resumable import assert_same, results, run_here

from ssra_engine.verify import verify_output

_KILLS = 20


def test_kill_9_at_random_moments(tmp_path: Path) -> None:
    documents, shard_documents, out = 300, 10, tmp_path / "out"
    write_documents(tmp_path / "corpus.arrow", documents)
    run_here(tmp_path, documents, shard_documents, 2)
    expected = results(out)
    shutil.rmtree(out)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ssra_engine.run", "pyarrow.parquet", "pandas"])
    chance = random.Random(20)
    kills = 0
    while kills < _KILLS:
        process = context.Process(target=run_here, args=(tmp_path, documents, shard_documents, 2))
        process.start()
        time.sleep(chance.uniform(0.0, 0.4))
        process.kill()
        process.join()
        if process.exitcode == 0:
            assert_same(results(out), expected)
            shutil.rmtree(out)
        else:
            assert process.exitcode == -9
            kills += 1
            if (out / "manifest.json").exists():
                assert verify_output(out).findings == []
    run_here(tmp_path, documents, shard_documents, 2)
    assert_same(results(out), expected)
