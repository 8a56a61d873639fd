"""The page: figures of `collect` as one HTML file with all that it needs inside.

Everything is escaped by the templates. Should that fail, the page's own security policy still lets
no script run but ours, and nothing be loaded from anywhere.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

from ssra_engine.report.drawing import interval, reliability_plot, speed_plot

__all__ = ["render"]

_PLACE = files("ssra_engine") / "report" / "page"
_FIGURES = {
    "ndcg_linear": "nDCG{}, linear gains",
    "ndcg_exp": "nDCG{}, exponential gains",
    "mrr": "MRR{}",
    "ap_mean": "AP, mean over the grades{}",
    "spearman": "Spearman's rho{}",
}


def render(figures: Mapping[str, Any]) -> str:
    """The HTML of what `collect.collect` returned; the same figures give the same text."""
    style, script = ((_PLACE / name).read_text("utf-8") for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    template = _environment().get_template("page.html.jinja")
    return template.render(
        **figures,
        figures=dict(figures),
        style=Markup(style),
        script=Markup(script),
        script_digest=digest,
        fates=("kept", *figures["summary"]["total"]["rejected"]),
    )


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ssra_engine", "report/page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": _percent,
        "floored": _floored,
        "count": _count,
        "figure": _figure,
        "named": _named,
    }
    environment.globals |= {
        "interval": interval,
        "metrics": _metrics,
        "reliability_plot": reliability_plot,
        "scale": _scale,
        "speed_plot": speed_plot,
    }
    return environment


def _percent(share: float | None, digits: int = 1) -> str:
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def _floored(share: float) -> str:
    """A promised share, never rounded up."""
    return f"{math.floor(1000 * share) / 10:.1f} %"


def _count(number: float | None) -> str:
    return "–" if number is None else f"{number:,.0f}"


def _figure(value: float | None, form: str = ".3f") -> str:
    return "–" if value is None else format(value, form)


def _named(figure: str) -> str:
    """A figure of an embedder, as people call it."""
    kind, _, place = figure.partition("@")
    at = f"@{place}" if place else ""
    if kind.startswith("ap_ge"):
        return f"AP, grade {kind.removeprefix('ap_ge')} or higher{at}"
    return _FIGURES.get(kind, kind.replace("_", " ") + "{}").format(at)


def _metrics(rows: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Figures of embedders as (kind, name); those that decide come first."""
    found = dict.fromkeys(
        (kind, name) for row in rows for kind in ("per_query", "pooled") for name in row[kind]
    )
    return sorted(found, key=lambda one: 0 if one[1].startswith(("ndcg_linear", "ap_mean")) else 1)


def _scale(rows: Iterable[Mapping[str, Any]], kind: str, name: str) -> tuple[float, float]:
    """Ends of an axis that holds the intervals of all rows."""
    told = [row[kind][name] for row in rows if name in row[kind]]
    ends = [one[end] for one in told for end in ("value", "low", "high") if one[end] is not None]
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    room = 0.08 * (high - low) or 0.01
    return low - room, high + room
