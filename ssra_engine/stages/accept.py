"""Acceptance with a promise: which scored samples of a target grade are accepted.

A sample is accepted where the score model's probability of its target (`confidence`) reaches a
threshold. The threshold is chosen by learn-then-test (Angelopoulos et al., arXiv 2110.01052): some
thresholds, fixed before any label is seen, are tested from the strictest to the laxest, each for
"too few of the samples at or above it have the target as their true grade", and the laxest for
which that is ruled out is taken. The tests share one risk by the fallback procedure (Wiens,
Pharmaceutical Statistics 2003), which is fixed sequence testing with several starts: each start
brings a share of the risk, a test that succeeds hands on what it had, a test that fails loses it.
So the probability that any threshold is wrongly let pass is the risk at most.

The samples are finite in number and audited without replacement, so the test is the
hypergeometric one, whose limit for a small share of audited samples is the binomial test.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import hypergeom

from ssra_engine.keys import mix

__all__ = [
    "Choice",
    "Estimate",
    "choose",
    "compete",
    "estimate",
    "fewest_right",
    "p_values",
    "surest",
]

# Each threshold accepts this share of what the next laxer one does.
_STEP = 0.9

# The first start has so many audited samples at or above it that at the precision asked for about
# this many would be wrong, and no fewer than `_FEWEST_AUDITED`; each further start has twice as
# many. With few labels one unlucky one ends a sequence before it has begun; with many, a set is
# large, and few thresholds are left.
_EXPECTED_WRONG = 10
_FEWEST_AUDITED = 100

# Of the risk, each start brings this share of what the start before it brought. The later ones are
# for score models that order samples badly, where only the whole is large enough to be sure of.
_NEXT_START = 0.5

# An estimate looks at no fewer judged pairs.
_FEWEST_JUDGED = 20


@dataclass(frozen=True)
class Choice:
    """The threshold of one target grade, or a refusal.

    Attributes:
        threshold: least confidence of an accepted sample; None where it is refused.
        population: samples chosen from.
        accepted: samples at or above the threshold, audited ones counted.
        audited: those of them that were audited; of a refusal, of `reachable_at`.
        right: those of the audited whose label is the target.
        reachable: of a refusal, a precision that can be had. It and the promise share one risk:
            whichever is told is wrong with no more than the probability that was allowed.
        reachable_at: the threshold that has it; None without samples or labels.
    """

    threshold: float | None
    population: int
    accepted: int
    audited: int
    right: int
    reachable: float | None = None
    reachable_at: float | None = None


@dataclass(frozen=True)
class Estimate:
    """A threshold of one target grade from judged pairs alone.

    Attributes:
        threshold: None where no 20 judged pairs or more, from the surest on, reach the precision.
        judged: pairs at or above the threshold; without one, above that of the highest precision.
        right: those of them judged to have the target grade.
    """

    threshold: float | None
    judged: int
    right: int


def choose(
    confidence: np.ndarray,
    audited: np.ndarray,
    right: np.ndarray,
    *,
    min_precision: float,
    risk: float,
) -> Choice:
    """The laxest threshold that the tests let pass.

    Args:
        confidence: of every sample of one target, float[N].
        audited: a random choice among them, drawn without a look at the labels, bool[N].
        right: whether the label is the target, bool[N]; False where not audited.
        min_precision: share of the accepted samples that must be right, between 0 and 1.
        risk: probability with which the promise may fail, over the draw of the audit.

    Returns:
        `Choice`. With probability 1 - risk or more, at least `min_precision` of the samples at or
        above the threshold are right, if one is given.
    """
    size, threshold = _steps(confidence)
    order = np.argsort(-confidence, kind="stable")
    count = np.cumsum(audited[order])[size - 1]
    good = np.cumsum((audited & right)[order])[size - 1]
    if not len(size) or count[-1] == 0:
        return Choice(None, len(confidence), 0, 0, 0, 0.0)
    starts = _starts(count, min_precision)
    brought = np.zeros(len(size))
    shares = _NEXT_START ** np.arange(len(starts))
    brought[starts] = risk * shares / shares.sum()
    p = np.ones(len(size))
    tested = slice(starts[0], None)
    p[tested] = p_values(size[tested], count[tested], good[tested], min_precision)
    passed = np.flatnonzero(_fallback(p, brought))
    if len(passed):
        at = passed[-1]
        found = (int(size[at]), int(count[at]), int(good[at]))
        return Choice(float(threshold[at]), len(confidence), *found)
    sure = [_sure(int(size[s]), int(count[s]), int(good[s]), brought[s]) for s in starts]
    at = starts[int(np.argmax(sure))]
    labels = (int(count[at]), int(good[at]))
    return Choice(None, len(confidence), 0, *labels, max(sure), float(threshold[at]))


def p_values(
    size: np.ndarray, audited: np.ndarray, right: np.ndarray, min_precision: float
) -> np.ndarray:
    """Of sets of samples, how probable so many right ones are where the promise is broken.

    A set breaks the promise when less than `min_precision` of it is right, or of the part that
    nobody audited. The second asks for more once much of the set is audited: what is known of the
    audited part then says less of the rest.

    Args:
        size: of each set, int64[S].
        audited: drawn from each without replacement, int64[S].
        right: of those, int64[S].
        min_precision: between 0 and 1.

    Returns:
        float64[S]: P(right or more), at the most right samples with which a set breaks it.
    """
    rest = right + _at_least(min_precision * (size - audited)) - 1
    most = np.maximum(_at_least(min_precision * size) - 1, rest)
    p: np.ndarray = hypergeom.sf(right - 1, size, most, audited)
    return p


def fewest_right(size: int, audited: int, right: int, risk: float) -> int:
    """Lower bound of the right samples in a set, at confidence 1 - risk (hypergeometric, exact).

    Args:
        size: of the set.
        audited: drawn from it without replacement.
        right: of those.
        risk: probability of a bound above the truth, at most.
    """
    low, high = right, size - (audited - right)
    while low < high:
        middle = (low + high) // 2
        if hypergeom.sf(right - 1, size, middle, audited) > risk:
            high = middle
        else:
            low = middle + 1
    return low


def estimate(confidence: np.ndarray, right: np.ndarray, min_precision: float) -> Estimate:
    """The lowest threshold at which judged pairs reach a precision: an estimate, not a promise.

    Judged pairs have another mix of grades and queries than generated ones, and the best of many
    thresholds flatters.

    Args:
        confidence: the score model's probability of the target for each judged pair, float[N].
        right: whether the pair was judged to have the target grade, bool[N].
        min_precision: between 0 and 1.
    """
    order = np.argsort(-confidence, kind="stable")
    ordered, good = confidence[order], np.cumsum(right[order])
    share = good / np.arange(1, len(order) + 1)
    usable = np.append(ordered[1:] != ordered[:-1], True)[: len(order)]
    usable[: _FEWEST_JUDGED - 1] = False
    if not usable.any():
        return Estimate(None, len(order), int(right.sum()))
    reached = np.flatnonzero(usable & (share >= min_precision))
    at = reached[-1] if len(reached) else np.argmax(np.where(usable, share, -1.0))
    threshold = float(ordered[at]) if len(reached) else None
    return Estimate(threshold, int(at) + 1, int(good[at]))


def compete(
    *,
    query: np.ndarray,
    document: np.ndarray,
    target: np.ndarray,
    confidence: np.ndarray,
    seed: np.ndarray,
    everywhere: bool,
) -> np.ndarray:
    """Of samples that say the same, only the surest may be accepted.

    One query of one document has one grade, so of its targets the likeliest stays. With
    `everywhere`, one (query, target) stays in the whole output, as with a global
    `filter.duplicates`. Which one follows from the confidence and not from a threshold, so what one
    threshold accepts does not depend on the others.

    Args:
        query: key of each normalised query, uint64[N].
        document: key of each document, uint64[N].
        target: integer[N].
        confidence: float[N].
        seed: of the samples, uint64[N]; the lower one wins between equals.
        everywhere: whether (query, target) may stand only once.

    Returns:
        bool[N].
    """
    stays = _surest_of(mix(query, document), confidence, seed, np.ones(len(query), bool))
    if everywhere:
        stays = _surest_of(mix(query, target), confidence, seed, stays)
    return stays


def surest(confidence: np.ndarray, share: float) -> np.ndarray:
    """The surest share of some samples, and those that equal the last of them, bool[N]."""
    if not len(confidence):
        return np.zeros(0, bool)
    count = max(1, math.ceil(share * len(confidence)))
    least = np.partition(confidence, len(confidence) - count)[len(confidence) - count]
    return np.asarray(confidence >= least)


def _surest_of(
    keys: np.ndarray, confidence: np.ndarray, seed: np.ndarray, alive: np.ndarray
) -> np.ndarray:
    rows = np.flatnonzero(alive)
    order = rows[np.lexsort((seed[rows], -confidence[rows], keys[rows]))]
    first = np.append(True, keys[order[1:]] != keys[order[:-1]])[: len(order)]
    stays = np.zeros(len(keys), bool)
    stays[order[first]] = True
    return stays


def _steps(confidence: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Thresholds from the strictest on, and how many samples are at or above each."""
    ordered = np.sort(confidence)[::-1]
    if not len(ordered):
        return np.empty(0, np.int64), np.empty(0)
    steps = math.ceil(math.log(len(ordered)) / -math.log(_STEP)) + 1
    wanted = np.ceil(len(ordered) * _STEP ** np.arange(steps)).astype(np.int64)
    threshold = np.unique(ordered[wanted - 1])[::-1]
    size = np.searchsorted(-ordered, -threshold, side="right")
    return size, threshold


def _starts(audited: np.ndarray, min_precision: float) -> np.ndarray:
    """Steps at which a sequence of tests starts, by how many audited samples each step has."""
    wanted = max(_FEWEST_AUDITED, round(_EXPECTED_WRONG / (1 - min_precision)))
    counts = []
    while wanted <= audited[-1]:
        counts.append(wanted)
        wanted *= 2
    return np.unique(np.searchsorted(audited, counts or [audited[-1]]))


def _fallback(p: np.ndarray, brought: np.ndarray) -> np.ndarray:
    """Which hypotheses, tested in order, the fallback procedure rules out, bool[len(p)].

    Args:
        p: p-value of each, float[S].
        brought: risk that each brings, float[S].
    """
    out, held = np.zeros(len(p), bool), 0.0
    for step, (value, more) in enumerate(zip(p.tolist(), brought.tolist(), strict=True)):
        held += more
        out[step] = held > 0 and value <= held
        if not out[step]:
            held = 0.0
    return out


def _at_least(number: np.ndarray) -> np.ndarray:
    """Rounded up; a number that is whole but for the error of its product stays."""
    return np.ceil(np.round(number, 6)).astype(np.int64)


def _sure(size: int, audited: int, right: int, risk: float) -> float:
    """The highest precision that `p_values` would let pass for one set."""
    fewest = fewest_right(size, audited, right, risk)
    bounds = [fewest / size]
    if size > audited:
        bounds.append((fewest - right) / (size - audited))
    return min(bounds)
