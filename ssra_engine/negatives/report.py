"""What mining prints at its end: scores of positives and negatives, and what was refused."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ssra_engine.negatives.formats import Cells
from ssra_engine.negatives.settings import Settings

__all__ = ["report"]

Scores = npt.NDArray[np.float64]


def report(
    cells: Cells, made: int, candidates: int, skipped: dict[str, int], settings: Settings
) -> str:
    """Lines about the scores, the candidates that each limit refused, and the rows not made.

    A candidate counts for the first limit that refuses it, in the order absolute_margin,
    relative_margin, max_score, min_score; its share is of what the earlier ones left.

    Args:
        cells: positives and negatives.
        made: rows of the result.
        candidates: how many negatives were looked at, in all.
        skipped: how many of them each limit refused.
        settings: what was asked for.
    """
    lines = [*_scores(cells, settings), *_refused(candidates, skipped, settings)]
    missing = _possible(cells, settings) - made
    if missing > 0:
        share = missing / (missing + made)
        lines.append(
            f"{missing:,} of {missing + made:,} possible rows ({share:.2%}) are missing: too few "
            f"candidates were left. To find more, look at {_advice(settings)}."
        )
    return "\n".join(lines)


def _scores(cells: Cells, settings: Settings) -> Iterator[str]:
    negative = cells.present[:, 1:]
    if settings.output_format == "n-tuple":
        negative &= negative.all(axis=1, keepdims=True)
    scores = cells.scores.astype(np.float64)
    negatives = scores[:, 1:][negative]
    columns = [scores[:, 0], negatives, np.repeat(scores[:, 0], negative.sum(axis=1)) - negatives]
    yield f"{'':<8}{'positives':>12}{'negatives':>12}{'difference':>12}"
    yield f"{'count':<8}{len(scores):>12,}{len(negatives):>12,}"
    shown = [_figures(column) for column in columns]
    for name in shown[0]:
        cells_of_row = (f"{figures[name]:>12.4f}" for figures in shown)
        yield f"{name:<8}{''.join(cells_of_row)}"


def _figures(scores: Scores) -> dict[str, float]:
    if not len(scores):
        return dict.fromkeys(("mean", "std", "min", "25 %", "median", "75 %", "max"), np.nan)
    quarters = np.quantile(scores, [0, 0.25, 0.5, 0.75, 1])
    spread = scores.std(ddof=1) if len(scores) > 1 else np.nan
    low, first, median, third, high = quarters.tolist()
    return {
        "mean": float(scores.mean()),
        "std": float(spread),
        "min": low,
        "25 %": first,
        "median": median,
        "75 %": third,
        "max": high,
    }


def _refused(candidates: int, skipped: dict[str, int], settings: Settings) -> Iterator[str]:
    left = candidates
    for name, count in skipped.items():
        if count:
            value = getattr(settings, name)
            yield f"{name} {value} refused {count:,} candidates ({count / left:.2%})."
            left -= count


def _possible(cells: Cells, settings: Settings) -> int:
    rows, n = len(cells.documents), settings.num_negatives
    groups = len(cells.task.group_query)
    if settings.output_format == "triplet":
        return rows * n
    if settings.output_format == "labeled-pair":
        return rows + groups * n
    return rows


def _advice(settings: Settings) -> str:
    names = ["range_max"]
    if settings.range_min:
        names.append("range_min")
    limits = ("absolute_margin", "relative_margin", "max_score", "min_score")
    names += [name for name in limits if getattr(settings, name) is not None]
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
