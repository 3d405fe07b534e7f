"""Several runs on one page: methods by metrics, and for each metric the methods' intervals on one axis.

Numbers share a column only where they measure the same thing (`agreement`). A metric id whose protocol or weights
differ among the runs leaves the overview and gets a separate table for each protocol, with the difference spelt out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from ..core.errors import ConfigError
from .agreement import Measured, differences, partition
from .cells import MetricCell, arrow, direction, mark_best, metric_cell, reference_text, shortfall, usable_interval
from .charts import IntervalPlot, Scale, interval_plot, scale_over
from .formatting import MISSING, flat_items, is_number
from .html import render_page
from .markdown import MarkdownPage, code, escape, link
from .view import check_results

NOT_ASKED = "not part of this run"


@dataclass(frozen=True)
class ForestRow:
    """One method in a metric's table; `plot` is None for a missing value."""

    method: str
    cell: MetricCell
    plot: IntervalPlot | None


@dataclass(frozen=True)
class MetricTable:
    """Methods that may be compared under one metric, the best first; `ticks` belong to the rows' common axis."""

    metric_id: str
    title: str
    arrow: str
    direction: str
    unit: str
    comparable: bool
    reference: str
    rows: list[ForestRow]
    ticks: list[tuple[float, str]]
    protocol: list[tuple[str, str]]
    weights: list[tuple[str, str]]

    @property
    def missing(self) -> list[tuple[str, str]]:
        """Why numbers are absent: (reason and way out, methods), each reason once."""
        reasons: dict[str, list[str]] = defaultdict(list)
        for row in self.rows:
            if row.cell.explanation:
                reasons[row.cell.explanation].append(row.method)
        return [(reason, ", ".join(methods)) for reason, methods in reasons.items()]

    def cell(self, method: str) -> MetricCell:
        """The method's number, or the reason why it has none here."""
        found = [row.cell for row in self.rows if row.method == method]
        return found[0] if found else MetricCell(MISSING, reason=NOT_ASKED)


@dataclass(frozen=True)
class SplitMetric:
    """A metric id that names different measurements among the runs."""

    metric_id: str
    title: str
    differences: list[str]
    tables: list[MetricTable]


@dataclass(frozen=True)
class RunRow:
    """A run's line in the table of runs."""

    method: str
    href: str | None
    created: str
    version: str
    config_digest: str


@dataclass(frozen=True)
class ComparisonModel:
    """Everything on the page."""

    runs: list[RunRow]
    columns: list[MetricTable]
    split: list[SplitMetric]
    notes: list[str]


def render_comparison_html(runs: Sequence[Mapping[str, Any]], links: Mapping[str, str]) -> str:
    """One self-contained page over several runs.

    Args:
        runs: contents of the runs' `results.json`, each with another `method`.
        links: for a method, the href of its `report.html` relative to the page; a method may be absent.

    Raises:
        ConfigError: no runs, two runs of one method, a broken `results.json`, or a link that is not relative.
    """
    model = comparison_model(runs, links)
    return render_page("comparison.html", model=model, hrefs={run.method: run.href for run in model.runs})


def render_comparison_markdown(runs: Sequence[Mapping[str, Any]], links: Mapping[str, str]) -> str:
    """The page's twin in GitHub-flavoured Markdown; arguments and errors as `render_comparison_html`."""
    model = comparison_model(runs, links)
    page = MarkdownPage("Comparison of methods")
    page.bullets(map(escape, model.notes))
    if model.columns:
        page.heading("Metrics")
        page.table(["Method", *map(_heading, model.columns)], _matrix(model), numbers=len(model.columns))
    for split in model.split:
        page.heading(f"{escape(split.title)}: measured in different ways")
        page.text(f"{code(split.metric_id)} differs among the runs, so its numbers stand in separate tables.")
        page.bullets(map(escape, split.differences))
        for table in split.tables:
            page.table(
                ["Method", _heading(table)], [[escape(row.method), _cell(row.cell)] for row in table.rows], numbers=1
            )
    page.heading("Runs")
    page.table(
        ["Method", "Created", "Version", "Configuration"],
        [[link(r.method, r.href), escape(r.created), escape(r.version), code(r.config_digest)] for r in model.runs],
    )
    return page.render()


def comparison_model(runs: Sequence[Mapping[str, Any]], links: Mapping[str, str]) -> ComparisonModel:
    """Lays out the page; see `render_comparison_html` for arguments and errors."""
    rows = _run_rows(runs, links)
    columns, split = [], []
    for metric_id in dict.fromkeys(name for run in runs for name in run["results"]):
        entries = [Measured(run["method"], run["results"][metric_id]) for run in runs if metric_id in run["results"]]
        groups = partition(entries)
        tables = [_metric_table(metric_id, group) for group in groups]
        if len(tables) == 1:
            columns += tables
        else:
            split.append(SplitMetric(metric_id, tables[0].title, differences(groups), tables))
    return ComparisonModel(rows, columns, split, _notes(runs, split))


def _run_rows(runs: Sequence[Mapping[str, Any]], links: Mapping[str, str]) -> list[RunRow]:
    if not runs:
        raise ConfigError("there are no runs to compare")
    rows: list[RunRow] = []
    for run in runs:
        check_results(run)
        method = run["method"]
        if any(row.method == method for row in rows):
            raise ConfigError(f"two runs carry the method name {method!r}", hint="give each run its own --method")
        href = relative_href(links[method]) if method in links else None
        rows.append(RunRow(method, href, run["created"], run["talkforge_version"], run["config_digest"]))
    return rows


def relative_href(href: str) -> str:
    """A relative path, percent-encoded, so that it can be nothing else than one.

    Raises:
        ConfigError: it names a scheme, a host or an absolute path.
    """
    parts = urlsplit(href)
    if parts.scheme or parts.netloc or href.startswith("/"):
        raise ConfigError(f"the link {href!r} is not relative")
    return quote(href, safe="/%#?=&")


def _metric_table(metric_id: str, group: Sequence[Measured]) -> MetricTable:
    first = next((entry for entry in group if entry.scored), group[0]).result
    scale = _scale(group)
    goal = first["higher_is_better"], first.get("best_is_real", False)
    cells = mark_best([metric_cell(entry.result) for entry in group], [shortfall(entry.result) for entry in group])
    ordered = sorted(zip(group, cells, strict=True), key=lambda pair: _rank(pair[0].result))
    rows = [ForestRow(entry.method, cell, _plot(entry, cell, scale)) for entry, cell in ordered]
    return MetricTable(
        metric_id,
        first.get("title") or metric_id,
        arrow(*goal),
        direction(*goal),
        first["unit"],
        all(entry.result["comparable_with_papers"] for entry in group),
        _reference(group),
        rows,
        scale.ticks() if scale else [],
        flat_items(first["protocol"]),
        list(first["weights"].items()),
    )


def _scale(group: Sequence[Measured]) -> Scale | None:
    """The axis that holds the values, intervals and real-vs-real figures of all of the group's runs."""
    scored = [entry.result for entry in group if entry.scored]
    ends = [end for result in scored for end in usable_interval(result["ci95"]) or ()]
    return scale_over([*ends, *(r["value"] for r in scored), *(r["real_vs_real"] for r in scored)])


def _plot(entry: Measured, cell: MetricCell, scale: Scale | None) -> IntervalPlot | None:
    if scale is None or not entry.scored:
        return None
    label = f"{entry.method}: {cell.text}, 95 % interval {cell.interval or 'absent'}"
    result = entry.result
    return interval_plot(
        scale, result["value"], usable_interval(result["ci95"]), reference=result["real_vs_real"], label=label
    )


def _rank(result: Mapping[str, Any]) -> tuple[bool, float]:
    gap = shortfall(result)
    return gap is None, gap or 0.0


def _reference(group: Sequence[Measured]) -> str:
    """Real against real: one figure when the runs agree, else lowest to highest."""
    results = [e.result for e in group if is_number(e.result["real_vs_real"])]
    ordered = sorted(results, key=lambda result: result["real_vs_real"])
    texts = [reference_text({**result, "ci95": ordered[0]["ci95"]}) for result in ordered[:1] + ordered[-1:]]
    return " to ".join(dict.fromkeys(texts)) or MISSING


def _notes(runs: Sequence[Mapping[str, Any]], split: Sequence[SplitMetric]) -> list[str]:
    notes = [
        f"{s.metric_id} was measured in {len(s.tables)} different ways; it has no column in the overview."
        for s in split
    ]
    attempted = {run["method"]: max((r["n_attempted"] for r in run["results"].values()), default=0) for run in runs}
    if len(set(attempted.values())) > 1:
        counts = ", ".join(f"{method} {count}" for method, count in attempted.items())
        notes.append(f"The runs attempted different numbers of clips ({counts}).")
    return notes


def _heading(table: MetricTable) -> str:
    dagger = "" if table.comparable else "†"
    return f"{escape(table.title)} {table.arrow}{dagger}"


def _matrix(model: ComparisonModel) -> list[list[str]]:
    rows = [
        [link(run.method, run.href), *(_cell(table.cell(run.method)) for table in model.columns)] for run in model.runs
    ]
    return [*rows, ["*real vs real*", *(escape(table.reference) for table in model.columns)]]


def _cell(cell: MetricCell) -> str:
    if cell.reason is not None:
        return f"{MISSING} {escape(cell.reason)}"
    text = f"**{escape(cell.text)}**" if cell.best else escape(cell.text)
    return " ".join(filter(None, [text, cell.interval and escape(cell.interval), cell.count]))
