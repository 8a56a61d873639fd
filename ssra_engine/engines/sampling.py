"""Drawing tokens: temperature and nucleus sampling with random numbers of each completion's own.

A draw is an exponential race: token i finishes at E_i / p_i, the E_i independent and exponential,
and the first one wins; so i wins with probability p_i. Blocks of the vocabulary race first, then
the tokens of the winning block. The E are hashes of the request's seed, the sample and the step, so
a completion depends neither on its neighbours in the batch nor on their order. Rounding in the
logits changes a draw only when two times are as close as the rounding is large. (With an inverse
cumulative distribution it changed one in a thousand draws from a flat distribution: there a shift
of the running sum moves the boundaries of all tokens.)

The nucleus (arXiv 1904.09751) is the smallest set of most probable tokens that holds `top_p` of the
probability; tokens as probable as the last one of the set belong to it. Sorting the vocabulary to
find it would take longer than the model. Instead a token is drawn from all tokens and the mass
above it is summed: when it lies outside the nucleus, it and everything less probable is struck out,
and the draw is repeated. All of the nucleus stays in every time, so what is drawn in the end
follows the nucleus exactly.
"""

from __future__ import annotations

import numpy as np
import torch

from ssra_engine.keys import mix

__all__ = ["draw", "exponentials"]

#: Elements drawn from at once: they should stay in the cache between passes.
_CHUNK_ELEMENTS = 1 << 20
_BLOCK = 256


def exponentials(keys: np.ndarray, step: int, attempt: int, count: int) -> torch.Tensor:
    """Standard exponential numbers above 0, float64[len(keys), count], from hashes."""
    bits = mix(mix(keys, step, attempt)[:, None], np.arange(count)) >> np.uint64(11)
    return torch.from_numpy(-np.log((bits.astype(np.float64) + 0.5) * 2.0**-53))


def draw(
    logits: torch.Tensor,
    keys: np.ndarray,
    step: int,
    *,
    temperature: float,
    top_p: float,
    banned: torch.Tensor | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one token a row.

    Args:
        logits: float[N, V].
        keys: uint64[N], one for each completion: its seed and sample number, mixed.
        step: how many tokens the completions have already.
        temperature: 0 takes the most probable token.
        top_p: size of the nucleus, in (0, 1].
        banned: int64[...], tokens that may not be drawn.

    Returns:
        tokens int64[N], and float32[N]: their log-probabilities under the model itself, that is
        with neither temperature nor nucleus nor ban.
    """
    chunk = max(1, _CHUNK_ELEMENTS // logits.shape[1])
    tokens = np.empty(len(logits), np.int64)
    logprobs = np.empty(len(logits), np.float32)
    for start in range(0, len(logits), chunk):
        rows = slice(start, start + chunk)
        part = logits[rows].float()
        weights = _weights(part, 1.0)
        normaliser = part.amax(-1) + _total(weights).log()
        if temperature == 0:
            offered = part if banned is None else part.index_fill(1, banned, -torch.inf)
            chosen = offered.argmax(-1)
        else:
            if temperature != 1:
                weights = _weights(part, temperature)
            if banned is not None:
                weights.index_fill_(1, banned, 0.0)
            chosen = _draw_nucleus(weights, keys[rows], step, top_p)
        tokens[rows] = chosen.numpy()
        logprobs[rows] = (part.gather(1, chosen[:, None])[:, 0] - normaliser).numpy()
    return tokens, logprobs


def _weights(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """Probabilities up to a factor, float32[N, V'], V' the next multiple of the block."""
    rows, vocabulary = logits.shape
    weights = torch.zeros(rows, -(-vocabulary // _BLOCK) * _BLOCK)
    inside = weights[:, :vocabulary]
    torch.sub(logits, logits.amax(-1, keepdim=True), out=inside)
    if temperature != 1:
        inside.div_(temperature)
    inside.exp_()
    return weights


def _block_sums(weights: torch.Tensor) -> torch.Tensor:
    return weights.view(len(weights), -1, _BLOCK).sum(-1).double()


def _total(weights: torch.Tensor) -> torch.Tensor:
    return _block_sums(weights).sum(-1)


def _draw_nucleus(weights: torch.Tensor, keys: np.ndarray, step: int, top_p: float) -> torch.Tensor:
    """One token a row, int64[N]. Rows of `weights` have at least one above 0."""
    chosen = torch.zeros(len(weights), dtype=torch.int64)
    open_rows, attempt = torch.arange(len(weights)), 0
    sums = _block_sums(weights)
    nucleus = sums.sum(-1) * top_p
    while True:
        tokens = _race(weights, sums, keys[open_rows.numpy()], step, attempt)
        chosen[open_rows] = tokens
        if top_p >= 1:
            return chosen
        drawn = weights.gather(1, tokens[:, None])
        weights = weights.where(weights > drawn, 0.0)
        sums = _block_sums(weights)
        outside = sums.sum(-1) >= nucleus
        if not outside.any():
            return chosen
        open_rows, nucleus = open_rows[outside], nucleus[outside]
        weights, sums = weights[outside], sums[outside]
        attempt += 1


def _race(
    weights: torch.Tensor, sums: torch.Tensor, keys: np.ndarray, step: int, attempt: int
) -> torch.Tensor:
    """The winning token of each row; its weight is above 0."""
    rows, blocks = sums.shape
    times = exponentials(keys, step, attempt, blocks + _BLOCK)
    block = (times[:, :blocks] / sums).argmin(-1)
    within = weights.view(rows, blocks, _BLOCK)[torch.arange(rows), block]
    return block * _BLOCK + (times[:, blocks:] / within).argmin(-1)
