"""The page of a history: each metric of each method over its entries, with intervals. Also each plot by itself, as SVG.

Two neighbours are joined by a line only where both have a value and nothing that defines the number changed between
them; where something did, a dashed line parts them and the page says what.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from .cells import arrow, direction
from .charts import Scale, scale_over
from .formatting import MISSING, format_interval, format_value
from .history import NOT_ASKED, Entry, Measure, change_text, changes
from .html import render_page

TOP, BOTTOM = 16.0, 176.0  # of the plot area, px
LEFT, WIDTH = 7.0, 86.0  # of the entries' places, percent
MOST_NAMES = 5  # below the axis: no more fit side by side on a phone


@dataclass(frozen=True)
class Point:
    """An entry in a plot: x in percent, y in px from above. Without a value y is None and `label` says why."""

    x: float
    y: float | None
    low: float | None
    high: float | None
    label: str


@dataclass(frozen=True)
class Break:
    """Between two entries whose numbers must not be compared: place in percent, number, and what changed at `name`."""

    x: float
    number: int
    name: str
    changes: list[str]


@dataclass(frozen=True)
class Row:
    """An entry in the table below a plot."""

    name: str
    time: str
    value: str
    interval: str
    count: str
    change: str


@dataclass(frozen=True)
class Plot:
    """A metric of a method over all entries of that method."""

    method: str
    metric_id: str
    title: str
    unit: str
    arrow: str
    direction: str
    file: str
    label: str
    points: list[Point]
    links: list[tuple[float, float, float, float]]  # x1, y1, x2, y2
    breaks: list[Break]
    heights: list[tuple[float, str]]  # y in px, label
    names: list[tuple[float, str]]  # x in percent, label
    rows: list[Row]


@dataclass(frozen=True)
class Method:
    """All plots of a method."""

    id: str
    name: str
    plots: list[Plot]


@dataclass(frozen=True)
class HistoryModel:
    """Everything on the page."""

    entries: list[Entry]
    methods: list[Method]

    @property
    def plots(self) -> list[Plot]:
        """Of all methods."""
        return [plot for method in self.methods for plot in method.plots]


def history_model(entries: Sequence[Entry]) -> HistoryModel:
    """Lays out a history; the methods and metrics of the newest entries come first."""
    names = dict.fromkeys(entry.method for entry in reversed(entries))
    methods, files = [], set()
    for index, name in enumerate(names):
        mine = [entry for entry in entries if entry.method == name]
        ids = dict.fromkeys(metric for entry in reversed(mine) for metric in entry.metrics)
        prefix = f"{name}-" if len(names) > 1 else ""
        plots = [_plot(mine, metric, _file(f"{prefix}{metric}", files)) for metric in ids]
        methods.append(Method(f"method-{index}", name, plots))
    return HistoryModel(list(entries), methods)


def render_history_html(model: HistoryModel) -> str:
    """The page, self-contained."""
    return render_page("history.html", model=model, rows=_entry_rows(model.entries))


def render_history_plot(plot: Plot) -> str:
    """One plot as an SVG picture, readable on light and dark ground."""
    return render_page("history_plot.svg", plot=plot)


def _file(name: str, taken: set[str]) -> str:
    """A file name of plain letters that no other plot has."""
    stem = re.sub(r"[^A-Za-z0-9_]+", "-", name).strip("-.") or "plot"
    number = next(k for k in range(1, len(taken) + 2) if f"{stem}{'' if k == 1 else f'-{k}'}.svg" not in taken)
    file = f"{stem}{'' if number == 1 else f'-{number}'}.svg"
    taken.add(file)
    return file


def _plot(entries: list[Entry], metric_id: str, file: str) -> Plot:
    latest = next(entry.metrics[metric_id] for entry in reversed(entries) if metric_id in entry.metrics)
    measures = [entry.metrics.get(metric_id) for entry in entries]
    there = [m for m in measures if m is not None and m.value is not None]
    scale = scale_over([*(m.value for m in there), *(end for m in there for end in m.ci95 or ())])
    places = [LEFT + WIDTH * (k / (len(entries) - 1) if len(entries) > 1 else 0.5) for k in range(len(entries))]
    points = [_point(x, e, m, scale) for x, e, m in zip(places, entries, measures, strict=True)]
    breaks = _breaks(entries, metric_id, places)
    goal = latest.higher_is_better, latest.best_is_real
    return Plot(
        method=entries[0].method,
        metric_id=metric_id,
        title=latest.title,
        unit=latest.unit,
        arrow=arrow(*goal),
        direction=direction(*goal),
        file=file,
        label=f"{latest.title} of {entries[0].method} over {len(entries)} entries, {len(there)} with a value",
        points=points,
        links=_links(points, {one.x for one in breaks}),
        breaks=breaks,
        heights=[(_y(percent), label) for percent, label in scale.ticks(6)] if scale else [],
        names=_names(entries, places),
        rows=_rows(entries, metric_id),
    )


def _y(percent: float) -> float:
    return round(BOTTOM - (BOTTOM - TOP) * percent / 100, 1)


def _point(x: float, entry: Entry, measure: Measure | None, scale: Scale | None) -> Point:
    if scale is None or measure is None or measure.value is None:
        why = NOT_ASKED if measure is None else measure.reason or "no value"
        return Point(round(x, 2), None, None, None, f"{entry.name}: {why}")
    low, high = (_y(scale.percent(end)) for end in measure.ci95) if measure.ci95 else (None, None)
    value = format_value(measure.value, measure.ci95, measure.unit)
    label = f"{entry.name}, {entry.time[:10]}: {value} {format_interval(measure.ci95)}, {_count(measure)} clips"
    return Point(round(x, 2), _y(scale.percent(measure.value)), low, high, label)


def _count(measure: Measure) -> str:
    return f"{measure.n_scored}/{measure.n_attempted}"


def _breaks(entries: Sequence[Entry], metric_id: str, places: Sequence[float]) -> list[Break]:
    """Where a value and the one before it, entries without one passed over, are no longer the same measurement."""
    scored = [k for k, entry in enumerate(entries) if (m := entry.metrics.get(metric_id)) and m.value is not None]
    found = [(old, new, changes(entries[old], entries[new], metric_id)) for old, new in pairwise(scored)]
    parted = [(old, new, texts) for old, new, texts in found if texts]
    return [
        Break(round((places[new - 1] + places[new]) / 2, 2), number, entries[new].name, texts)
        for number, (_, new, texts) in enumerate(parted, start=1)
    ]


def _links(points: Sequence[Point], parted: set[float]) -> list[tuple[float, float, float, float]]:
    """Lines between neighbours that may be compared."""
    return [
        (one.x, one.y, two.x, two.y)
        for one, two in pairwise(points)
        if one.y is not None and two.y is not None and not any(one.x < x < two.x for x in parted)
    ]


def _names(entries: Sequence[Entry], places: Sequence[float]) -> list[tuple[float, str]]:
    """Some of the entries' names, evenly spread, the first and the last among them."""
    count = min(MOST_NAMES, len(entries))
    chosen = [round(k * (len(entries) - 1) / (count - 1)) for k in range(count)] if count > 1 else [0]
    return [(round(places[k], 2), entries[k].name) for k in chosen]


def _rows(entries: Sequence[Entry], metric_id: str) -> list[Row]:
    """Newest first."""
    rows = []
    for old, entry in zip([None, *entries], entries, strict=False):
        measure = entry.metrics.get(metric_id)
        if measure is None:
            rows.append(Row(entry.name, entry.time, f"{MISSING} {NOT_ASKED}", MISSING, MISSING, ""))
            continue
        missing = measure.value is None
        value = f"{MISSING} {measure.reason}" if missing else format_value(measure.value, measure.ci95, measure.unit)
        change = "" if missing else change_text(old, entry, metric_id)
        rows.append(Row(entry.name, entry.time, value, format_interval(measure.ci95), _count(measure), change))
    return rows[::-1]


def _entry_rows(entries: Sequence[Entry]) -> list[tuple[Entry, str]]:
    """Newest first, each with what is to be said of its commit."""
    return [(entry, _note(entry)) for entry in reversed(entries)]


def _note(entry: Entry) -> str:
    if entry.commit is None:
        return f"no commit: {entry.commit_reason}"
    return "files differ" if entry.dirty else ""
