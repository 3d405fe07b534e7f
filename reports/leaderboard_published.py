"""The published numbers that belong beside a comparison: those of the metrics that it has, under the papers' names."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from .published import PublishedTable


def corresponding(tables: Iterable[PublishedTable], families: Collection[str]) -> list[PublishedTable]:
    """The tables cut to the columns that carry a metric of these families; those without one are left out.

    Args:
        families: metrics without their variants, such as "fvd". A substitute network's metric has a family of its own
            ("fd"), so nothing that papers print corresponds to it.
    """
    cut = [_cut(table, families) for table in tables]
    return [table for table in cut if table.columns]


def _cut(table: PublishedTable, families: Collection[str]) -> PublishedTable:
    columns = {name: column for name, column in table.columns.items() if column.metric in families}
    rows = tuple(replace(row, cells={name: row.cells[name] for name in columns}) for row in table.rows)
    return replace(table, columns=columns, rows=rows)
