"""The table of differences from another run, as the HTML and the Markdown report and the terminal show it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .cells import NO_REASON, arrow, direction, usable_interval
from .charts import IntervalPlot, interval_plot, scale_over
from .formatting import MISSING, Interval, format_interval, format_value, is_number

NOTE = (
    "Difference: this method minus the other over the clips that both are scored on, drawn again in pairs. "
    "A verdict takes an interval without 0 and p below 0.05. Each p stands for its metric alone: "
    "where methods are alike, one metric of twenty falls below 0.05 by chance."
)


@dataclass(frozen=True)
class DifferenceRow:
    """One metric's difference; `reason` is set exactly when there is none, and the texts are dashes then."""

    metric_id: str
    title: str
    arrow: str
    direction: str
    values: str
    text: str
    interval: str
    p_value: str
    count: str
    verdict: str
    plot: IntervalPlot | None
    reason: str | None


@dataclass(frozen=True)
class AgainstModel:
    """The other method and a row a metric."""

    name: str
    rows: list[DifferenceRow]


def against_model(results: Mapping[str, Any]) -> AgainstModel | None:
    """Lays out the key "against" of `results.json`; None for a run that was compared with none."""
    against = results.get("against")
    if against is None:
        return None
    known = results["results"]
    rows = [_row(name, gap, known[name]) for name, gap in against["results"].items() if name in known]
    return AgainstModel(against["run"], rows)


def _row(metric_id: str, gap: Mapping[str, Any], result: Mapping[str, Any]) -> DifferenceRow:
    goal = result["higher_is_better"], result.get("best_is_real", False)
    difference, interval = gap["difference"], usable_interval(gap["ci95"])
    missing = not is_number(difference)
    values = [format_value(gap[side], interval) for side in ("value", "other")]
    return DifferenceRow(
        metric_id=metric_id,
        title=result.get("title") or metric_id,
        arrow=arrow(*goal),
        direction=direction(*goal),
        values=MISSING if missing else f"{values[0]} − {values[1]}",
        text=MISSING if missing else signed(format_value(difference, interval, result["unit"])),
        interval=format_interval(interval),
        p_value=p_text(gap["p_value"]),
        count=str(gap["n_common"]),
        verdict=gap["verdict"] or MISSING,
        plot=_plot(gap, interval),
        reason=_reason(gap) if missing else None,
    )


def _reason(gap: Mapping[str, Any]) -> str:
    return ": ".join(filter(None, [gap["reason"] or NO_REASON, gap["message"]]))


def signed(number: str) -> str:
    """A difference with its sign, as text; what rounds to nothing has none."""
    nothing = not any(c in "123456789" for c in number.split(" ")[0])
    return number if nothing or number.startswith("-") else f"+{number}"


def p_text(p_value: float | None) -> str:
    """A p-value to three decimals."""
    if not is_number(p_value):
        return MISSING
    return f"{p_value:.3f}" if p_value >= 0.001 else "< 0.001"


def _plot(gap: Mapping[str, Any], interval: Interval | None) -> IntervalPlot | None:
    """The difference with its interval, on an axis that shows where 0 is."""
    difference = gap["difference"]
    scale = scale_over([0.0, difference, *(interval or ())])
    if scale is None or not is_number(difference):
        return None
    label = f"difference {difference:.4g}, 95 % interval {format_interval(interval)}, dashed line 0"
    return interval_plot(scale, difference, interval, reference=0.0, label=label)


def against_lines(results: Mapping[str, Any]) -> list[str]:
    """The differences for the terminal, a line a metric; none for a run that was compared with none."""
    model = against_model(results)
    if model is None:
        return []
    return [f"against {model.name}:", *(f"  {row.metric_id:28s} {_line(row)}" for row in model.rows)]


def _line(row: DifferenceRow) -> str:
    if row.reason:
        return f"{MISSING}  {row.reason}"
    return f"{row.arrow} {row.text}  {row.interval}  p {row.p_value}, n {row.count}: {row.verdict}"
