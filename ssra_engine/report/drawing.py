"""Plots as inline SVG: a few shapes, coloured by the style sheet, so that they follow the theme."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

__all__ = ["interval", "nice_ticks", "reliability_plot", "speed_plot"]

_WIDTH, _HEIGHT = 360, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 10, 40


class _Frame:
    """Axes from (0, 0) to (`x_most`, `y_most`), and where a point lies on the drawing."""

    def __init__(self, x_most: float, y_most: float) -> None:
        self._x_most = x_most
        self._y_most = y_most

    def x(self, value: float) -> float:
        return round(_LEFT + value / self._x_most * (_WIDTH - _LEFT - _RIGHT), 2)

    def y(self, value: float) -> float:
        return round(_HEIGHT - _BOTTOM - value / self._y_most * (_HEIGHT - _TOP - _BOTTOM), 2)

    def axes(self, x_ticks: Sequence[float], y_ticks: Sequence[float], x: str, y: str) -> Markup:
        """Lines at the ticks, their numbers, and what the axes are."""
        left, right = self.x(0), self.x(self._x_most)
        drawn = []
        for tick in y_ticks:
            line = '<path class="grid" d="M{0} {2}H{1}"/>'
            text = '<text class="tick end" x="{3}" y="{4}">{5}</text>'
            at = self.y(tick)
            drawn.append(
                Markup(line + text).format(left, right, at, left - 6, at + 4, _number(tick))
            )
        for tick in x_ticks:
            text = '<text class="tick middle" x="{}" y="{}">{}</text>'
            drawn.append(Markup(text).format(self.x(tick), self.y(0) + 16, _number(tick)))
        name = '<text class="axis middle" x="{}" y="{}">{}</text>'
        drawn.append(Markup(name).format((left + right) / 2, _HEIGHT - 6, x))
        turned = '<text class="axis middle" transform="translate(12 {}) rotate(-90)">{}</text>'
        drawn.append(Markup(turned).format((_TOP + _HEIGHT - _BOTTOM) / 2, y))
        return Markup("").join(drawn)


def reliability_plot(curves: Mapping[str, Sequence[Sequence[float]]]) -> Markup:
    """Accuracy over confidence; the better calibrated, the nearer to the diagonal.

    Args:
        curves: by name, at most two: (rows, mean confidence, accuracy) of each bin; the area of a
            dot says how many rows it stands for.
    """
    frame = _Frame(1.0, 1.0)
    quarters = (0.0, 0.25, 0.5, 0.75, 1.0)
    drawn = [frame.axes(quarters, quarters, "confidence", "share that is right")]
    diagonal = '<path class="diagonal" d="M{} {}L{} {}"/>'
    drawn.append(Markup(diagonal).format(frame.x(0), frame.y(0), frame.x(1), frame.y(1)))
    for number, (name, bins) in enumerate(curves.items()):
        if not bins:
            continue
        points = [(frame.x(sure), frame.y(right)) for _, sure, right in bins]
        path = "M" + "L".join(f"{x} {y}" for x, y in points)
        drawn.append(Markup('<path class="line s{}" d="{}"/>').format(number, path))
        most = max(rows for rows, _, _ in bins)
        for (rows, sure, right), (x, y) in zip(bins, points, strict=True):
            dot = '<circle class="dot s{}" cx="{}" cy="{}" r="{:.1f}"><title>{}</title></circle>'
            told = f"{name}: {rows:,} rows, confidence {sure:.2f}, right {right:.2f}"
            drawn.append(Markup(dot).format(number, x, y, 2 + 6 * math.sqrt(rows / most), told))
    return _svg("Reliability of the score model", drawn)


def speed_plot(spans: Sequence[Mapping[str, Any]]) -> Markup:
    """Documents per second over working time: a bar for each span of `throughput.throughput`."""
    rates = [span["rate"] or 0.0 for span in spans]
    x_ticks, y_ticks = nice_ticks(spans[-1]["end"] or 1.0), nice_ticks(max(rates) or 1.0)
    frame = _Frame(max(spans[-1]["end"], x_ticks[-1]), max(*rates, y_ticks[-1]))
    drawn = [frame.axes(x_ticks, y_ticks, "seconds of work", "documents/s")]
    sections = list(dict.fromkeys(span["section"] for span in spans))
    for span, rate in zip(spans, rates, strict=True):
        x, y = frame.x(span["start"]), frame.y(rate)
        bar = '<rect class="span s{}" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>'
        told = f"{span['section']}: {span['documents']:,} documents, {rate:,.1f} a second"
        width, height = max(frame.x(span["end"]) - x, 0.5), frame.y(0) - y
        number = sections.index(span["section"]) % 2
        drawn.append(Markup(bar).format(number, x, y, round(width, 2), round(height, 2), told))
    return _svg("Documents per second over working time", drawn)


def interval(figure: Mapping[str, Any], low: float, high: float, *, zero: bool = False) -> Markup:
    """A value with its interval, on a scale that its neighbours share.

    Args:
        figure: value, low and high; the last two may be null.
        low: left end of the scale.
        high: right end, above it.
        zero: mark 0.
    """
    width, height = 200, 20

    def x(value: float) -> float:
        return round(6 + (value - low) / (high - low) * (width - 12), 2)

    drawn = [Markup('<path class="grid" d="M6 10H194"/>')]
    if zero:
        drawn.append(Markup('<path class="diagonal" d="M{} 1V19"/>').format(x(0.0)))
    if figure["low"] is not None:
        whisker = '<path class="whisker" d="M{0} 10H{1}M{0} 6V14M{1} 6V14"/>'
        drawn.append(Markup(whisker).format(x(figure["low"]), x(figure["high"])))
    drawn.append(
        Markup('<circle class="dot s0" cx="{}" cy="10" r="4"/>').format(x(figure["value"]))
    )
    body = Markup("").join(drawn)
    open_tag = '<svg class="interval" viewBox="0 0 {} {}" aria-hidden="true">{}</svg>'
    return Markup(open_tag).format(width, height, body)


def nice_ticks(most: float) -> list[float]:
    """From 0 up to `most` or just above it, in steps of 1, 2 or 5 times a power of ten."""
    rough = most / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    return [round(step * number, 10) for number in range(math.ceil(most / step - 1e-9) + 1)]


def _svg(name: str, drawn: Sequence[Markup]) -> Markup:
    tag = '<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>'
    return Markup(tag).format(_WIDTH, _HEIGHT, name, Markup("").join(drawn))


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"
