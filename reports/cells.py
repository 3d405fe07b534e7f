"""A metric's number as a table cell: the one way a number appears in the report, the comparison and any later table.

`metric_cell` reads an entry of `results.json`; a row from elsewhere (a published figure) builds a `MetricCell` with the
parts it has. The HTML side is the macro `metric_value` in `templates/_macros.html`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .formatting import MISSING, Interval, format_interval, format_value, is_number

NO_REASON = "no reason was recorded"


@dataclass(frozen=True)
class MetricCell:
    """A printable number.

    `sort` is the number itself for ordering (None: missing, ordered last). `reason` is set exactly when it is missing;
    `hint` is then the way out, where there is one. `bare` is the text without its unit, for columns whose head has it.
    """

    text: str
    interval: str | None = None
    count: str | None = None
    complete: bool = True
    reason: str | None = None
    hint: str | None = None
    sort: float | None = None
    best: bool = False
    bare: str = ""

    @property
    def explanation(self) -> str | None:
        """Reason and hint in one line; None for a number."""
        return f"{self.reason}: {self.hint}" if self.reason and self.hint else self.reason


def metric_cell(result: Mapping[str, Any]) -> MetricCell:
    """The cell of one entry of `results.json`; a value that is not finite counts as missing and says so."""
    value, ci = result["value"], result["ci95"]
    count = f"{result['n_scored']}/{result['n_attempted']}"
    complete = result["n_scored"] == result["n_attempted"]
    if not is_number(value):
        return MetricCell(MISSING, None, count, complete, _reason(result), result.get("hint"))
    interval = format_interval(ci)
    return MetricCell(
        format_value(value, ci, result["unit"]),
        None if interval == MISSING else interval,
        count,
        complete,
        sort=float(value),
        bare=format_value(value, ci),
    )


def _reason(result: Mapping[str, Any]) -> str:
    value = result["value"]
    return result["reason"] or (NO_REASON if value is None else f"the value is not finite ({value})")


def reference_text(result: Mapping[str, Any]) -> str:
    """The real-vs-real figure, with the decimals of the value beside it."""
    return format_value(result["real_vs_real"], result["ci95"], result["unit"])


def arrow(higher_is_better: bool, best_is_real: bool = False) -> str:
    """The arrow that points where better numbers lie."""
    return "≈" if best_is_real else "↑" if higher_is_better else "↓"


def direction(higher_is_better: bool, best_is_real: bool = False) -> str:
    """The arrow in words, for those who do not see it."""
    if best_is_real:
        return "best is the real clips' level"
    return "higher is better" if higher_is_better else "lower is better"


def shortfall(result: Mapping[str, Any]) -> float | None:
    """How far an entry of `results.json` is from the best, up to a constant of its metric; None without a value.

    Of a metric whose best is what the real clips have, that is the distance from their level.
    """
    value, level = result["value"], result["real_vs_real"]
    if not is_number(value):
        return None
    if result.get("best_is_real"):
        return abs(value - level) if is_number(level) else None
    return -value if result["higher_is_better"] else value


def mark_best(cells: list[MetricCell], gaps: Sequence[float | None]) -> list[MetricCell]:
    """Marks the best of at least two numbers, by `shortfall` (all of them when tied); missing ones never count."""
    known = [gap for gap in gaps if gap is not None]
    if len(known) < 2:
        return cells
    return [replace(cell, best=gap == min(known)) for cell, gap in zip(cells, gaps, strict=True)]


def usable_interval(ci: Interval | None) -> Interval | None:
    """`ci` when both ends are finite, else None."""
    return ci if ci is not None and all(is_number(end) for end in ci) else None
