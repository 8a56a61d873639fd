"""Whenever the power fails, the same command again gives the rows of an uninterrupted run."""

from __future__ import annotations

import random
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from documents import write_documents
from power import PowerCut, disk
from resumable import assert_same, results, run_here

from ssra_engine.verify import verify_output

_CUTS = 220
_DOCUMENTS, _SHARD = 8, 3


class _Small:
    """A small run: what it yields uninterrupted, and in how many steps on the disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.out = folder / "out"
        write_documents(folder / "corpus.arrow", _DOCUMENTS)
        self.steps = self.life()
        self.expected = results(self.out)
        shutil.rmtree(self.out)

    def life(self, alive_for: int | None = None, seed: int = 0) -> int:
        """Run until the end or the cut, which is raised; the steps taken."""
        with disk(self.out, self.folder / "attic", alive_for, seed) as one:
            run_here(self.folder, _DOCUMENTS, _SHARD)
        return one.count

    def end(self) -> None:
        """Run to the end, compare, and clear away."""
        self.life()
        assert_same(results(self.out), self.expected)
        assert verify_output(self.out).findings == []
        shutil.rmtree(self.out)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> _Small:
    return _Small(tmp_path_factory.mktemp("small"))


@pytest.mark.parametrize("group", range(10))
def test_cuts_at_random_moments(small: _Small, group: int) -> None:
    """Every step on the disk is hit; a third of the cuts come after another one."""
    assert 60 < small.steps < _CUTS
    chance = random.Random(group)
    for number in range(group, _CUTS, 10):
        moment = number % small.steps
        while True:
            with suppress(PowerCut):
                small.life(moment, chance.getrandbits(32))
            if (small.out / "manifest.json").exists():
                assert verify_output(small.out).findings == []
            if chance.random() < 0.7:
                break
            moment = chance.randrange(small.steps)
        small.end()


def test_a_finished_shard_is_not_done_again(small: _Small) -> None:
    with pytest.raises(PowerCut):
        small.life(small.steps - 20)
    journal = (small.out / "journal").read_bytes()
    assert journal.count(b'"section":"final"') == 3
    assert small.life() < small.steps - 20
    small.end()


def test_lost_staged_shards_and_torn_journals_are_done_again(small: _Small) -> None:
    with pytest.raises(PowerCut):
        small.life(small.steps - 20)
    (small.out / "shards" / "final" / "000001.arrow").unlink()
    journal = (small.out / "journal").read_bytes()
    (small.out / "journal").write_bytes(journal[: journal.rindex(b"}")])
    small.life()
    assert "is lost: its shard is done again" in (small.out / "run.log").read_text()
    small.end()
