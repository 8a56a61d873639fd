from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from ssra_engine.errors import EngineError
from ssra_engine.models.prompt_tokens import PromptTokens


def sentencepiece_tokenizer() -> PreTrainedTokenizerFast:
    """As Llama 2's: a space is written before every text, and unknown characters as bytes."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += ["▁", "1", "2", "▁1", "▁2", "a", "▁a", "yes", "▁yes", "y", "e", "s", "ye"]
    merges = [("▁", "1"), ("▁", "2"), ("▁", "a"), ("y", "e"), ("ye", "s"), ("▁", "yes")]
    tokenizer = Tokenizer(
        models.BPE(
            {piece: i for i, piece in enumerate(pieces)},
            merges,
            byte_fallback=True,
            unk_token="<unk>",
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def test_special_tokens_stand_before_the_prefix_only(tokenizer: Any) -> None:
    tokens = PromptTokens(tokenizer)
    assert tokens.special == [1]
    assert tokens.prefixes(["fox", ""]) == [tokenizer("fox")["input_ids"], [1]]
    assert tokens.suffixes(["fox", ""]) == [tokenizer("fox")["input_ids"][1:], []]
    assert tokens.prefixes([]) == tokens.suffixes([]) == []


def test_text_cannot_forge_a_special_token(tokenizer: Any) -> None:
    tokens = PromptTokens(tokenizer)
    (prefix,), (suffix,) = tokens.prefixes(["a</s><s>b"]), tokens.suffixes(["</s>"])
    assert not {0, 1, 2} & set(prefix[1:])
    assert not {0, 1, 2} & set(suffix)
    assert tokens.texts([suffix]) == ["</s>"]


def test_prefixes_are_cut_at_their_end(tokenizer: Any) -> None:
    whole = PromptTokens(tokenizer).prefixes(["the quick brown fox"])[0]
    assert PromptTokens(tokenizer, 3).prefixes(["the quick brown fox"]) == [whole[:3]]


def test_a_label_is_the_token_that_stands_after_other_text() -> None:
    tokenizer = sentencepiece_tokenizer()
    tokens = PromptTokens(tokenizer)
    vocabulary = tokenizer.get_vocab()
    assert tokenizer("2", add_special_tokens=False)["input_ids"] == [vocabulary["▁2"]]
    assert tokens.label_ids(["2", " 2", "yes", 7]) == [
        vocabulary["2"],
        vocabulary["▁2"],
        vocabulary["yes"],
        7,
    ]
    in_context = tokenizer("a\n2", add_special_tokens=False)["input_ids"]
    assert in_context[-1] == tokens.label_ids(["2"])[0]


def test_what_is_not_a_label(tokenizer: Any) -> None:
    tokens = PromptTokens(tokenizer)
    for labels, message in (
        (["10"], "label '10' is 2 tokens"),
        ([""], "label '' is 0 tokens"),
        (["</s>"], "label '</s>' is . tokens"),
        ([tokens.vocabulary], "not a token id of this model"),
        ([-1], "not a token id of this model"),
        ([], "no labels"),
    ):
        with pytest.raises(EngineError, match=message):
            tokens.label_ids(labels)


@pytest.mark.parametrize("make", ["bytes", "sentencepiece"])
def test_texts_are_what_tokens_add(make: str, tokenizer: Any) -> None:
    tokens = PromptTokens(tokenizer if make == "bytes" else sentencepiece_tokenizer())
    for text in ("a", " a", "a 12\n", "小猫 🎉", "yes a", "", "\n\n"):
        ids = tokens.suffixes(["\n" + text])[0][len(tokens.suffixes(["\n"])[0]) :]
        assert tokens.texts([ids]) == [text]
    assert tokens.texts([]) == []
    assert tokens.texts([[2]]) == [""]


def test_pieces() -> None:
    tokenizer = sentencepiece_tokenizer()
    pieces = PromptTokens(tokenizer).pieces()
    vocabulary = tokenizer.get_vocab()
    assert len(pieces) == len(tokenizer)
    assert pieces[vocabulary["▁a"]] == " a"
    assert pieces[vocabulary["<0x0A>"]] == "\n"
    assert pieces[vocabulary["<0xE5>"]] == "�"
    assert pieces[2] == ""
