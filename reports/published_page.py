"""Published tables on a page, in Markdown, LaTeX, CSV and JSON: each with its source, none beside measured numbers."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .cells import MetricCell, arrow, direction, mark_best
from .formatting import MISSING
from .html import render_page
from .latex import LatexColumn, LatexRow, LatexTable, write_latex
from .markdown import MarkdownPage, escape
from .published import PROTOCOL, Cell, PublishedRow, PublishedTable, disagreements

CONDITION = "Condition"
CSV_HEAD = (
    *("source", "table", "number", "dataset", "protocol", "method", "printed_as", "condition"),
    *("column", "metric", "unit", "higher_is_better", "text", "value", "reason"),
)


@dataclass(frozen=True)
class PublishedView:
    """A table as the page shows it: headings, and for each row its texts and its numbers with the best ones marked."""

    table: PublishedTable
    heads: list[str]
    titles: list[tuple[str, str, str]]  # title with unit, arrow, direction in words
    rows: list[tuple[PublishedRow, list[Cell], list[MetricCell]]]
    facts: list[tuple[str, str]]


def published_view(table: PublishedTable) -> PublishedView:
    """Lays out one table."""
    columns = [
        _column([_metric_cell(row.cells[name]) for row in table.rows], -1 if column.higher_is_better else 1)
        for name, column in table.columns.items()
    ]
    rows = [(row, _labels(table, row), [column[index] for column in columns]) for index, row in enumerate(table.rows)]
    titles = [
        (f"{c.title} ({c.unit})" if c.unit else c.title, arrow(c.higher_is_better), direction(c.higher_is_better))
        for c in table.columns.values()
    ]
    return PublishedView(table, _heads(table), titles, rows, published_facts(table))


def _column(cells: list[MetricCell], sign: int) -> list[MetricCell]:
    return mark_best(cells, [None if cell.sort is None else sign * cell.sort for cell in cells])


def published_facts(table: PublishedTable) -> list[tuple[str, str]]:
    """What must stand beside the numbers, as (name, text)."""
    number = f"Table {table.number}" if table.number else "unnumbered"
    facts = [
        ("Source", f"{table.source.citation} ({number})"),
        ("Test set", table.dataset.text or f"{MISSING} {table.dataset.reason}"),
        *([] if _has_conditions(table) else [(CONDITION, f"{MISSING} {table.rows[0].condition.reason}")]),
        ("Protocol", PROTOCOL),
        ("What the source states", table.source.stated),
        *(("Note", note) for note in table.notes),
        *(("Does not fit", finding) for finding in table.findings),
    ]
    renamed = [f"{row.printed} is {row.method}" for row in table.rows if row.printed != row.method]
    return [*facts, ("Names", "; ".join(renamed))] if renamed else facts


def published_latex_table(table: PublishedTable) -> LatexTable:
    """The table for `write_latex`: printed names and digits, condition and labels, facts as notes."""
    return LatexTable(
        label=table.id,
        caption=table.caption,
        heads=tuple(_heads(table)),
        columns=tuple(LatexColumn(c.title, c.higher_is_better, c.unit) for c in table.columns.values()),
        rows=tuple(
            LatexRow((Cell(row.printed), *_labels(table, row)), tuple(row.cells[name] for name in table.columns))
            for row in table.rows
        ),
        notes=tuple(published_facts(table)),
    )


def render_published_latex(tables: Sequence[PublishedTable]) -> str:
    """All tables as LaTeX."""
    return write_latex(map(published_latex_table, tables))


def render_published_html(tables: Sequence[PublishedTable]) -> str:
    """All tables on one self-contained page."""
    views = [published_view(table) for table in tables]
    return render_page("published.html", views=views, protocol=PROTOCOL, differences=_differences(tables))


def render_published_markdown(tables: Sequence[PublishedTable]) -> str:
    """The page's twin in Markdown."""
    page = MarkdownPage("Comparison of methods: published tables")
    page.text(f"{PROTOCOL[0].upper()}{PROTOCOL[1:]}: numbers as printed; none of them was measured here.")
    for table in tables:
        published_section(page, table)
    page.heading("One method, several numbers")
    page.bullets(map(escape, _differences(tables)))
    return page.render()


def published_section(page: MarkdownPage, table: PublishedTable, *, level: int = 2) -> None:
    """Adds one table under a heading of this level, with what must stand beside it."""
    view = published_view(table)
    page.heading(escape(f"{table.source.key}: {table.caption}"), level)
    titles = [f"{escape(title)} {sign}" for title, sign, _ in view.titles]
    page.table([*map(escape, view.heads), *titles], list(_markdown_rows(view)), numbers=len(titles))
    page.bullets(f"{escape(name)}: {escape(text)}" for name, text in view.facts)


def _markdown_rows(view: PublishedView) -> Iterator[list[str]]:
    for row, labels, cells in view.rows:
        texts = [escape(cell.text or f"{MISSING} {cell.reason}") for cell in labels]
        numbers = [f"**{cell.text}**" if cell.best else escape(f"{cell.text} {cell.reason or ''}") for cell in cells]
        yield [escape(row.printed), *texts, *numbers]


def render_published_csv(tables: Sequence[PublishedTable]) -> str:
    """A line a cell; `text` keeps the printed decimals."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(CSV_HEAD)
    for table in tables:
        for row in table.rows:
            writer.writerows(_csv_line(table, row, name, cell) for name, cell in row.cells.items())
    return file.getvalue()


def _csv_line(table: PublishedTable, row: PublishedRow, name: str, cell: Cell) -> list[Any]:
    column = table.columns[name]
    where = [table.source.key, table.id, table.number, table.dataset.text, row.protocol]
    who = [row.method, row.printed, row.condition.text]
    what = [column.title, column.metric, column.unit, column.higher_is_better]
    return [*where, *who, *what, cell.text, cell.number, cell.reason]


def published_json(tables: Sequence[PublishedTable]) -> dict[str, Any]:
    """All tables as plain data; missing values are null with a reason."""
    return {"schema_version": 1, "protocol": PROTOCOL, "tables": [_json_table(table) for table in tables]}


def _json_table(table: PublishedTable) -> dict[str, Any]:
    columns = {name: column.model_dump(mode="json") for name, column in table.columns.items()}
    rows = [
        {
            "method": row.method,
            "printed": row.printed,
            "published": row.published,
            "protocol": row.protocol,
            "condition": _json_cell(row.condition),
            "labels": {head: _json_cell(cell) for head, cell in row.labels.items()},
            "values": {name: _json_cell(cell) | {"value": cell.number} for name, cell in row.cells.items()},
        }
        for row in table.rows
    ]
    return {
        "id": table.id,
        "number": table.number,
        "caption": table.caption,
        "source": table.source.model_dump(mode="json"),
        "dataset": _json_cell(table.dataset),
        "columns": columns,
        "rows": rows,
        "notes": list(table.notes),
        "findings": list(table.findings),
    }


def _json_cell(cell: Cell) -> dict[str, Any]:
    return {"text": cell.text, "reason": cell.reason}


def _heads(table: PublishedTable) -> list[str]:
    return [table.row_header, *([CONDITION] if _has_conditions(table) else []), *table.rows[0].labels]


def _labels(table: PublishedTable, row: PublishedRow) -> list[Cell]:
    return [*([row.condition] if _has_conditions(table) else []), *row.labels.values()]


def _has_conditions(table: PublishedTable) -> bool:
    """Where no row has a condition, one line below the table says so, instead of an empty column."""
    return any(row.condition.text for row in table.rows)


def _metric_cell(cell: Cell) -> MetricCell:
    if cell.text is None:
        return MetricCell(MISSING, reason=cell.reason)
    return MetricCell(cell.text, sort=cell.number)


def _differences(tables: Sequence[PublishedTable]) -> list[str]:
    return [str(found) for found in disagreements(tables)]
