from __future__ import annotations

import io

from rich.console import Console

from ssra_engine.progress import ProgressBar


def _console(*, terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=100)


def _text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_lines_where_there_is_no_terminal() -> None:
    console = _console(terminal=False)
    with ProgressBar(console, seconds_between_lines=0) as progress:
        progress.begin("final", 2000, 500)
        progress.update(1000.0)
        progress.begin("training", 0, 0)
    first, second, last = _text(console).splitlines()
    assert first == "final: 2,000 to do, 500 done"
    assert second.startswith("final: 1,000/2,000 (50%), ")
    assert second.endswith(" left")
    assert last == "training"


def test_a_count_that_stands_still_is_not_told_again() -> None:
    console = _console(terminal=False)
    with ProgressBar(console, seconds_between_lines=0) as progress:
        progress.begin("final", 20, 0)
        progress.update(20.0)
        progress.update(20.0)
    _, counted, standing = _text(console).splitlines()
    assert counted.startswith("final: 20/20 (100%), ")
    assert standing.startswith("final: 20/20, still at work after 0:00:0")


def test_few_lines() -> None:
    console = _console(terminal=False)
    with ProgressBar(console, seconds_between_lines=3600) as progress:
        progress.begin("final", 100, 0)
        for done in range(1, 101):
            progress.update(done)
    assert len(_text(console).splitlines()) == 2


def test_a_bar_in_a_terminal() -> None:
    console = _console(terminal=True)
    with ProgressBar(console) as progress:
        progress.begin("training", 0, 0)
        progress.begin("final", 2000, 500)
        progress.update(2000)
    assert "training" in _text(console)
    assert "2,000/2,000" in _text(console)


def test_nothing_begun() -> None:
    console = _console(terminal=True)
    with ProgressBar(console):
        pass
    assert _text(console) == ""
