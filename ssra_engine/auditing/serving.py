"""Serving the audit page on this machine, until it is interrupted."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable
from contextlib import suppress

import uvicorn

from ssra_engine.auditing.book import Book
from ssra_engine.auditing.page import make_app
from ssra_engine.errors import ConfigError

__all__ = ["serve"]

_LOOPBACK = "127.0.0.1"


def serve(book: Book, port: int, ready: Callable[[str], None]) -> None:
    """Serve an audit to the browsers of this machine; Ctrl-C ends it.

    Args:
        book: of the audit.
        port: to listen at on the loopback interface; 0 for any that is free.
        ready: is given the URL once connections are taken.

    Raises:
        ConfigError: the port is taken.
    """
    token = secrets.token_urlsafe(16)
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((_LOOPBACK, port))
        except OSError as error:
            raise ConfigError(f"--port {port}: {error.strerror}. Give another one.") from error
        listener.listen()
        # The access log would hold the token.
        config = uvicorn.Config(
            make_app(book, token),
            access_log=False,
            log_level="warning",
            lifespan="off",
            timeout_graceful_shutdown=2,
        )
        ready(f"http://{_LOOPBACK}:{listener.getsockname()[1]}/{token}/")
        # Once it has ended in order, uvicorn raises the signal again.
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])
