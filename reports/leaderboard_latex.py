"""A comparison's boards as LaTeX tables: an overview of all metrics, and one table a metric with ranks and p-values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from .cells import MetricCell
from .comparison_layout import Board, ComparisonModel, ForestRow, MetricTable
from .formatting import MISSING, format_interval, format_value
from .latex import LatexColumn, LatexRow, LatexTable, write_latex
from .published import Cell, PublishedTable
from .published_page import published_latex_table

# Characters of \small text in 17 cm: a page with margins of 2 cm, both columns of a conference. Gaps count as two.
LINE = 100
_NOT_IN_LABELS = re.compile(r"[^A-Za-z0-9._-]+")
NOTHING = "-"


def render_leaderboard_latex(model: ComparisonModel, published: Sequence[PublishedTable] = ()) -> str:
    """All tables of a comparison, then the published ones."""
    return write_latex([*leaderboard_tables(model), *map(published_latex_table, published)])


def leaderboard_tables(model: ComparisonModel) -> list[LatexTable]:
    """The tables that are measured: each board's overview, then its metrics."""
    return [table for board in model.boards for table in _tables_of(board)]


def _tables_of(board: Board) -> Iterator[LatexTable]:
    yield from overview_tables(board)
    for table in board.tables:
        yield metric_table(board, table)


def overview_tables(board: Board) -> list[LatexTable]:
    """Methods by metrics, in as many tables as a page's width asks for, none without metrics.

    Split metrics are left out: see `metric_table`.
    """
    parts = _fitting(board)
    return [_overview(board, metrics, number, len(parts)) for number, metrics in enumerate(parts, start=1)]


def _fitting(board: Board) -> list[list[MetricTable]]:
    """The metrics, those with a direction first, cut where a line is full."""
    taken = sum(_width([title, *texts]) for title, texts in _names(board))
    parts: list[list[MetricTable]] = []
    left = 0
    for table in sorted(board.columns, key=_directed, reverse=True):
        width = _width([*_head(table), *(cell.text or "" for cell in _values(table, board))])
        if width > left or not parts:
            parts.append([])
            left = LINE - taken
        parts[-1].append(table)
        left -= width
    return parts


def _width(texts: Iterable[str]) -> int:
    return max(map(len, texts)) + 2


def _names(board: Board) -> list[tuple[str, list[str]]]:
    """The columns that every part of an overview begins with."""
    return [("Method", [run.method for run in board.runs]), ("Scored", [run.coverage.text for run in board.runs])]


def _head(table: MetricTable) -> list[str]:
    """Lines of a metric's head; the arrow counts as a letter and its gap."""
    return [f"{table.title} ^", f"({table.unit})"] if _directed(table) else [_level_head(table)]


def _level_head(table: MetricTable) -> str:
    return f"{table.title} {_best(table)}"


def _best(table: MetricTable) -> str:
    """Without the unit, which stands in the note below."""
    return f"(best: {table.bare_reference})"


def _overview(board: Board, metrics: Sequence[MetricTable], number: int, of: int) -> LatexTable:
    """A metric whose best is the real clips' level has no direction, so it stands among the texts."""
    directed, level = ([t for t in metrics if _directed(t) is wanted] for wanted in (True, False))
    values = {table.metric_id: _values(table, board) for table in metrics}
    rows = [
        LatexRow(
            (Cell(run.method), Cell(run.coverage.text), *(values[t.metric_id][at] for t in level)),
            tuple(values[t.metric_id][at] for t in directed),
        )
        for at, run in enumerate(board.runs)
    ]
    return LatexTable(
        label=f"board-{board.number}" + (f"-part-{number}" if of > 1 else ""),
        caption=f"Methods by metrics{f', part {number} of {of}' if of > 1 else ''}. {board.reference.text}",
        heads=("Method", "Scored", *map(_level_head, level)),
        columns=tuple(_column(table) for table in directed),
        rows=tuple(rows),
        notes=tuple((table.title, _definition(table)) for table in metrics),
    )


def metric_table(board: Board, table: MetricTable) -> LatexTable:
    """One metric's methods, the best first, with intervals, ranks and the difference from the row above."""
    directed = _directed(table)
    heads = ("Method", "95 % interval", "Rank", "Against the row above", "Scored")
    rows = []
    for row in table.rows:
        value = _value(row.cell, row)
        texts = (Cell(row.method), *map(Cell, _texts(row)))
        rows.append(LatexRow(texts, (value,)) if directed else LatexRow((*texts, value), ()))
    number = board.tables.index(table) + 1
    return LatexTable(
        label=f"board-{board.number}-{number}-{_NOT_IN_LABELS.sub('-', table.metric_id)}",
        caption=f"{table.title} ({table.metric_id}). {board.reference.text}",
        heads=heads if directed else (*heads, f"Value {_best(table)}"),
        columns=(_column(table),) if directed else (),
        rows=tuple(rows),
        notes=tuple(_notes(table)),
    )


def _texts(row: ForestRow) -> list[str]:
    standing = row.standing
    interval = format_interval(row.entry.result["ci95"]).replace(MISSING, NOTHING)
    rank = f"{standing.text} of {standing.of}" if standing else NOTHING
    above = NOTHING if standing is None or standing.above is None else standing.above.brief
    return [interval, rank, above, row.cell.count or NOTHING]


def _values(table: MetricTable, board: Board) -> list[Cell]:
    return [_value(table.cell(run.method), table.row(run.method)) for run in board.runs]


def _value(cell: MetricCell, row: ForestRow | None) -> Cell:
    """The number without its unit, which the column's head has."""
    if row is None or cell.reason is not None:
        return Cell(None, cell.explanation)
    return Cell(format_value(row.entry.result["value"], row.entry.result["ci95"]))


def _directed(table: MetricTable) -> bool:
    return not table.rows[0].entry.result.get("best_is_real")


def _column(table: MetricTable) -> LatexColumn:
    return LatexColumn(table.title, bool(table.rows[0].entry.result["higher_is_better"]), table.unit)


def _definition(table: MetricTable) -> str:
    papers = "comparable" if table.comparable else "not comparable"
    digest = table.rows[0].entry.digest[:12]
    return f"{table.metric_id}, definition {digest}, real vs real {table.reference}, {papers} with papers"


def _notes(table: MetricTable) -> Iterator[tuple[str, str]]:
    yield "Definition", _definition(table)
    yield "Protocol", "; ".join(f"{key}: {text}" for key, text in table.protocol)
    yield "Weights", "; ".join(f"{name} sha256 {digest}" for name, digest in table.weights) or "none recorded"
    if table.basis:
        yield "Ranks", table.basis
