"""The backbone of `--preset tiny`: a small Llama and its tokenizer, both trained on the corpus.

It lets the whole method run with no download. Before it sees a judgment it is taught, without
labels, what both roles rest on: copying words of a document into a query, and telling the words of
a query that the document holds from those it does not. The questions are made from the corpus
alone, after the inverse cloze task (arXiv 1906.00300): pieces of a document are a query for it,
pieces of another document are not, and a mixture is graded by the share of its own pieces.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ssra_engine.config import TinyConfig, TrainConfig
from ssra_engine.models.packing import Example, PackedSequence, pack
from ssra_engine.models.questions import QuestionEncoder
from ssra_engine.models.training import train

__all__ = ["new_backbone", "pretrain", "train_tokenizer"]

_BOS, _EOS, _PAD = "<s>", "</s>", "<pad>"
#: Questions of each kind for one document in one pretraining sequence.
_QUESTIONS = 4
_MAX_PIECES = 4
_PIECE_TOKENS = 3

_ROPE_BASE = 1e8
#: Radians per token below which a rotary dimension hardly turns over a prompt, and above which it
#: tells a place from its neighbours.
_SLOW, _FAST = 6e-3, 0.03
#: Radians per token of the dimensions that tell the last dozen tokens from those before them.
_WINDOW = (0.02, 0.2)
#: Weights of the layout; see `_lay_circuits`. Scores are those of a softmax, before it.
_EMBEDDING, _GAIN, _MATCH, _PREVIOUS = 0.5, 2.0, 4.0, 8.0
_SELF_SCORE, _NOWHERE_SHARE, _NEAR = -60.0, 0.6, 3.2
_NOTE, _FIRST, _PASS_ON, _SURVEY = 0.2, 0.15, 1.5, 2.0
#: A step of Adam moves every weight by about the rate, all in one direction where few directions
#: matter; at the rate that suits the rest, the attention laid out here would soon be undone.
_ATTENTION_RATE = 0.3


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-pair tokenizer for `texts`, on characters, with bytes for those it has not seen.

    Digits and line breaks are tokens of their own, so that a grade is always one token.
    """
    draft = Tokenizer(models.BPE())
    # A hashtag's word is then the same token as the word elsewhere.
    draft.normalizer = normalizers.Replace(Regex(r"#(?=\S)"), "# ")
    draft.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[\n\p{N}\p{P}]"), "isolated"),
            pre_tokenizers.Metaspace(prepend_scheme="never"),
        ]
    )
    special = [_PAD, _BOS, _EOS]
    texts = list(texts)
    # The trainer breaks ties between rare characters at random; a seed must give one tokenizer.
    counts = Counter(
        character
        for text in texts
        for character in draft.normalizer.normalize_str(text).replace(" ", "▁")
    )
    common = sorted(counts, key=lambda character: (-counts[character], character))
    alphabet = sorted({*"\n0123456789▁", *common[: vocabulary // 2]})
    draft.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary - 256,
            special_tokens=special,
            initial_alphabet=alphabet,
            limit_alphabet=len(alphabet),
            max_token_length=16,
            show_progress=False,
        ),
    )
    trained = json.loads(draft.to_str())["model"]
    vocab = trained["vocab"] | {
        f"<0x{byte:02X}>": len(trained["vocab"]) + byte for byte in range(256)
    }
    merges = [tuple(merge) for merge in trained["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab, merges, byte_fallback=True))
    tokenizer.normalizer, tokenizer.pre_tokenizer = draft.normalizer, draft.pre_tokenizer
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{_BOS} $A", special_tokens=[(_BOS, tokenizer.token_to_id(_BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=_PAD,
        bos_token=_BOS,
        eos_token=_EOS,
        split_special_tokens=True,
    )


def new_backbone(
    tokenizer: PreTrainedTokenizerFast, config: TinyConfig, context: int, seed: int
) -> LlamaForCausalLM:
    """A Llama of `config`'s size with random weights, its attention laid out (`_lay_circuits`)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=config.width,
                intermediate_size=config.width * 8 // 3 // 8 * 8,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                max_position_embeddings=context,
                tie_word_embeddings=True,
                attention_bias=True,
                rope_parameters={"rope_type": "default", "rope_theta": _ROPE_BASE},
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
        _lay_circuits(model)
    return model


@torch.no_grad()
def _lay_circuits(model: LlamaForCausalLM) -> None:
    """Start the attention as what copying and matching need, which minutes cannot discover.

    In the first layer, the first head looks at the previous token and notes it; the others look for
    the present token elsewhere, or at the start of the text where there is none, so that whether a
    word of the query is in the document stands there from the first step. In later layers the first
    two heads look for the place whose noted token is the present one (an induction head,
    arXiv 2209.11895), the last surveys the last dozen tokens, and the rest look for the present
    token. All pass on what they find (query and key alike, value and output transposed:
    arXiv 2305.09828). Content is compared in the rotary dimensions that hardly turn over a prompt's
    length, place in those that do.
    """
    config = model.config
    width, heads = config.hidden_size, config.num_attention_heads
    head = width // heads
    turns = _ROPE_BASE ** (-torch.arange(head // 2) / (head // 2))
    slow = torch.cat([turns < _SLOW] * 2)[:, None]
    window = ((turns > _WINDOW[0]) & (turns < _WINDOW[1])) * _NEAR

    def rotation() -> torch.Tensor:
        orthogonal: torch.Tensor = torch.linalg.qr(torch.randn(width, width))[0]
        return orthogonal

    read_note, write_note = rotation()[:head], rotation()[:, :head]
    model.model.embed_tokens.weight.normal_(0, _EMBEDDING * width**-0.5)
    model.model.norm.weight.fill_(_GAIN)
    start = model.model.embed_tokens.weight[config.bos_token_id]
    for number, layer in enumerate(model.model.layers):
        attention = layer.self_attn
        query, key, value, out = (
            getattr(attention, f"{part}_proj") for part in ("q", "k", "v", "o")
        )
        for part in (query, key, value, out):
            part.bias.zero_()
        carry = rotation()
        value.weight.copy_(carry)
        out.weight.copy_(carry.T * (_PASS_ON if number else _FIRST))
        query.weight.copy_(rotation() * slow.repeat(heads, 1) * _MATCH)
        key.weight.copy_(query.weight)
        first, last = slice(head), slice(width - head, width)
        if number == 0:
            query.weight[first] = key.weight[first] = 0
            query.bias[: head // 2] = _PREVIOUS
            key.bias[first] = _PREVIOUS * torch.cat([turns.cos(), turns.sin()])
            value.weight[first] = read_note
            out.weight[:, first] = write_note * _NOTE
            for place in range(head, width, head):
                _look_elsewhere(query, key, slice(place, place + head), turns, start)
        else:
            for place in (0, head):
                rows = slice(place, place + head)
                query.weight[rows] = read_note * slow * _MATCH
                key.weight[rows] = write_note.T * slow * _MATCH
            query.weight[last] = key.weight[last] = 0
            query.bias[last] = key.bias[last] = torch.cat([window, torch.zeros(head // 2)])
            out.weight[:, last] *= _SURVEY


def _look_elsewhere(
    query: torch.nn.Linear,
    key: torch.nn.Linear,
    rows: slice,
    turns: torch.Tensor,
    start: torch.Tensor,
) -> None:
    """Keep a matching head (`rows`) off its own place, and let it rest on the text's start.

    The fast dimensions carry a constant that repels only the place itself, where their turns all
    agree. The slowest carries one that only the start token (`start`: its embedding) answers, with
    a score below that of a match and above that of chance.
    """
    half = len(turns)
    fast = turns > _FAST
    repel = fast * math.sqrt(-_SELF_SCORE * math.sqrt(2 * half) / int(fast.sum()))
    query.bias[rows] = torch.cat([repel, torch.zeros(half)])
    key.bias[rows] = -query.bias[rows]
    rest = rows.start + half - 1
    matched = _MATCH**2 * 2 * int((turns < _SLOW).sum())
    query.weight[rest] = 0
    query.bias[rest] = 10.0
    key.weight[rest] = start / start.norm() * (_NOWHERE_SHARE * matched / 10 / len(start) ** 0.5)


def pretrain(
    model: LlamaForCausalLM,
    encoder: QuestionEncoder,
    documents: Sequence[str],
    config: TinyConfig,
    *,
    seed: int,
) -> dict[str, float]:
    """Train `model` on questions made from `documents` (prompt prefixes); see the module's text."""
    sequences = _sequences(encoder, documents, config.pretrain_tokens, seed)
    settings = TrainConfig(
        epochs=1,
        rate=config.pretrain_rate,
        attention_rate=_ATTENTION_RATE,
        warmup=0.05,
        weight_decay=0.01,
        batch_rows=config.pretrain_rows,
    )
    return train(model, sequences, settings, pad_id=encoder.pad_id, seed=seed)


def _sequences(
    encoder: QuestionEncoder, documents: Sequence[str], tokens: int, seed: int
) -> list[PackedSequence]:
    rng = np.random.default_rng(seed)
    prefixes = encoder.prefixes(documents)
    bodies = [encoder.content_tokens(prefix) for prefix in prefixes]
    usable = [i for i, body in enumerate(bodies) if len(body) >= _PIECE_TOKENS]
    sequences: list[PackedSequence] = []
    spent = 0
    while usable and spent < tokens:
        for document in rng.permutation(usable):
            prefix = prefixes[document]
            examples = [Example(int(document), (), tuple(prefix[1:]))]
            whole = PackedSequence(tuple(prefix[:1]), tuple(examples))
            examples = []
            for number in range(2 * _QUESTIONS):
                other = bodies[usable[rng.integers(len(usable))]]
                query, grade = _pieces(bodies[document], other, encoder.grades, rng)
                examples.append(
                    encoder.score_tokens(int(document), query, grade)
                    if number % 2
                    else encoder.query_tokens(int(document), query, grade)
                )
            new = [*pack(prefixes, examples), *([whole] if rng.random() < 0.25 else [])]
            sequences += new
            spent += sum(map(len, new))
            if spent >= tokens:
                break
    return sequences


def _pieces(
    own: Sequence[int], other: Sequence[int], grades: int, rng: np.random.Generator
) -> tuple[list[int], int]:
    """A query of pieces of two documents, and its grade: the share of own pieces on the scale."""
    pieces = int(rng.integers(1, _MAX_PIECES + 1))
    kept = int(rng.integers(0, pieces + 1))
    origin = rng.permutation([True] * kept + [False] * (pieces - kept))
    query: list[int] = []
    for from_own in origin:
        source = own if from_own else other
        length = int(rng.integers(1, _PIECE_TOKENS + 1))
        start = int(rng.integers(0, max(1, len(source) - length + 1)))
        query += source[start : start + length]
    return query, round(kept / pieces * (grades - 1))
