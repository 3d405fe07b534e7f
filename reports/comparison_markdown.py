"""The comparison's page in GitHub-flavoured Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from .cells import MetricCell
from .comparison_layout import Board, ComparisonModel, ForestRow, MetricTable, RunRow
from .comparison_standing import Standing
from .formatting import MISSING
from .markdown import MarkdownPage, code, escape, link
from .published import PROTOCOL, PublishedTable
from .published_page import published_section

HEAD = "Comparison of methods"
ORDER = ["Method", "Value", "95 % interval", "Rank", "Against the row above", "Scored"]


def markdown_page(model: ComparisonModel, published: Sequence[PublishedTable] = ()) -> str:
    """The page of a model; published tables stand below, by themselves."""
    page = MarkdownPage(HEAD)
    page.bullets(map(escape, model.notes))
    if model.parted:
        page.heading("Different real clips")
        page.bullets(map(escape, model.parted))
    for board in model.boards:
        _board(page, board, of=len(model.boards))
    page.heading("Runs")
    head = ["Method", "Scored", "Seconds per generated second", "Created", "Version", "Configuration"]
    page.table(head, [_run(run) for run in model.runs])
    if published:
        page.heading(escape(f"{PROTOCOL[0].upper()}{PROTOCOL[1:]}"))
        page.text("Numbers as papers print them; none was measured here, so none is ranked with those above.")
        for table in published:
            published_section(page, table, level=3)
    return page.render()


def _board(page: MarkdownPage, board: Board, *, of: int) -> None:
    where = f", board {board.number}" if of > 1 else ""
    if board.columns:
        page.heading(f"Metrics{where}")
        page.text(f"{escape(board.reference.text)}.")
        page.table(["Method", *map(_heading, board.columns)], _matrix(board), numbers=len(board.columns))
        page.heading(f"Order{where}")
        for table in board.columns:
            page.heading(f"{_heading(table)} {code(table.metric_id)}", 3)
            _order(page, table)
    for split in board.split:
        page.heading(f"{escape(split.title)}: measured in different ways{where}")
        page.text(f"{code(split.metric_id)} differs among the runs, so its numbers stand in separate tables.")
        page.bullets(map(escape, split.differences))
        for table in split.tables:
            page.heading(_heading(table), 3)
            _order(page, table)


def _order(page: MarkdownPage, table: MetricTable) -> None:
    page.table(ORDER, [_order_line(row) for row in table.rows])
    if table.basis:
        page.text(f"Ranks: {escape(table.basis)}.")


def _order_line(row: ForestRow) -> list[str]:
    standing, cell = row.standing, row.cell
    rank = f"{standing.text} of {standing.of}" if standing else MISSING
    above = escape(standing.above.text) if standing and standing.above else MISSING
    value = f"{MISSING} {escape(cell.explanation or '')}" if cell.reason is not None else _bold(cell)
    return [escape(row.method), value, escape(cell.interval or MISSING), rank, above, cell.count or MISSING]


def _run(run: RunRow) -> list[str]:
    cost = f"{MISSING} {escape(run.cost.reason or '')}" if run.cost.value is None else f"{run.cost.value:.3g}"
    facts = [escape(run.created), escape(run.version), code(run.config_digest)]
    return [link(run.method, run.href), run.coverage.text, cost, *facts]


def _heading(table: MetricTable) -> str:
    dagger = "" if table.comparable else "†"
    return f"{escape(table.title)} {table.arrow}{dagger}"


def _matrix(board: Board) -> list[list[str]]:
    rows = [
        [link(run.method, run.href), *(_cell(t.cell(run.method), t.standing(run.method)) for t in board.columns)]
        for run in board.runs
    ]
    return [*rows, ["*real vs real*", *(escape(table.reference) for table in board.columns)]]


def _cell(cell: MetricCell, standing: Standing | None) -> str:
    if cell.reason is not None:
        return f"{MISSING} {escape(cell.reason)}"
    rank = f"rank {standing.text}" if standing else None
    return " ".join(filter(None, [_bold(cell), cell.interval and escape(cell.interval), cell.count, rank]))


def _bold(cell: MetricCell) -> str:
    return f"**{escape(cell.text)}**" if cell.best else escape(cell.text)
