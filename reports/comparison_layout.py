"""Layout of a comparison: boards of runs over the same real clips, on each the metrics' columns and split tables.

Numbers share a table only where they measure the same thing. Runs over other real clips stand on a board of their own.
On a board a metric id whose protocol, weights or version differ among the runs (`agreement`) leaves the overview and
gets a separate table for each of its definitions, with the difference spelt out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .agreement import Measured, differences, partition
from .cells import MetricCell, arrow, direction, mark_best, metric_cell, shortfall, usable_interval
from .charts import IntervalPlot, Scale, interval_plot, scale_over
from .comparison_facts import Cost, Evidence, Reference, RunFacts, reference_differences
from .comparison_standing import Standing, standings
from .formatting import MISSING, flat_items, format_value, is_number, with_unit

NOT_ASKED = "not part of this run"
FEW = 4  # runs that a note names
WEIGHTS_MISSING = "weights_missing"


@dataclass(frozen=True)
class ForestRow:
    """One method in a metric's table; `plot` is None for a missing value, `standing` also for a lone one."""

    method: str
    cell: MetricCell
    plot: IntervalPlot | None
    standing: Standing | None
    entry: Measured


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
    def family(self) -> str:
        """The metric without its variant: "fvd"."""
        return self.metric_id.partition(":")[0]

    @property
    def shown_unit(self) -> str:
        """The unit for a column's head; none for plain numbers."""
        return with_unit("", self.unit).strip()

    @property
    def bare_reference(self) -> str:
        """Real against real without its unit."""
        return self.reference.removesuffix(f" {self.unit}")

    @property
    def missing(self) -> list[tuple[str, str]]:
        """Why numbers are absent: (reason and way out, methods), each reason once."""
        reasons: dict[str, list[str]] = defaultdict(list)
        for row in self.rows:
            if row.cell.explanation:
                reasons[row.cell.explanation].append(row.method)
        return [(reason, ", ".join(methods)) for reason, methods in reasons.items()]

    @property
    def basis(self) -> str | None:
        """How the ranks of its rows were found; None where there are none."""
        return next((row.standing.basis for row in self.rows if row.standing), None)

    def row(self, method: str) -> ForestRow | None:
        """The method's row; None where its run did not ask for the metric, or stands in another table."""
        return next((row for row in self.rows if row.method == method), None)

    def cell(self, method: str) -> MetricCell:
        """The method's number, or the reason why it has none here."""
        row = self.row(method)
        return row.cell if row else MetricCell(MISSING, reason=NOT_ASKED)

    def standing(self, method: str) -> Standing | None:
        """The method's standing."""
        row = self.row(method)
        return row.standing if row else None


@dataclass(frozen=True)
class SplitMetric:
    """A metric id that names different measurements among the runs."""

    metric_id: str
    title: str
    differences: list[str]
    tables: list[MetricTable]

    @property
    def family(self) -> str:
        """The metric without its variant."""
        return self.metric_id.partition(":")[0]


@dataclass(frozen=True)
class Coverage:
    """Clips scored of clips attempted: by the metric that scored the fewest, and by the one that scored the most."""

    low: int
    high: int
    attempted: int

    @property
    def text(self) -> str:
        """ "5–7/7"; all metrics alike: "7/7"."""
        return f"{self.low}/{self.attempted}" if self.low == self.high else f"{self.low}–{self.high}/{self.attempted}"

    @property
    def share(self) -> float:
        """Of the metric that scored the fewest."""
        return self.low / self.attempted if self.attempted else 0.0


@dataclass(frozen=True)
class RunRow:
    """A run's line in the table of runs."""

    method: str
    href: str | None
    created: str
    version: str
    config_digest: str
    coverage: Coverage
    cost: Cost


@dataclass(frozen=True)
class Board:
    """Runs over the same real clips, which alone may share tables; `number` counts from 1."""

    number: int
    reference: Reference
    runs: list[RunRow]
    columns: list[MetricTable]
    split: list[SplitMetric]

    @property
    def tables(self) -> list[MetricTable]:
        """All tables, those of the overview first."""
        return [*self.columns, *(table for split in self.split for table in split.tables)]

    @property
    def families(self) -> list[str]:
        """The metrics without their variants."""
        return list(dict.fromkeys(table.family for table in self.tables))


@dataclass(frozen=True)
class ComparisonModel:
    """Everything on the page; `parted` says where the boards' real clips differ, nothing for a single board."""

    boards: list[Board]
    parted: list[str]
    notes: list[str]

    @property
    def runs(self) -> list[RunRow]:
        """Of all boards."""
        return [run for board in self.boards for run in board.runs]

    @property
    def columns(self) -> list[MetricTable]:
        """The overviews' metrics."""
        return [table for board in self.boards for table in board.columns]

    @property
    def split(self) -> list[SplitMetric]:
        """The metrics that have no column."""
        return [split for board in self.boards for split in board.split]


def lay_out(
    runs: Sequence[Mapping[str, Any]],
    hrefs: Mapping[str, str | None],
    facts: Mapping[str, RunFacts],
    evidence: Evidence,
) -> ComparisonModel:
    """Lays out runs of different names.

    Args:
        runs: contents of `results.json`, checked.
        hrefs: safe links by method; a method may be absent.
        facts: by method; a method may be absent.
        evidence: what the clips' values do not tell.
    """
    groups: dict[tuple[str, str, bool], list[Mapping[str, Any]]] = {}
    known = {run["method"]: facts.get(run["method"], RunFacts()) for run in runs}
    for run in runs:
        groups.setdefault(known[run["method"]].reference.key, []).append(run)
    boards = [_board(number, group, hrefs, known, evidence) for number, group in enumerate(groups.values(), start=1)]
    sides = [(board.reference, [run.method for run in board.runs]) for board in boards]
    return ComparisonModel(boards, reference_differences(sides) if len(boards) > 1 else [], _notes(runs, boards))


def _board(
    number: int,
    runs: Sequence[Mapping[str, Any]],
    hrefs: Mapping[str, str | None],
    facts: Mapping[str, RunFacts],
    evidence: Evidence,
) -> Board:
    clips = {run["method"]: facts[run["method"]].clips for run in runs}
    columns, split = [], []
    for metric_id in dict.fromkeys(name for run in runs for name in run["results"]):
        entries = [Measured(run["method"], run["results"][metric_id]) for run in runs if metric_id in run["results"]]
        groups = partition(entries)
        tables = [_metric_table(metric_id, group, clips, evidence) for group in groups]
        if len(tables) == 1:
            columns += tables
        else:
            split.append(SplitMetric(metric_id, tables[0].title, differences(groups), tables))
    rows = [_run_row(run, hrefs.get(run["method"]), facts[run["method"]]) for run in runs]
    return Board(number, facts[runs[0]["method"]].reference, rows, columns, split)


def _run_row(run: Mapping[str, Any], href: str | None, facts: RunFacts) -> RunRow:
    head = run["created"], run["talkforge_version"], run["config_digest"]
    return RunRow(run["method"], href, *head, _coverage(run["results"].values()), facts.cost)


def _coverage(results: Iterable[Mapping[str, Any]]) -> Coverage:
    """Without metrics that could not run at all for want of weights: no clip is to blame for these."""
    ran = [result for result in results if result["reason"] != WEIGHTS_MISSING]
    scored = [result["n_scored"] for result in ran]
    return Coverage(min(scored, default=0), max(scored, default=0), max((r["n_attempted"] for r in ran), default=0))


def _metric_table(
    metric_id: str,
    group: Sequence[Measured],
    clips: Mapping[str, Mapping[str, Mapping[str, float]]],
    evidence: Evidence,
) -> MetricTable:
    first = next((entry for entry in group if entry.scored), group[0]).result
    scale = _scale(group)
    goal = first["higher_is_better"], first.get("best_is_real", False)
    cells = mark_best([metric_cell(entry.result) for entry in group], [shortfall(entry.result) for entry in group])
    ordered = sorted(zip(group, cells, strict=True), key=lambda pair: _rank(pair[0].result))
    placed = [entry for entry, _ in ordered if shortfall(entry.result) is not None]
    stands = dict(zip((e.method for e in placed), standings(placed, metric_id, clips, evidence), strict=False))
    rows = [ForestRow(e.method, cell, _plot(e, cell, scale), stands.get(e.method), e) for e, cell in ordered]
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
    ends = [format_value(r["real_vs_real"], ordered[0]["ci95"]) for r in ordered[:1] + ordered[-1:]]
    return with_unit(" to ".join(dict.fromkeys(ends)), ordered[0]["unit"]) if ends else MISSING


def _notes(runs: Sequence[Mapping[str, Any]], boards: Sequence[Board]) -> list[str]:
    notes = []
    if len(boards) > 1:
        notes.append("The runs are about different real clips, so they stand on boards of their own.")
    notes += [
        f"{s.metric_id} was measured in {len(s.tables)} different ways; it has no column in the overview."
        for board in boards
        for s in board.split
    ]
    attempted = {run["method"]: max((r["n_attempted"] for r in run["results"].values()), default=0) for run in runs}
    if len(set(attempted.values())) > 1:
        counts = ", ".join(f"{method} {count}" for method, count in attempted.items())
        notes.append(f"The runs attempted different numbers of clips ({counts}).")
    for board in boards:
        reference = board.reference
        if reference.clips is not None and reference.real and reference.contents is None and len(board.runs) > 1:
            few = len(board.runs) <= FEW
            names = ", ".join(run.method for run in board.runs) if few else f"{len(board.runs)} runs"
            notes.append(f"The real clips of {names} could not be read again: they are alike by their names alone.")
    versions = {run["talkforge_version"]: None for run in runs}
    if len(versions) > 1:
        texts = ", ".join(versions)
        same = "metrics share a column where protocol, weights and extractor versions agree"
        notes.append(f"The runs were made by different versions of TalkForge ({texts}); {same}.")
    return notes
