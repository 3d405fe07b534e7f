"""The drill-down pages as HTML: a page a method, and one that holds two methods against each other.

Each is one file whose styles, scripts and numbers stand inside it; a Content-Security-Policy pins scripts and styles by
hash and lets pictures and videos come from the page's own place alone. Without scripts a table of clips with links to
their files remains.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from markupsafe import Markup

from .cells import MetricCell, arrow, direction, metric_cell, reference_text, usable_interval
from .charts import IntervalPlot, interval_plot, scale_over
from .drilldown import Clip, ClipMetric, Method, Ranking, ranking
from .drilldown_data import compare_data, island, method_data, spread, value_text
from .formatting import is_number
from .html import render_page

COMPARE = "compare.html"
_TEMPLATES = Path(__file__).parent / "templates"
_PLAYER = ("drilldown_transport.js", "drilldown_player.js")


@dataclass(frozen=True)
class Figure:
    """A metric's number in the page's head."""

    metric_id: str
    title: str
    arrow: str
    direction: str
    cell: MetricCell
    unit: str
    reference: str
    plot: IntervalPlot | None


@dataclass(frozen=True)
class Entry:
    """A clip in a list of best or worst ones."""

    clip: Clip
    text: str


@dataclass(frozen=True)
class Extremes:
    """A metric with its best and worst clips."""

    metric: ClipMetric
    best: list[Entry]
    worst: list[Entry]
    missing: list[tuple[Clip, str]]


@dataclass(frozen=True)
class Row:
    """A line of the table of clips: (text, number to sort by, reason) a metric."""

    clip: Clip
    cells: list[tuple[str, float | None, str]]


def render_method(method: Method, *, index: str | None = None, compare: str | None = None) -> str:
    """A method's page.

    Args:
        index, compare: hrefs of the table of all methods and of the page of two methods; None without one.
    """
    context = {
        "method": method,
        "figures": _figures(method),
        "extremes": [_extremes(metric, method) for metric in method.metrics],
        "rows": _rows(method),
        "index": index,
        "compare": compare,
    }
    return _render("drilldown.html", [*_PLAYER, "drilldown.js"], island(method_data(method)), context)


def render_compare(methods: Sequence[Method], *, index: str | None = None) -> str:
    """The page of two methods, to be chosen among all of them; the first two are to begin with."""
    context = {"methods": methods, "index": index}
    return _render(COMPARE, [*_PLAYER, "compare.js"], island(compare_data(methods)), context)


def _render(template: str, scripts: Sequence[str], data: str, context: dict[str, object]) -> str:
    texts = [_script(name) for name in scripts]
    pinned = {"scripts": [Markup(text) for text in texts], "script_hashes": [_hash(text) for text in texts]}
    return render_page(template, data=Markup(data), **pinned, **context)


@cache
def _script(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _figures(method: Method) -> list[Figure]:
    found = []
    for metric_id, result in method.results["results"].items():
        goal = result["higher_is_better"], result.get("best_is_real", False)
        title, plain = method.views[metric_id].title, {**result, "unit": ""}
        found.append(
            Figure(
                metric_id,
                title,
                arrow(*goal),
                direction(*goal),
                metric_cell(plain),
                result["unit"],
                reference_text(plain),
                _plot(result),
            )
        )
    return found


def _plot(result: Mapping[str, Any]) -> IntervalPlot | None:
    value, ci, reference = result["value"], usable_interval(result["ci95"]), result["real_vs_real"]
    scale = scale_over([value, reference, *(ci or ())])
    if scale is None or not is_number(value):
        return None
    return interval_plot(scale, value, ci, reference=reference, label="value, interval and real against real")


def _extremes(metric: ClipMetric, method: Method) -> Extremes:
    found: Ranking = ranking(method.clips, metric)
    wide = spread([clip.values.get(metric.metric_id) for clip in method.clips])

    def entries(clips: Sequence[Clip]) -> list[Entry]:
        return [Entry(clip, value_text(clip.values[metric.metric_id], wide)) for clip in clips]

    return Extremes(metric, entries(found.best), entries(found.worst), found.missing)


def _rows(method: Method) -> list[Row]:
    wides = {m.metric_id: spread([clip.values.get(m.metric_id) for clip in method.clips]) for m in method.metrics}
    return [
        Row(clip, [_cell(clip, metric, wides[metric.metric_id]) for metric in method.metrics]) for clip in method.clips
    ]


def _cell(clip: Clip, metric: ClipMetric, wide: tuple[float, float]) -> tuple[str, float | None, str]:
    value = clip.values.get(metric.metric_id)
    known = is_number(value)
    return value_text(value, wide), value if known else None, "" if known else clip.reason(metric.metric_id)
