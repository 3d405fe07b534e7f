"""Plain text for people at a terminal, and the small forms in which they give lists."""

from __future__ import annotations

import sys
from typing import Any


def listed(text: str | None) -> list[str] | None:
    """A comma-separated option as a list; None when it was not given."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def say(text: str) -> None:
    """A line for people, on stderr, so that stdout stays for what scripts read."""
    print(text, file=sys.stderr, flush=True)


def table(rows: list[dict[str, Any]], columns: list[str]) -> None:
    """Rows as aligned text on stdout."""
    cells = [[name.replace("_", " ") for name in columns]]
    cells += [[_cell(row.get(name)) for name in columns] for row in rows]
    widths = [max(len(line[k]) for line in cells) for k in range(len(columns))]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)
