"""One run, laid out for reading: the rows, columns and groups that the HTML and the Markdown report both show."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from .against import AgainstModel, against_model
from .cells import NO_REASON, MetricCell, arrow, direction, metric_cell, reference_text, usable_interval
from .charts import IntervalPlot, interval_plot, scale_over
from .formatting import MISSING, Interval, flat_items, format_value, is_number
from .view import ClipView, MetricView, RunView


@dataclass(frozen=True)
class MetricRow:
    """A metric of the run: its cell, its declaration and its protocol."""

    metric_id: str
    cell: MetricCell
    view: MetricView
    arrow: str
    direction: str
    reference: str
    comparable: bool
    why: str
    protocol: list[tuple[str, str]]
    weights: list[tuple[str, str]]
    rejects: list[tuple[str, int]]
    clip_title: str
    plot: IntervalPlot | None


@dataclass(frozen=True)
class ClipCell:
    """A per-clip number; `reason` is set exactly when it is missing."""

    metric_id: str
    title: str
    text: str
    sort: float | None
    reason: str | None


@dataclass(frozen=True)
class ClipRow:
    """A clip and its numbers, one for each of the run's clip columns; `index` is its place in the run."""

    index: int
    clip: ClipView
    cells: list[ClipCell]


@dataclass(frozen=True)
class RejectGroup:
    """The clips that one reason at one stage kept out, each with the message it got."""

    reason: str
    stage: str
    clips: list[tuple[int, str, str]]  # index of the clip, clip id, message


@dataclass(frozen=True)
class RunModel:
    """Everything on a run's page, in the order of the page."""

    results: Mapping[str, Any]
    n_attempted: int
    n_scored: int
    n_rejected: int
    warnings: list[str]
    rows: list[MetricRow]
    against: AgainstModel | None
    clip_columns: list[MetricRow]
    clips: list[ClipRow]
    rejects: list[RejectGroup]
    counters: list[tuple[str, str]]
    environment: list[tuple[str, str]]


def run_model(run: RunView) -> RunModel:
    """Lays out `run`; missing declarations fall back to the metric's id."""
    rows = [_metric_row(metric_id, result, run) for metric_id, result in run.results["results"].items()]
    columns = [row for row in rows if any(_says_something(clip, row) for clip in run.clips)]
    n_scored = sum(clip.status == "scored" for clip in run.clips)
    return RunModel(
        results=run.results,
        n_attempted=len(run.clips),
        n_scored=n_scored,
        n_rejected=len(run.clips) - n_scored,
        warnings=run.warnings,
        rows=rows,
        against=against_model(run.results),
        clip_columns=columns,
        clips=_clip_rows(run.clips, columns),
        rejects=_reject_groups(run.clips),
        counters=flat_items(run.results["counters"]),
        environment=flat_items(run.results["environment"]),
    )


def _says_something(clip: ClipView, row: MetricRow) -> bool:
    """A number, or a reason of the clip's own rather than the whole metric's (weights that are missing for all)."""
    own = clip.value_reasons.get(row.metric_id)
    return is_number(clip.values.get(row.metric_id)) or (own is not None and own != row.cell.reason)


def metric_view(metric_id: str, result: Mapping[str, Any], metrics: Mapping[str, MetricView]) -> MetricView:
    """The declaration of a metric, or one that says no more than the results do."""
    title = result.get("title") or metric_id
    return metrics.get(metric_id) or MetricView(title, "", "", result["unit"], result["higher_is_better"], "")


def _metric_row(metric_id: str, result: Mapping[str, Any], run: RunView) -> MetricRow:
    goal = result["higher_is_better"], result.get("best_is_real", False)
    view = metric_view(metric_id, result, run.metrics)
    points = [v for clip in run.clips if is_number(v := clip.values.get(metric_id))]
    same = not view.clip_title and _is_mean(result["value"], points)
    return MetricRow(
        metric_id=metric_id,
        cell=metric_cell(result),
        view=view,
        arrow=arrow(*goal),
        direction=direction(*goal),
        reference=reference_text(result),
        comparable=result["comparable_with_papers"],
        why=view.comparability,
        protocol=flat_items(result["protocol"]),
        weights=list(result["weights"].items()),
        rejects=sorted(result["rejects"].items(), key=lambda item: (-item[1], item[0])),
        clip_title=view.clip_title or (view.title if same else f"{view.title}, per clip"),
        plot=_plot(result, points if same else []),
    )


def _is_mean(value: float | None, points: list[float]) -> bool:
    """Whether the metric is the mean of its clips. A distance between sets is not, and what it says of a clip (a hint
    where to look) is another quantity, which must share neither its axis nor its name."""
    return is_number(value) and bool(points) and math.isclose(fmean(points), value, rel_tol=1e-3, abs_tol=1e-9)


def _plot(result: Mapping[str, Any], points: list[float]) -> IntervalPlot | None:
    """Value, interval, real-vs-real and the clips' numbers on one axis; None for a missing value."""
    value, ci, reference = result["value"], usable_interval(result["ci95"]), result["real_vs_real"]
    scale = scale_over([value, reference, *(ci or ()), *points])
    if scale is None or not is_number(value):
        return None
    label = f"{len(points)} clips from {min(points):.4g} to {max(points):.4g}" if points else "value and interval"
    return interval_plot(scale, value, ci, reference=reference, points=points, label=label)


def _clip_rows(clips: list[ClipView], columns: list[MetricRow]) -> list[ClipRow]:
    spreads = {c.metric_id: _spread([clip.values.get(c.metric_id) for clip in clips]) for c in columns}
    return [
        ClipRow(i, clip, [_clip_cell(clip, column, spreads[column.metric_id]) for column in columns])
        for i, clip in enumerate(clips)
    ]


def _spread(values: list[float | None]) -> Interval:
    """An interval a fifth as wide as the column, so that all of a column's numbers get the same, telling decimals."""
    finite = [v for v in values if is_number(v)]
    return (0.0, (max(finite) - min(finite)) / 5) if finite else (0.0, 0.0)


def _clip_cell(clip: ClipView, column: MetricRow, spread: Interval) -> ClipCell:
    metric_id, value = column.metric_id, clip.values.get(column.metric_id)
    if is_number(value):
        return ClipCell(metric_id, column.clip_title, format_value(value, spread), value, None)
    reason = clip.value_reasons.get(metric_id) or _clip_reason(clip)
    return ClipCell(metric_id, column.clip_title, MISSING, None, reason)


def _clip_reason(clip: ClipView) -> str:
    return ", ".join(reason for _, reason, _ in clip.reasons) or NO_REASON


def _reject_groups(clips: list[ClipView]) -> list[RejectGroup]:
    """Reasons of all clips, the most frequent first; a scored clip can have some (one metric failed on it)."""
    groups: dict[tuple[str, str], list[tuple[int, str, str]]] = defaultdict(list)
    for index, clip in enumerate(clips):
        for stage, reason, message in clip.reasons:
            groups[reason, stage].append((index, clip.clip_id, message))
    ordered = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    return [RejectGroup(reason, stage, members) for (reason, stage), members in ordered]
