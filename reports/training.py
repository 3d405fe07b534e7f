"""A training's page: curves over the steps, pictures that were drawn on the way, settings. One self-contained file."""

from __future__ import annotations

import base64
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from .charts import TimeChart, time_chart
from .formatting import flat_items, is_number
from .html import render_page
from .view import Curve

MAX_PICTURE_BYTES = 24 * 2**20  # of PNG; base64 makes it 32 MiB of page
LOG_FROM = 30.0  # a curve whose greatest value is that many times its least one is drawn over its logarithm
CURVES = ("loss", "lr", "grad_norm", "clips_per_s", "memory_bytes")


@dataclass(frozen=True)
class TrainingView:
    """What the page shows.

    Attributes:
        system: its name.
        facts: label -> text, for the head of the page.
        settings: the configuration.
        rows: lines of `log.jsonl`.
        pictures: (step, PNG bytes), oldest first.
    """

    system: str
    facts: Mapping[str, str]
    settings: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    pictures: Sequence[tuple[int, bytes]]


def render_training(view: TrainingView, *, max_picture_bytes: int = MAX_PICTURE_BYTES) -> str:
    """The page.

    Args:
        max_picture_bytes: PNG bytes that it may carry; the oldest pictures go first, and the page says how many.
    """
    kept: list[tuple[int, str]] = []
    for step, data in reversed(view.pictures):
        max_picture_bytes -= len(data)
        if max_picture_bytes < 0:
            break
        kept.append((step, base64.b64encode(data).decode("ascii")))
    context = {"charts": step_charts(view.rows), "pictures": kept, "omitted": len(view.pictures) - len(kept)}
    return render_page("training.html", view=view, settings=flat_items(dict(view.settings)), **context)


def step_charts(rows: Sequence[Mapping[str, Any]]) -> list[TimeChart]:
    """A chart a quantity: the loss, its parts, then rates and costs; none for what was never measured."""
    parts = dict.fromkeys(name for row in rows for name in row.get("parts", {}))
    columns = {"loss": [row["loss"] for row in rows]}
    columns |= {f"loss: {name}": [row["parts"].get(name) for row in rows] for name in parts}
    columns |= {name: [row.get(name) for row in rows] for name in CURVES[1:]}
    charts = (_chart(name, [row["step"] for row in rows], values) for name, values in columns.items())
    return [chart for chart in charts if chart is not None]


def _chart(name: str, steps: Sequence[int], values: Sequence[float | None]) -> TimeChart | None:
    finite = [value for value in values if is_number(value)]
    if not finite:
        return None
    logarithm = min(finite) > 0 and max(finite) / min(finite) > LOG_FROM
    drawn = [math.log10(v) if logarithm and is_number(v) else v for v in values]
    chart = time_chart([_curve(name, steps, drawn)])
    assert chart is not None
    scale = ", logarithmic" if logarithm else ""
    legend = f"last {finite[-1]:.4g}, least {min(finite):.4g}, most {max(finite):.4g}{scale}"
    series = [replace(one, legend=legend) for one in chart.series]
    ticks = [(place, label.removesuffix(" s")) for place, label in chart.ticks]
    return replace(chart, series=series, ticks=ticks, label=f"{name} over {steps[-1]} steps: {legend}")


def _curve(name: str, steps: Sequence[int], values: Sequence[float | None]) -> Curve:
    """Values on an even grid of steps, as wide as they mostly lie apart; where nothing was logged is a gap."""
    apart = Counter(after - before for before, after in pairwise(steps))
    width = max(1, apart.most_common(1)[0][0] if apart else 1)
    places = [round(step / width) for step in steps]
    grid: list[float | None] = [None] * (places[-1] + 1)
    for place, value in zip(places, values, strict=True):
        grid[place] = value
    return Curve(name, "", 1 / width, grid)
