"""The page of a study: tables of repeated measurements, pictures and curves, in sections. One self-contained file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..metrics.replicates import Repeated
from .cells import MetricCell
from .charts import TimeChart, time_chart
from .embedding import Scatter
from .formatting import MISSING, flat_items, format_interval, format_value
from .html import render_page
from .view import Curve

SHADES = 9  # of a heat map, for the style sheet
ROUNDING = 1e-9  # of a mean: intervals narrower than that are none


@dataclass(frozen=True)
class Table:
    """Rows of numbers; `note` stands below."""

    heads: Sequence[str]
    rows: Sequence[tuple[str, Sequence[MetricCell]]]
    note: str = ""


@dataclass(frozen=True)
class Heat:
    """A square of shares between 0 and 1, rows and columns of the same names."""

    title: str
    names: Sequence[str]
    values: Sequence[Sequence[float]]

    @property
    def rows(self) -> list[tuple[str, list[tuple[int, str]]]]:
        """(name, [(shade, text)])."""
        shaded = [[(min(SHADES, max(0, round(SHADES * v))), f"{v:.2f}") for v in row] for row in self.values]
        return list(zip(self.names, shaded, strict=True))


@dataclass(frozen=True)
class Section:
    """One question: its answer in words first, then what the answer rests on."""

    id: str
    title: str
    text: Sequence[str] = ()
    tables: Sequence[Table] = ()
    scatters: Sequence[Scatter] = ()
    charts: Sequence[TimeChart] = ()
    heats: Sequence[Heat] = ()


@dataclass(frozen=True)
class Study:
    """The page. `facts`: label -> text, for its head; `settings`: all that was set."""

    title: str
    summary: str
    facts: Mapping[str, str]
    sections: Sequence[Section]
    settings: Mapping[str, Any] = field(default_factory=dict)


def render_study(study: Study) -> str:
    """The page."""
    return render_page("study.html", study=study, settings=flat_items(dict(study.settings)))


def repeated_cell(found: Repeated | None, reason: str = "not measured", *, signed: bool = False) -> MetricCell:
    """The cell of repeated measurements: mean, with as many digits as its interval supports, and interval."""
    if found is None:
        return MetricCell(MISSING, reason=reason)
    # A constant, up to rounding of sums, has no spread to show.
    wide = found.ci95 is not None and found.ci95[1] - found.ci95[0] > ROUNDING * abs(found.mean)
    spread = found.ci95 if wide else None
    text, interval = format_value(found.mean, spread), format_interval(spread)
    shown = f"+{text}" if signed and found.mean > 0 else text
    return MetricCell(shown, None if interval == MISSING else interval, sort=found.mean)


def plain_cell(text: str) -> MetricCell:
    """A cell of a number that is none of the measurements: chance, or a published figure."""
    return MetricCell(text)


def path_chart(curves: Mapping[str, Sequence[float]], ends: tuple[str, str]) -> TimeChart:
    """Curves over a path between two named ends, evenly spaced points."""
    count = max(len(values) for values in curves.values())
    chart = time_chart([Curve(name, "", float(count), list(values)) for name, values in curves.items()])
    assert chart is not None
    last = 100 * (count - 1) / count
    ticks = [(0.0, ends[0]), (last / 2, "half way"), (last, ends[1])]
    return replace(chart, ticks=ticks, label=f"{', '.join(curves)} from {ends[0]} to {ends[1]}")
