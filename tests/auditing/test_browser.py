"""The page in headless Chromium: keyboard, narrow screens, hostile texts."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from audited_run import open_book, pairs_of, served

from ssra_engine.auditing.book import Book

sync_api = pytest.importorskip("playwright.sync_api")
_CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(_CHROMIUM is None, reason="no chromium here")

_WIDE, _NARROW = {"width": 1200, "height": 720}, {"width": 360, "height": 640}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        # Containers often have no user namespaces, which Chromium's sandbox needs.
        opened = playwright.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any, book: Book) -> Iterator[Any]:
    with served(book) as url:
        yield from _open(browser, url, _WIDE)


def _open(browser: Any, url: str, viewport: dict[str, int], scheme: str = "light") -> Iterator[Any]:
    """A page on which any error of its own, or a request elsewhere, fails the test."""
    context = browser.new_context(viewport=viewport, color_scheme=scheme)
    context.set_default_timeout(120_000)
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on(
        "request", lambda asked: asked.url.startswith((url, "data:")) or faults.append(asked.url)
    )
    page.on("dialog", lambda dialog: faults.append(dialog.message))
    page.goto(url)
    page.fill("#annotator", "Anna")
    page.press("#annotator", "Enter")
    page.wait_for_selector("#grading:not([hidden])")
    yield page
    context.close()
    assert not faults


def _press(page: Any, keys: str) -> None:
    """Press keys one by one, each once the answer before it has arrived."""
    for key in keys:
        with page.expect_response(lambda response: response.request.method == "POST"):
            page.keyboard.press(key)
        page.wait_for_selector("body[aria-busy=false]")


def test_an_audit_by_keyboard_alone(page: Any, book: Book) -> None:
    keys = list(book.pairs)
    _press(page, "3s1u2")
    assert page.text_content("#query p") == "query 3"
    assert page.text_content("#count") == "2 of 8, 1 skipped"
    _press(page, "0-012")
    assert page.text_content("#query p") == "query 1"
    _press(page, "1")
    page.wait_for_selector("#results:not([hidden])")
    labels = {**dict(zip(keys, "3", strict=False)), **dict(zip(keys[2:], "20-012", strict=True))}
    assert book.desks["Anna"].labels == {**labels, keys[1]: "1"}
    assert "8 of 8 pairs have a label" in page.text_content("#results")
    _press(page, "u")
    page.wait_for_selector("#grading:not([hidden])")
    assert page.text_content("#query p") == "query 1"


def test_keys_that_are_no_answer_do_nothing(page: Any, book: Book) -> None:
    for key in ("4", "9", "a", "u", "Control+3", "Enter", "Tab"):
        page.keyboard.press(key)
    _press(page, "1")
    assert list(book.desks["Anna"].labels.values()) == ["1"]


def test_the_name_and_the_work_outlive_a_reload(page: Any) -> None:
    _press(page, "12")
    page.reload()
    page.wait_for_selector("#grading:not([hidden])")
    assert page.text_content("#query p") == "query 2"
    assert page.text_content("#name") == "Anna"


def test_disagreements_are_decided_on_the_page(page: Any, book: Book) -> None:
    for pair in book.audit.pairs:
        book.answer("Ben", pair.key, "2")
    _press(page, "22222221")
    page.wait_for_selector(".dispute")
    assert "0.00" in page.text_content("#results")  # kappa: one of them never varies
    with page.expect_response("**/adjudicate"):
        page.click(".dispute button:text-is('2')")
    page.wait_for_selector(".dispute button[aria-pressed=true]")
    assert list(book.adjudicated.values()) == ["2"]
    assert "All are decided" in page.text_content("#results")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [_WIDE, _NARROW])
def test_everything_is_within_reach(
    browser: Any, tmp_path: Path, viewport: dict[str, int], scheme: str
) -> None:
    """No sideways scrolling, every answer on the screen, the scheme respected."""
    audit = pairs_of(2)
    long = {"title": "题" * 200, "text": "长文 " * 1500, "asr": "w" * 300}
    pairs = [replace(pair, document=pair.document | long) for pair in audit.pairs]
    with (
        open_book(tmp_path, replace(audit, pairs=tuple(pairs))) as book,
        served(book) as url,
    ):
        for page in _open(browser, url, viewport, scheme):
            _check_within(page, viewport)
            for _ in audit.pairs:
                with page.expect_response("**/answer"):
                    page.click("#choices button >> nth=1")
                page.wait_for_selector("body[aria-busy=false]")
            page.wait_for_selector("#results:not([hidden])")
            assert _overflow(page) <= 0
            dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (sum(map(int, dark[4:-1].split(","))) < 200) == (scheme == "dark")
    assert set(book.standing().values()) == {"2"}


def _overflow(page: Any) -> int:
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    return int(page.evaluate(wide))


def _check_within(page: Any, viewport: dict[str, int]) -> None:
    assert _overflow(page) <= 0
    for button in page.query_selector_all("#choices button"):
        box = button.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= viewport["width"]
        assert box["y"] + box["height"] <= viewport["height"]
    assert page.query_selector("#document").bounding_box()["height"] >= 100


def test_texts_are_shown_and_never_run(browser: Any, tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script>{{7*7}}"
    audit = pairs_of(1)
    (pair,) = audit.pairs
    hostile = replace(pair, query=evil, document=pair.document | {"title": evil})
    with open_book(tmp_path, replace(audit, pairs=(hostile,))) as book, served(book) as url:
        for page in _open(browser, url, _WIDE):
            assert page.text_content("#query p") == evil
            assert page.query_selector("#grading img, #grading script") is None
