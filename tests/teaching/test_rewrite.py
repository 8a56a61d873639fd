"""Descriptions of documents: who is asked, what of it is used, and that stopping costs nothing."""

from __future__ import annotations

import json
import multiprocessing
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from documents import make_documents

from ssra_engine import section
from ssra_engine.cli import main
from ssra_engine.config import Config, load_config
from ssra_engine.corpus import open_corpus
from ssra_engine.engines.engine import GENERATED, Engine, Sampling
from ssra_engine.engines.fake import FakeEngine
from ssra_engine.errors import ConfigError, DataError, EngineError, StoreError
from ssra_engine.prompts import TEMPLATES
from ssra_engine.schema import CORPUS, REJECTED_DESCRIPTIONS
from ssra_engine.teaching.assignment import Outcome
from ssra_engine.teaching.rewrite import rewrite
from ssra_engine.teaching.teacher import Teacher, teacher_of

_FAKE = Teacher("fake", FakeEngine)


class _Parrot(FakeEngine):
    """Says what stands under each document's number in `answers`, or fails at `poison`.

    Of a document that has no answer it says its title, and that this is a description.
    """

    def __init__(self, answers: dict[str, str], poison: str = "never") -> None:
        super().__init__()
        self.answers, self.poison = answers, poison
        self.prompts: list[tuple[str, str]] = []

    def generate_batches(
        self, batches: Iterable[pa.RecordBatch], sampling: Sampling
    ) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            prompts = list(
                zip(batch["prefix"].to_pylist(), batch["suffix"].to_pylist(), strict=True)
            )
            if any(self.poison in prefix for prefix, _ in prompts):
                raise RuntimeError("it hurts")
            self.prompts += prompts
            rows = [
                {
                    "request": row,
                    "sample": 0,
                    "text": self.answers.get(title.split()[-1], f"This  is {title}."),
                    "token_ids": [1, 2],
                    "logprob": 0.0,
                    "finish_reason": "stop",
                }
                for row, title in enumerate(_title(prefix) for prefix, _ in prompts)
            ]
            yield pa.RecordBatch.from_pylist(rows, schema=GENERATED)


def _title(prefix: str) -> str:
    return prefix.split("\n")[1].removeprefix("Title: ")


def _described(document: dict[str, str]) -> str:
    return f"This is {' '.join(document['title'].split())}."


def _write(path: Path, documents: int) -> Path:
    batch = make_documents(documents)
    with pa.ipc.new_file(path, batch.schema) as writer:
        writer.write_batch(batch)
    return path


def _config(**settings: Any) -> Config:
    return load_config(overrides={name.replace("__", "."): v for name, v in settings.items()})


def _rewrite(folder: Path, teacher: Teacher = _FAKE, out: str = "out", **settings: Any) -> Outcome:
    if not (folder / "corpus.arrow").exists():
        _write(folder / "corpus.arrow", 60)
    return rewrite(_config(**settings), [folder / "corpus.arrow"], teacher, folder / out)


def _table(folder: Path) -> pa.Table:
    return pa.concat_tables(map(pq.read_table, sorted(folder.glob("*.parquet"))))


def test_a_description_takes_the_place_of_text_ocr_and_asr(tmp_path: Path) -> None:
    parrot = _Parrot({"5": "", "10": "Straße rain 10", "15": "Ignore\x00this\u2028小猫钓鱼"})
    outcome = _rewrite(tmp_path, Teacher("parrot", lambda: parrot))
    before = {row["doc_id"]: row for row in make_documents(60).to_pylist()}
    after = open_corpus([outcome.table]).table()
    assert after.schema == CORPUS
    assert after["doc_id"].to_pylist() == list(before)
    for row in after.to_pylist():
        number = int(row["doc_id"].removeprefix("doc-"))
        was = before[row["doc_id"]]
        if number % 5 or number in (5, 10):  # there is no OCR, or nothing of use was written
            assert row == was
        else:
            text = "Ignore this 小猫钓鱼" if number == 15 else _described(was)
            assert row == was | {"text": text, "ocr": "", "asr": ""}
    assert len(parrot.prompts) == 12
    suffix = TEMPLATES["instruct"].rewrite_suffix()
    assert {asked for _, asked in parrot.prompts} == {suffix}
    rejected = _table(tmp_path / "out/rejected")
    assert rejected.schema.equals(REJECTED_DESCRIPTIONS)
    assert rejected.select(["doc_id", "reason"]).to_pylist() == [
        {"doc_id": "doc-5", "reason": "empty"},
        {"doc_id": "doc-10", "reason": "copied"},
    ]
    assert outcome.summary["written"] == 10
    assert outcome.summary["left"] == 48
    assert outcome.summary["tokens"] == 24
    assert outcome.failed == 0


def test_ocr_and_asr_can_be_kept(tmp_path: Path) -> None:
    parrot = Teacher("parrot", lambda: _Parrot({}))
    outcome = _rewrite(tmp_path, parrot, rewrite__keep_ocr_asr=True)
    first = open_corpus([outcome.table]).table().to_pylist()[0]
    before = make_documents(1).to_pylist()[0]
    assert first == before | {"text": _described(before)}


@pytest.mark.parametrize(("least", "used"), [(0.1, False), (0.0, True)])
def test_a_description_of_something_else_is_not_used(
    tmp_path: Path, least: float, used: bool
) -> None:
    nonsense = "The document is a collection of words that are written in a language."
    parrot = Teacher("parrot", lambda: _Parrot({"20": nonsense, "35": "是的", "40": ""}))
    outcome = _rewrite(tmp_path, parrot, rewrite__min_overlap=least)
    before = make_documents(60).to_pylist()
    after = open_corpus([outcome.table]).table().to_pylist()
    texts = {number: row["text"] for number, row in enumerate(after)}
    assert texts[20] == (nonsense if used else before[20]["text"])
    assert texts[35] == ("是的" if used else before[35]["text"])
    assert texts[25] == _described(before[25])
    rejected = {} if used else {"doc-20": (nonsense, "unrelated"), "doc-35": ("是的", "unrelated")}
    found = _table(tmp_path / "out/rejected").to_pylist()
    assert {row["doc_id"]: (row["description"], row["reason"]) for row in found} == {
        **rejected,
        "doc-40": ("", "empty"),
    }
    assert outcome.summary["rejected"] == {"empty": 1} | ({} if used else {"unrelated": 2})


def test_the_rows_do_not_depend_on_the_size_of_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(tmp_path / "corpus.arrow", 300)
    whole = _rewrite(tmp_path, out="whole")
    monkeypatch.setattr(section, "_PART_ROWS", 50)
    parts = _rewrite(tmp_path, out="parts", output__shard_documents=7)
    for name in ("corpus", "rejected"):
        assert _table(tmp_path / "whole" / name).equals(_table(tmp_path / "parts" / name))
    assert {**whole.summary, "timing": 0} == {**parts.summary, "timing": 0}
    assert whole.summary["rejected"]
    assert len(list(parts.table.glob("*.parquet"))) == 6
    again = _rewrite(tmp_path, out="parts", output__shard_documents=7)
    assert again.already_finished
    assert again.summary == parts.summary


def test_a_document_that_no_teacher_survives_keeps_its_text(tmp_path: Path) -> None:
    poisoned = Teacher("poison", lambda: _Parrot({}, poison=" 20\n"))
    outcome = _rewrite(tmp_path, poisoned)
    assert outcome.failed == outcome.summary["rejected"]["error"] == 1
    after = open_corpus([outcome.table]).table().to_pylist()
    assert after[20] == make_documents(60).to_pylist()[20]
    assert after[25]["text"] == _described(make_documents(60).to_pylist()[25])
    (row,) = _table(tmp_path / "out/rejected").to_pylist()
    assert row["doc_id"] == "doc-20"
    assert row["message"] == "RuntimeError: it hurts"


def test_a_teacher_that_fails_at_everything_ends_it(tmp_path: Path) -> None:
    rows = make_documents(16).to_pylist()
    (tmp_path / "corpus.jsonl").write_text(
        "".join(json.dumps(row | {"asr": "said"}) + "\n" for row in rows)
    )
    broken = Teacher("broken", lambda: _Parrot({}, poison=""))
    with pytest.raises(EngineError, match="it hurts"):
        rewrite(_config(), [tmp_path / "corpus.jsonl"], broken, tmp_path / "out")


def test_bad_documents_stop_it_or_are_rejected(tmp_path: Path) -> None:
    rows = make_documents(30).to_pylist()
    rows.insert(10, rows[0])
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"doc_id": "blank"}]))
    with pytest.raises(DataError, match="blank"):
        rewrite(_config(), [path], _FAKE, tmp_path / "stopped")
    config = _config(input__on_error="reject", output__shard_documents=8)
    outcome = rewrite(config, [path], _FAKE, tmp_path / "out")
    assert outcome.failed == 2
    assert outcome.summary["rows"] == 30
    ids = open_corpus([outcome.table]).table()["doc_id"]
    assert ids.to_pylist() == [f"doc-{number}" for number in range(30)]


def test_a_folder_belongs_to_its_input_and_settings(tmp_path: Path) -> None:
    _rewrite(tmp_path)
    with pytest.raises(StoreError, match=r"rewrite.keep_ocr_asr: False -> True"):
        _rewrite(tmp_path, rewrite__keep_ocr_asr=True)
    with pytest.raises(StoreError, match="model: fake -> other"):
        _rewrite(tmp_path, Teacher("other", FakeEngine))
    _write(tmp_path / "corpus.arrow", 61)
    with pytest.raises(StoreError, match="inputs"):
        _rewrite(tmp_path)
    result = CliRunner().invoke(main, ["verify", str(tmp_path / "out")])
    assert "made by `ssra-engine rewrite`" in result.output


def test_what_cannot_be_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="read described/corpus afterwards"):
        _rewrite(tmp_path, out="described.arrow")
    config = load_config()
    with pytest.raises(ConfigError, match="No teacher"):
        teacher_of(None, config, config.rewrite)
    with pytest.raises(ConfigError, match="does not exist"):
        teacher_of(tmp_path / "none", config, config.rewrite)
    with pytest.raises(ConfigError, match="no backend 'x'"):
        teacher_of(None, load_config(overrides={"engine.backend": "x"}), config.rewrite)


class _Slow(FakeEngine):
    """Takes its time, so that a kill finds it at work."""

    def generate_batches(
        self, batches: Iterable[pa.RecordBatch], sampling: Sampling
    ) -> Iterator[pa.RecordBatch]:
        for batch in super().generate_batches(batches, sampling):
            time.sleep(0.05)
            yield batch


def _rewrite_in_shards(folder: Path, engine: Callable[[], Engine] = FakeEngine) -> None:
    _rewrite(folder, Teacher("fake", engine), output__shard_documents=5)


def test_kill_9_at_any_moment(tmp_path: Path) -> None:
    _write(tmp_path / "corpus.arrow", 200)
    _rewrite(tmp_path, out="whole", output__shard_documents=5)
    out, staged = tmp_path / "out", tmp_path / "out/shards/rewrite"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ssra_engine.teaching.rewrite", "pyarrow.parquet", "pandas"])
    chance = random.Random(3)
    kills = 0
    while kills < 8:
        left = len(list(staged.glob("*.arrow")))
        process = context.Process(target=_rewrite_in_shards, args=(tmp_path, _Slow))
        process.start()
        while process.is_alive() and len(list(staged.glob("*.arrow"))) == left:
            time.sleep(0.002)
        time.sleep(chance.uniform(0.0, 0.08))
        process.kill()
        process.join()
        if process.exitcode == 0:  # so slow a machine that it came too late
            shutil.rmtree(out)
            continue
        assert process.exitcode == -signal.SIGKILL
        assert 0 < len(list(staged.glob("*.arrow"))) <= 40
        assert not (out / "summary.json").exists()
        kills += 1
    _rewrite_in_shards(tmp_path)
    for name in ("corpus", "rejected"):
        assert _table(out / name).equals(_table(tmp_path / "whole" / name))
    left_over = sorted(path.name for path in out.iterdir() if path.name[0] != ".")
    assert left_over == sorted(
        ["config.yaml", "corpus", "manifest.json", "rejected", "run.log", "summary.json"]
    )


_SLOWLY = """
import time
from ssra_engine.engines import fake
generate = fake.FakeEngine.generate_batches
def slowly(self, batches, sampling):
    for batch in generate(self, batches, sampling):
        time.sleep(0.15)
        yield batch
fake.FakeEngine.generate_batches = slowly
from ssra_engine import section
from ssra_engine.cli import main
main(prog_name="ssra-engine")
"""


def test_a_signal_ends_the_batch_and_tells_how_to_go_on(tmp_path: Path) -> None:
    corpus, out = _write(tmp_path / "corpus.arrow", 60), tmp_path / "out"
    flags = ["--backend", "fake", "--shard-documents", "10", "--output", str(out)]
    arguments = ["rewrite", "--input", str(corpus), *flags]
    process = subprocess.Popen(
        [sys.executable, "-c", _SLOWLY, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (out / "shards/rewrite/000001.arrow").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said, complained = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "")
    command = shlex.split(complained.splitlines()[-1])
    assert command == ["ssra-engine", *arguments]
    done = CliRunner().invoke(main, [*command[1:], "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["rows"] == 60
    _rewrite(tmp_path, out="whole")
    assert _table(out / "corpus").equals(_table(tmp_path / "whole/corpus"))
