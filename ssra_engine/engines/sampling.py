"""Drawing tokens: temperature and nucleus sampling with a random number per completion and step.

The random number of a draw is a hash of the request's seed, the sample and the step, so a
completion depends neither on its neighbours in the batch nor on their order; only float rounding in
the logits can differ.

The nucleus (arXiv 1904.09751) is the smallest set of most probable tokens that holds `top_p` of the
probability; tokens as probable as the last one of the set belong to it. Sorting the vocabulary to
find it would take longer than the model. Instead a token is drawn from all tokens and its rank mass
is checked: when it lies outside the nucleus, it and everything less probable is struck out, and the
draw is repeated. What is drawn in the end follows the nucleus exactly, since all of the nucleus
stays in at every step.
"""

from __future__ import annotations

import numpy as np
import torch

from ssra_engine.keys import mix

__all__ = ["draw", "uniform"]

#: Rows drawn at once: their probabilities should stay in the cache between passes.
_CHUNK_ELEMENTS = 1 << 20
#: The inverse of the cumulative distribution is sought by block, then inside one.
_BLOCK = 256


def uniform(keys: np.ndarray, step: int, attempt: int) -> np.ndarray:
    """Numbers in [0, 1), float64, from uint64 keys of completions, a step and an attempt."""
    return (mix(keys, step, attempt) >> np.uint64(11)).astype(np.float64) * 2.0**-53


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
        normaliser = part.logsumexp(-1)
        offered = part
        if banned is not None:
            offered = part.index_fill(1, banned, -torch.inf)
        if temperature == 0:
            chosen = offered.argmax(-1)
        else:
            chosen = _draw_nucleus(offered.div(temperature), keys[rows], step, top_p)
        tokens[rows] = chosen.numpy()
        logprobs[rows] = (part.gather(1, chosen[:, None])[:, 0] - normaliser).numpy()
    return tokens, logprobs


def _draw_nucleus(logits: torch.Tensor, keys: np.ndarray, step: int, top_p: float) -> torch.Tensor:
    rows, vocabulary = logits.shape
    blocks = -(-vocabulary // _BLOCK)
    weights = torch.zeros(rows, blocks * _BLOCK)
    inside = weights[:, :vocabulary]
    torch.sub(logits, logits.amax(-1, keepdim=True), out=inside)
    inside.exp_()
    nucleus = weights.sum(-1, dtype=torch.float64) * top_p
    chosen = torch.zeros(rows, dtype=torch.int64)
    open_rows, attempt = torch.arange(rows), 0
    while len(open_rows):
        numbers = torch.from_numpy(uniform(keys[open_rows.numpy()], step, attempt))
        tokens = _inverse_cdf(weights, numbers)
        chosen[open_rows] = tokens
        if top_p >= 1:
            break
        drawn = weights.gather(1, tokens[:, None])
        above = weights.where(weights > drawn, 0.0)
        outside = above.sum(-1, dtype=torch.float64) >= nucleus
        open_rows, nucleus, weights = open_rows[outside], nucleus[outside], above[outside]
        attempt += 1
    return chosen


def _inverse_cdf(weights: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """The token at which the running sum of `weights` passes `numbers` times their total.

    Args:
        weights: float32[N, blocks * _BLOCK], not negative.
        numbers: float64[N] in [0, 1).

    Returns:
        int64[N]; the weight of a returned token is above 0.
    """
    rows = torch.arange(len(weights))
    by_block = weights.view(len(weights), -1, _BLOCK)
    sums = by_block.sum(-1).double()
    block, rest = _first_above(sums.cumsum(-1), numbers * sums.sum(-1))
    within = by_block[rows, block].double()
    token, _ = _first_above(within.cumsum(-1), rest)
    return block * _BLOCK + token


def _first_above(running: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """First column of the running sum above the target, and how far the target lies into it."""
    # Rounding may put the target at the very end; the last column that adds anything is meant then.
    target = torch.minimum(target, running[:, -1] * (1 - 1e-12))
    place = (running <= target[:, None]).sum(-1)
    before = torch.where(place > 0, running.gather(1, (place - 1).clamp(min=0)[:, None])[:, 0], 0.0)
    return place, target - before
