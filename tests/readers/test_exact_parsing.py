"""The fast parse of a text block, where it dares, equals the exact one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssra_engine.readers import delimited, jsonl
from ssra_engine.readers.rows import Rows

_CSV_PIECES = ['"', '""', ",", "x", "5", " ", "\n", "\r\n", "\r", "中", "\x00"]
_JSON_PIECES = [
    '{"a":',
    '"x"',
    "null",
    "1",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\n",
    " ",
    "true",
    '"g":',
]
_JSON_LINES = [
    '{"a": "x", "g": 1}',
    '{"a": "中\\u0000\\ud83d\\ude00", "other": [null, {"a": 2}]}',
    '{"g": 2.5, "a": null}',
    "{}",
    '{"a": "} null"}',
]


def _plain(rows: Rows) -> tuple[dict[str, list[object]], list[int]]:
    return {name: array.to_pylist() for name, array in rows.columns.items()}, rows.places.tolist()


@settings(deadline=None)
@given(st.lists(st.sampled_from(_CSV_PIECES), max_size=24))
def test_csv(pieces: list[str]) -> None:
    block = ("".join(pieces) + "\n").encode()
    fast = delimited._parse_block(block, ["a", "b"], ["b"], ",", 5)
    if fast is not None:
        exact, carry = delimited._parse_rows(block, ["a", "b"], ["b"], ",", 5, last=True)
        assert carry == b""
        assert exact.bad == []
        assert _plain(fast) == _plain(exact)


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(_JSON_LINES),
            st.lists(st.sampled_from(_JSON_PIECES), max_size=8).map("".join),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_json(lines: list[str]) -> None:
    block = ("\n".join(lines) + "\n").encode()
    columns: dict[str, jsonl.Kind] = {"a": "text", "g": "number"}
    fast = jsonl._parse_block(block, columns, 5)
    if fast is not None:
        exact = jsonl._parse_lines(block, columns, 5)
        assert exact.bad == []
        assert _plain(fast) == _plain(exact)


@pytest.mark.parametrize("line", ["null", '{"a": "x"} null', '{"a": "x"}null{"a": "y"}', " null"])
def test_a_bare_null_never_reaches_the_parser_that_it_crashes(line: str) -> None:
    assert jsonl._parse_block(f'{line}\n{{"a": "z"}}\n'.encode(), {"a": "text"}, 1) is None


def test_plain_blocks_take_the_fast_way() -> None:
    assert jsonl._parse_block(b'{"a": "x"}\n{"g": null}\n', {"a": "text"}, 1) is not None
    assert delimited._parse_block(b'a,"b, c"\r\nd,e\r\n', ["a", "b"], ["b"], ",", 1) is not None


def test_two_objects_on_a_line_are_not_two_lines() -> None:
    assert jsonl._parse_block(b'{"a": "x"} {"a": "y"}\n', {"a": "text"}, 1) is None
