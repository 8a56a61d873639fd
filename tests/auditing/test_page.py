"""The page over HTTP, as a browser and as an attacker would talk to it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection, HTTPResponse
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pytest
from audited_run import TOKEN, served

from ssra_engine.audit import NO_GRADE
from ssra_engine.auditing.book import Book


class _Client:
    def __init__(self, url: str) -> None:
        self.host = urlsplit(url).netloc

    def send(
        self,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        method: str | None = None,
    ) -> tuple[HTTPResponse, bytes]:
        connection = HTTPConnection(self.host, timeout=120)
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body)
        sent = {} if data is None else {"Content-Type": "application/json"}
        verb = method or ("GET" if data is None else "POST")
        connection.request(verb, path, data, {**sent, **(headers or {})})
        response = connection.getresponse()
        answer = response.read()
        connection.close()
        return response, answer

    def ask(self, path: str, body: Any = None, status: int = 200) -> Any:
        response, answer = self.send(f"/{TOKEN}/{path}", body)
        assert response.status == status, answer
        return json.loads(answer)


@pytest.fixture
def client(book: Book) -> Iterator[_Client]:
    with served(book) as url:
        yield _Client(url)


def _grade_all(client: _Client, annotator: str, labels: str) -> None:
    for label in labels:
        pair = client.ask(f"state?annotator={annotator}")["pair"]
        client.ask("answer", {"annotator": annotator, "key": pair["key"], "label": label})


def test_an_audit_from_the_first_pair_to_the_results(client: _Client, book: Book) -> None:
    about = client.ask("about")
    assert [grade["label"] for grade in about["grades"]] == list("0123")
    assert (about["no_grade"], about["simulated"]) == (NO_GRADE, True)
    state = client.ask("state?annotator=Anna")
    assert (state["pairs"], state["labelled"], state["can_undo"]) == (8, 0, False)
    sent = {"annotator": " Anna ", "key": state["pair"]["key"], "label": None}
    assert client.ask("answer", sent)["skipped"] == 1
    state = client.ask("undo", {"annotator": "Anna"})
    assert state["pair"]["key"] == sent["key"]
    assert (state["skipped"], state["can_undo"]) == (0, False)
    client.ask("results?annotator=Anna", status=403)
    _grade_all(client, "Anna", "01230123")
    _grade_all(client, "Ben", "0123000" + NO_GRADE)
    found = client.ask("results?annotator=Anna")
    assert [pair["labels"] for pair in found["disagreements"]] == [
        {"Anna": "1", "Ben": "0"},
        {"Anna": "2", "Ben": "0"},
        {"Anna": "3", "Ben": NO_GRADE},
    ]
    key = found["disagreements"][0]["key"]
    found = client.ask("adjudicate", {"annotator": "Ben", "key": key, "label": "1"})
    assert (found["open"], found["disputed"]) == (2, 3)
    rows = pa.ipc.open_stream((book.folder / "answers.arrows").read_bytes()).read_all()
    assert rows.column("kind").to_pylist() == ["skip", "undo", *["answer"] * 16, "adjudication"]
    assert set(rows.column("annotator").to_pylist()) == {"Anna", "Ben"}


def test_nothing_that_an_annotator_sees_tells_of_target_score_or_fate(client: _Client) -> None:
    state = client.ask("state?annotator=Anna")
    assert set(state) == {"pairs", "labelled", "skipped", "can_undo", "pair"}
    assert set(state["pair"]) == {"key", "query", "doc_id", "fields"}
    assert state["pair"]["fields"] == [["title", "title 0"], ["ocr", "字"]]


def test_another_window_cannot_answer_twice(client: _Client) -> None:
    key = client.ask("state?annotator=Anna")["pair"]["key"]
    answer = {"annotator": "Anna", "key": key, "label": "3"}
    client.ask("answer", answer)
    assert "another window" in client.ask("answer", answer, status=409)["error"]
    assert client.ask("state?annotator=Anna")["labelled"] == 1


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/", {}, 404),
        ("/wrong/", {}, 404),
        (f"/{TOKEN[:-1]}/state?annotator=a", {}, 404),
        ("/%C3%A9/", {}, 404),
        (f"/{TOKEN}/", {"Host": "evil.example"}, 421),
        (f"/{TOKEN}/", {"Host": "127.0.0.1.evil.example:80"}, 421),
        (f"/{TOKEN}/", {"Host": ""}, 421),
        (f"/{TOKEN}/", {"Host": "localhost:1234"}, 200),
        (f"/{TOKEN}/../book.py", {}, 404),
        (f"/{TOKEN}/state?annotator=a", {"Origin": "http://evil.example"}, 403),
        (f"/{TOKEN}/state", {}, 422),
        (f"/{TOKEN}/state?annotator=%20", {}, 422),
        (f"/{TOKEN}/state?annotator=a%0Ab", {}, 422),
        (f"/{TOKEN}/answer", {}, 405),
    ],
)
def test_who_gets_in(client: _Client, path: str, headers: Mapping[str, str], status: int) -> None:
    response, _ = client.send(path, headers=headers)
    assert response.status == status
    assert response.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert response.headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"annotator=a&label=1", {"Content-Type": "application/x-www-form-urlencoded"}, 415),
        (b'{"annotator":"a"}', {"Content-Type": "text/plain"}, 415),
        (b"{}", {"Origin": "http://evil.example"}, 403),
        (b"{}", {"Origin": "null"}, 403),
        (b"{", {}, 400),
        (b"[]", {}, 400),
        (b"x" * 20_000, {}, 413),
        ({"annotator": "a", "key": "0" * 16, "label": "4"}, {}, 422),
        ({"annotator": "a", "key": "0" * 16, "label": 1}, {}, 422),
        ({"annotator": "a" * 41, "key": "0" * 16, "label": "1"}, {}, 422),
        ({"annotator": 7, "key": "0" * 16, "label": "1"}, {}, 422),
        ({"annotator": "a", "label": "1"}, {}, 409),
    ],
)
def test_bad_answers_change_nothing(
    client: _Client, book: Book, body: Any, headers: Mapping[str, str], status: int
) -> None:
    before = (book.folder / "answers.arrows").read_bytes()
    response, answer = client.send(f"/{TOKEN}/answer", body, headers)
    assert response.status == status
    assert json.loads(answer)["error"]
    assert (book.folder / "answers.arrows").read_bytes() == before


def test_adjudication_is_for_those_who_are_done(client: _Client) -> None:
    _grade_all(client, "Anna", "00000000")
    _grade_all(client, "Ben", "1")
    key = f"{0:016x}"
    sent = {"annotator": "Ben", "key": key, "label": "1"}
    client.ask("adjudicate", sent, status=403)
    client.ask("adjudicate", sent | {"annotator": "Anna", "key": f"{1:016x}"}, status=409)
    assert client.ask("adjudicate", sent | {"annotator": "Anna"})["open"] == 0


def test_a_full_disk_is_told_and_the_answer_does_not_count(
    client: _Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError("full")

    key = client.ask("state?annotator=Anna")["pair"]["key"]
    answer = {"annotator": "Anna", "key": key, "label": "3"}
    with monkeypatch.context() as patch:
        patch.setattr("ssra_engine.auditing.answers.os.fsync", full)
        assert "cannot be written" in client.ask("answer", answer, status=507)["error"]
    assert client.ask("answer", answer)["labelled"] == 1


def test_the_page_asks_nothing_of_other_hosts(client: _Client) -> None:
    for name, kind in (("", "text/html"), ("page.css", "text/css"), ("page.js", "javascript")):
        response, data = client.send(f"/{TOKEN}/{name}")
        assert kind in response.headers["Content-Type"]
        assert b"http://" not in data
        assert b"https://" not in data
        assert b"innerHTML" not in data
