"""Geometry of the reports' small charts: numbers and SVG path data only. The templates draw and escape.

Horizontal places are percentages of the chart's width, so that a chart needs no script to follow the page's width.
Time curves live in a box of 1000 x 100 units (x right, y down) that the template stretches over the plot area.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from .formatting import Interval, format_value, is_number, with_unit
from .view import Curve

BOX_WIDTH = 1000.0
BOX_HEIGHT = 100.0
MAX_SAMPLES = 600  # a curve is binned beyond it: no screen shows more, and pages of 200 clips stay small


@dataclass(frozen=True)
class Scale:
    """A linear axis from `low` to `high` (low < high)."""

    low: float
    high: float

    def percent(self, value: float) -> float:
        """Place of `value` along the axis, 0 to 100 inside of it."""
        return round(100 * (value - self.low) / (self.high - self.low), 2)

    def ticks(self, count: int = 5) -> list[tuple[float, str]]:
        """About `count` round places (multiples of 1, 2 or 5 times a power of ten) as (percent, label)."""
        rough = (self.high - self.low) / count
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        decimals = max(0, -math.floor(math.log10(step) + 1e-9))
        return [(self.percent(k * step), f"{k * step + 0.0:.{decimals}f}") for k in range(first, last + 1)]


def scale_over(values: Iterable[float | None], margin: float = 0.06) -> Scale | None:
    """The axis that holds all finite `values` with a margin on both sides; None when there is none."""
    finite = [value for value in values if is_number(value)]
    if not finite:
        return None
    low, high = min(finite), max(finite)
    pad = (high - low) * margin or abs(low) * 0.1 or 1.0
    return Scale(low - pad, high + pad)


@dataclass(frozen=True)
class IntervalPlot:
    """A value with its interval on an axis: all places in percent of the width, None where there is nothing."""

    value: float | None
    low: float | None
    high: float | None
    reference: float | None
    points: tuple[float, ...]
    label: str


def interval_plot(
    scale: Scale,
    value: float | None,
    ci: Interval | None,
    *,
    reference: float | None = None,
    points: Sequence[float] = (),
    label: str = "",
) -> IntervalPlot:
    """Places a value, its 95 % interval, the real-vs-real `reference` and per-clip `points` on `scale`."""

    def place(number: float | None) -> float | None:
        return scale.percent(number) if is_number(number) else None

    low, high = (place(ci[0]), place(ci[1])) if ci is not None else (None, None)
    return IntervalPlot(place(value), low, high, place(reference), tuple(scale.percent(p) for p in points), label)


@dataclass(frozen=True)
class Series:
    """One curve of a `TimeChart`: SVG path data in the box, and its legend."""

    name: str
    kind: str
    path: str
    legend: str
    color: int  # index among the lines (the areas), for the style sheet


@dataclass(frozen=True)
class TimeChart:
    """Curves over one time axis; `ticks` are (percent of the width, label)."""

    seconds: float
    ticks: list[tuple[float, str]]
    series: list[Series]
    label: str


def time_chart(curves: Sequence[Curve]) -> TimeChart | None:
    """Lays curves of any frame rates over one axis in seconds; None when no curve holds a sample.

    Lines of equal unit share their vertical scale (so a real and a generated mouth can be compared); lines of
    different units and areas each fill the height.
    """
    drawn = [curve for curve in curves if any(is_number(v) for v in curve.values)]
    if not drawn:
        return None
    axis = Scale(0.0, max(len(curve.values) / curve.fps for curve in drawn))
    order = sorted(drawn, key=lambda curve: curve.kind != "area")  # areas lie behind lines
    counts = {"area": 0, "line": 0}
    series = []
    for curve in order:
        series.append(_series(curve, _vertical(curve, drawn), axis, counts[curve.kind]))
        counts[curve.kind] += 1
    ticks = [(place, f"{label} s") for place, label in axis.ticks(6)]
    return TimeChart(axis.high, ticks, series, f"{', '.join(c.name for c in drawn)} over {axis.high:.1f} s")


def _vertical(curve: Curve, curves: Sequence[Curve]) -> Scale:
    """The scale of a curve that holds a sample: an area stands on zero, a line shares its unit's range."""
    if curve.kind == "area":
        finite = [v for v in curve.values if is_number(v)]
        low = min(0.0, *finite)
        return Scale(low, max(finite) if max(finite) > low else low + 1.0)
    peers = [c for c in curves if c.kind == "line" and c.unit == curve.unit]
    scale = scale_over((v for c in peers for v in c.values), margin=0.04)
    assert scale is not None
    return scale


def _series(curve: Curve, vertical: Scale, axis: Scale, color: int) -> Series:
    finite = [v for v in curve.values if is_number(v)]
    low, high = min(finite), max(finite)
    spread = (0.0, (high - low) / 5)
    ends = f"{format_value(low, spread)} to {format_value(high, spread)}"
    missing = len(curve.values) - len(finite)
    gaps = f", {missing} of {len(curve.values)} samples missing" if missing else ""
    return Series(curve.name, curve.kind, _path(curve, vertical, axis), with_unit(ends, curve.unit) + gaps, color)


def _path(curve: Curve, vertical: Scale, axis: Scale) -> str:
    """Path data, one sub-path for each run of present samples, so that a gap stays a gap."""
    step = math.ceil(len(curve.values) / MAX_SAMPLES)
    samples = _binned(curve.values, step)
    seconds_per_sample = step / curve.fps
    parts = []
    for present, run in groupby(enumerate(samples), key=lambda item: item[1] is not None):
        if present:
            points = [
                (BOX_WIDTH * i * seconds_per_sample / axis.high, BOX_HEIGHT - vertical.percent(v))
                for i, v in run
                if v is not None
            ]
            parts.append(_area(points) if curve.kind == "area" else _line(points))
    return "".join(parts)


def _binned(values: Sequence[float | None], step: int) -> list[float | None]:
    """Means of the present samples of each `step` ones; None where a bin has none."""
    bins = []
    for start in range(0, len(values), step):
        present = [v for v in values[start : start + step] if is_number(v)]
        bins.append(sum(present) / len(present) if present else None)
    return bins


def _line(points: Sequence[tuple[float, float]]) -> str:
    if len(points) == 1:
        return f"M{points[0][0]:.1f} {points[0][1]:.1f}h0"  # with round caps a lone sample shows as a dot
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _area(points: Sequence[tuple[float, float]]) -> str:
    return f"M{points[0][0]:.1f} 100L{'L'.join(f'{x:.1f} {y:.1f}' for x, y in points)}L{points[-1][0]:.1f} 100Z"
