"""A small audit for tests: a finished run with the fake engine, and its drawn pairs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from threading import Thread
from time import sleep

from ssra_engine.auditing.book import Book
from ssra_engine.auditing.page import make_app
from ssra_engine.auditing.pairs import AuditPair, AuditPairs

TOKEN = "a-token"


def pairs_of(number: int, grades: tuple[int, ...] = (0, 1, 2, 3)) -> AuditPairs:
    """Made-up pairs; targets go round, the score model says one less at every third."""
    from ssra_engine.audit import Draw

    pairs = []
    for row in range(number):
        document = {
            "doc_id": f"d{row}",
            "title": f"title {row}",
            "text": "",
            "ocr": "字",
            "asr": "",
        }
        target = grades[row % len(grades)]
        predicted = max(0, target - 1) if row % 3 == 0 else target
        kept = target == predicted
        pairs.append(AuditPair(f"{row:016x}", f"query {row}", document, target, predicted, kept))
    return AuditPairs(Draw(number, 0), grades, tuple(pairs), simulated=True)


def open_book(folder: Path, audit: AuditPairs) -> Book:
    """A book with a clock that goes one second an answer."""
    moments = (
        datetime(2026, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=n) for n in range(9999)
    )
    return Book(audit, folder, lambda: next(moments))


@contextmanager
def served(book: Book) -> Iterator[str]:
    """The page of a book on a free port; gives its URL."""
    import uvicorn

    config = uvicorn.Config(
        make_app(book, TOKEN),
        port=0,
        log_level="warning",
        lifespan="off",
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    thread = Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/{TOKEN}/"
    finally:
        server.should_exit = True
        thread.join(60)
