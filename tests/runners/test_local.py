from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from ssra_engine.runners.local import run_shards


def test_in_order_and_the_next_is_read_meanwhile() -> None:
    second_was_read = threading.Event()

    def shards() -> Iterator[int]:
        yield 1
        second_was_read.set()
        yield 2
        yield 3

    def work(shard: int) -> int:
        assert second_was_read.wait(10)
        return shard * 10

    assert list(run_shards(shards(), work)) == [(1, 10), (2, 20), (3, 30)]
    assert list(run_shards(iter(()), work)) == []


def test_at_most_one_is_read_ahead() -> None:
    read: list[int] = []

    def shards() -> Iterator[int]:
        for number in range(1, 10):
            read.append(number)
            yield number

    for shard, _ in run_shards(shards(), lambda shard: shard):
        assert len(read) <= shard + 1


def test_an_error_in_reading_comes_after_the_shards_before_it() -> None:
    def shards() -> Iterator[int]:
        yield 1
        raise ValueError("bad file")

    outcomes = run_shards(shards(), lambda shard: shard)
    assert next(outcomes) == (1, 1)
    with pytest.raises(ValueError, match="bad file"):
        next(outcomes)
