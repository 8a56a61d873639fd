from __future__ import annotations

from typing import Any

import numpy as np

from ssra_engine.engines.stopping import StopRules
from ssra_engine.models.prompt_tokens import PromptTokens


def _rules(tokenizer: Any, *stop: str) -> StopRules:
    tokens = PromptTokens(tokenizer)
    return StopRules(tokens, tokens.pieces(), [2], stop, tokens.vocabulary)


def _ends_at(rules: StopRules, ids: list[int]) -> int | None:
    """Number of tokens after which a completion of `ids` ends."""
    generated = np.array([ids], np.int32)
    for length in range(1, len(ids) + 1):
        newest = np.array([ids[length - 1]])
        if rules.ended(newest, np.array([0]), generated, length)[0]:
            return length
    return None


def test_a_stop_string_ends_where_it_is_complete(tokenizer: Any) -> None:
    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    for stop, text in (("\n", "fox\nG"), ("r b", "over beach"), ("。", "小猫。睡"), ("🎉", "a🎉b")):
        whole = ids(text)
        end = _ends_at(_rules(tokenizer, stop), whole)
        assert end is not None
        assert stop in tokenizer.decode(whole[:end])
        assert stop not in tokenizer.decode(whole[: end - 1])
    assert _ends_at(_rules(tokenizer, "zebra", "\n"), ids("a zebu and a bra")) is None
    assert _ends_at(_rules(tokenizer), [*ids("fox\n"), 2, 2]) == len(ids("fox\n")) + 1


def test_banned_tokens_end_a_completion_on_their_own(tokenizer: Any) -> None:
    rules = _rules(tokenizer, "fox")
    pieces = PromptTokens(tokenizer).pieces()
    assert any("fox" in piece for piece in pieces)
    assert rules.banned.tolist() == [
        token for token, piece in enumerate(pieces) if token == 2 or "fox" in piece
    ]


def test_text_is_cut_before_the_first_stop(tokenizer: Any) -> None:
    rules = _rules(tokenizer, "\n", "ab")
    assert rules.cut("xaby\nz") == "x"
    assert rules.cut("x\nab") == "x"
    assert rules.cut("xyz") == "xyz"
