"""The audit page as a web application: what it shows, and what it takes.

Whoever has the URL may grade, and nobody else: the token is its first part, so a page of another
site can neither name a resource nor send an answer. Host and Origin are checked besides, which
keeps out a site whose name was bound to this address. No cookies, no other hosts, no inline code;
texts reach the page as JSON and are shown as text.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ssra_engine.audit import NO_GRADE
from ssra_engine.auditing.agreement import agreement
from ssra_engine.auditing.book import Book, NotNextError
from ssra_engine.errors import StoreError
from ssra_engine.prompts import grade_meanings
from ssra_engine.schema import DOCUMENT_TEXT_COLUMNS

__all__ = ["make_app"]

_HOSTS = ("127.0.0.1", "localhost")
_LONGEST_BODY = 10_000
_LONGEST_NAME = 40
_FILES = {
    "": ("page.html", "text/html"),
    "page.css": ("page.css", "text/css"),
    "page.js": ("page.js", "text/javascript"),
}
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

_Handler = Callable[[Book, str, dict[str, Any]], dict[str, Any]]


def make_app(book: Book, token: str) -> Starlette:
    """The application over one audit; it works on one request at a time.

    Args:
        book: of the audit.
        token: first part of every path.
    """

    async def state(request: Request) -> Response:
        return JSONResponse(_state(book, _name(request.query_params.get("annotator"))))

    async def results(request: Request) -> Response:
        return JSONResponse(_results(book, _name(request.query_params.get("annotator"))))

    def post(handler: _Handler) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            sent = await _body(request)
            return JSONResponse(handler(book, _name(sent.get("annotator")), sent))

        return endpoint

    async def about(request: Request) -> Response:
        scale = zip(book.audit.grades, grade_meanings(len(book.audit.grades)), strict=True)
        grades = [{"label": str(grade), "meaning": meaning} for grade, meaning in scale]
        return JSONResponse(
            {"grades": grades, "no_grade": NO_GRADE, "simulated": book.audit.simulated}
        )

    routes = [
        *(Route(f"/{{token}}/{name}", _file(*file)) for name, file in _FILES.items()),
        Route("/{token}/about", about),
        Route("/{token}/state", state),
        Route("/{token}/results", results),
        Route("/{token}/answer", post(_answer), methods=["POST"]),
        Route("/{token}/undo", post(_undo), methods=["POST"]),
        Route("/{token}/adjudicate", post(_adjudicate), methods=["POST"]),
    ]
    handlers: Any = {HTTPException: _refusal, NotNextError: _not_next, StoreError: _not_written}
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.add_middleware(_Guard, token=token)
    return app


def _state(book: Book, annotator: str) -> dict[str, Any]:
    pair = book.next_of(annotator)
    desk = book.desks.get(annotator)
    return {
        "pairs": len(book.pairs),
        "labelled": len(desk.labels) if desk else 0,
        "skipped": len(desk.skipped) if desk else 0,
        "can_undo": bool(desk and desk.history),
        "pair": None if pair is None else _shown(book, pair.key),
    }


def _results(book: Book, annotator: str) -> dict[str, Any]:
    """The figures and the disagreements, for those who cannot be swayed by them any more."""
    if not book.done(annotator):
        raise HTTPException(403, "The results are shown to those who have labelled every pair.")
    disputed = [
        {**_shown(book, key), "labels": book.labels_of(key), "decided": book.adjudicated.get(key)}
        for key in book.disagreements()
    ]
    return {**agreement(book), "disagreements": disputed, "folder": str(book.folder)}


def _shown(book: Book, key: str) -> dict[str, Any]:
    """What may be seen of a pair: nothing of its target, its score or its fate."""
    pair = book.pairs[key]
    fields = [(name, pair.document[name]) for name in DOCUMENT_TEXT_COLUMNS if pair.document[name]]
    return {"key": key, "query": pair.query, "doc_id": pair.doc_id, "fields": fields}


def _answer(book: Book, annotator: str, sent: dict[str, Any]) -> dict[str, Any]:
    label = None if sent.get("label") is None else _label(book, sent)
    book.answer(annotator, str(sent.get("key")), label)
    return _state(book, annotator)


def _undo(book: Book, annotator: str, sent: dict[str, Any]) -> dict[str, Any]:
    book.undo(annotator)
    return _state(book, annotator)


def _adjudicate(book: Book, annotator: str, sent: dict[str, Any]) -> dict[str, Any]:
    _results(book, annotator)
    book.adjudicate(annotator, str(sent.get("key")), _label(book, sent))
    return _results(book, annotator)


def _label(book: Book, sent: dict[str, Any]) -> str:
    label = sent.get("label")
    known = (*map(str, book.audit.grades), NO_GRADE)
    if not isinstance(label, str) or label not in known:
        raise HTTPException(422, f"label: one of {', '.join(known)} is wanted.")
    return label


def _name(name: Any) -> str:
    """The annotator's name, trimmed."""
    trimmed = name.strip() if isinstance(name, str) else ""
    if not 0 < len(trimmed) <= _LONGEST_NAME or not trimmed.isprintable():
        raise HTTPException(422, f"annotator: a name of 1 to {_LONGEST_NAME} characters is wanted.")
    return trimmed


async def _body(request: Request) -> dict[str, Any]:
    """The JSON object that was sent.

    A form of another site can send text, but not JSON without this site's consent.
    """
    if request.headers.get("content-type", "").split(";")[0].strip() != "application/json":
        raise HTTPException(415, "application/json is wanted.")
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > _LONGEST_BODY:
            raise HTTPException(413, "That is too long for an answer.")
    try:
        sent = json.loads(data)
    except ValueError as error:
        raise HTTPException(400, "That is not JSON.") from error
    if not isinstance(sent, dict):
        raise HTTPException(400, "A JSON object is wanted.")
    return sent


def _file(name: str, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    data = resources.files("ssra_engine.auditing").joinpath("static", name).read_bytes()

    async def endpoint(request: Request) -> Response:
        return Response(data, media_type=media_type)

    return endpoint


def _refusal(request: Request, error: HTTPException) -> Response:
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


def _not_next(request: Request, error: NotNextError) -> Response:
    return JSONResponse({"error": "This pair was answered already, in another window."}, 409)


def _not_written(request: Request, error: StoreError) -> Response:
    return JSONResponse({"error": str(error)}, 507)


class _Guard:
    """Lets through what names the token, is addressed to this machine and comes from this page."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a refused request, and pass on the others."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        refused = self._refused(scope["path"], Headers(scope=scope))
        if refused is not None:
            await refused(scope, receive, send_with_headers)
        else:
            await self._app(scope, receive, send_with_headers)

    def _refused(self, path: str, headers: Headers) -> Response | None:
        host = headers.get("host", "")
        if host.rpartition(":")[0] not in _HOSTS and host not in _HOSTS:
            return JSONResponse({"error": "This page answers to 127.0.0.1 only."}, 421)
        if not secrets.compare_digest(
            path.partition("/")[2].partition("/")[0].encode(), self._token
        ):
            return JSONResponse({"error": "Open the whole URL that ssra-engine printed."}, 404)
        if headers.get("origin", f"http://{host}") != f"http://{host}":
            return JSONResponse({"error": "This request comes from another page."}, 403)
        return None
