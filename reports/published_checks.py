"""Relations that a published table's numbers must keep: each finds the digit that was copied wrongly, where one can.

Arithmetic is decimal and exact, on the printed digits. A cell without a number takes its row out of a check.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ..core.config import Config

if TYPE_CHECKING:
    from .published import PublishedRow, PublishedTable

Tables = Mapping[str, "PublishedTable"]


class WeightedMean(Config):
    """`of` is the mean of other columns, weighted by whole numbers, up to `within` (what rounding can make)."""

    kind: Literal["weighted_mean"]
    of: str
    weights: dict[str, int] = Field(min_length=1)
    within: Decimal

    def run(self, table: PublishedTable, tables: Tables) -> None:
        for row, (value, *parts) in _numbers(table, [self.of, *self.weights]):
            weights = self.weights.values()
            mean = sum((w * part for w, part in zip(weights, parts, strict=True)), Decimal()) / sum(weights)
            if abs(value - mean) > self.within:
                message = f"{value} is more than {self.within} off {mean:f}, the mean of {', '.join(self.weights)}"
                raise table.fault(row.printed, self.of, message)


class MeanOfNonzero(Config):
    """`of` is the mean of those parts that are not zero, exactly; zero where all are."""

    kind: Literal["mean_of_nonzero"]
    of: str
    parts: tuple[str, ...] = Field(min_length=1)

    def run(self, table: PublishedTable, tables: Tables) -> None:
        for row, (value, *parts) in _numbers(table, [self.of, *self.parts]):
            counted = [part for part in parts if part != 0]
            mean = sum(counted, Decimal()) / max(len(counted), 1)
            if value != mean:
                message = f"{value} is not {mean:f}, the mean of the non-zero among {', '.join(self.parts)}"
                raise table.fault(row.printed, self.of, message)


class Multiples(Config):
    """Each value is a whole multiple of scale / parts, rounded: a mean of `parts` whole ratings, a share of votes.

    `decimals` is what it was rounded to, by default what the column prints.
    """

    kind: Literal["multiples"]
    columns: tuple[str, ...] = Field(min_length=1)
    parts: int = Field(gt=0)
    scale: int = Field(1, gt=0)
    decimals: int | None = None

    def run(self, table: PublishedTable, tables: Tables) -> None:
        for name in self.columns:
            decimals = self.decimals if self.decimals is not None else table.column(name).decimals
            half = Decimal(5).scaleb(-(decimals or 0) - 1)
            for row, (value,) in _numbers(table, [name]):
                times = (value * self.parts / self.scale).to_integral_value()
                if abs(times * self.scale / self.parts - value) > half:
                    raise table.fault(row.printed, name, f"{value} is no multiple of {self.scale}/{self.parts}")


class Sum(Config):
    """A column adds up to `total`."""

    kind: Literal["sum"]
    column: str
    total: Decimal

    def run(self, table: PublishedTable, tables: Tables) -> None:
        total = sum((value for _, (value,) in _numbers(table, [self.column])), Decimal())
        if total != self.total:
            raise table.fault("all rows", self.column, f"they add up to {total}, not {self.total}")


class Improvement(Config):
    """A gain that the source states in words: the row's value over the best of the others, in per cent."""

    kind: Literal["improvement"]
    column: str
    row: str
    percent: Decimal

    def run(self, table: PublishedTable, tables: Tables) -> None:
        numbers = _numbers(table, [self.column])
        own = table.cell(self.row, self.column).decimal
        others = [value for row, (value,) in numbers if row.printed != self.row]
        best = (max if table.columns[self.column].higher_is_better else min)(others, default=Decimal())
        if own is None or not best:
            raise table.fault(self.row, self.column, "there is nothing to compute the stated improvement from")
        gain = (100 * (own / best - 1)).quantize(self.percent)
        if gain != self.percent:
            raise table.fault(
                self.row, self.column, f"{own} over {best} is {gain} %, and the source says {self.percent} %"
            )


class SameRow(Config):
    """A row that stands in two tables of the source carries the same digits."""

    kind: Literal["same_row"]
    row: str
    table: str
    other: str
    columns: tuple[str, ...] = Field(min_length=1)

    def run(self, table: PublishedTable, tables: Tables) -> None:
        if self.table not in tables:
            raise table.fault(self.row, "same_row", f"there is no table {self.table}")
        there = tables[self.table]
        for name in self.columns:
            mine, theirs = table.cell(self.row, name).text, there.cell(self.other, name).text
            if mine != theirs:
                raise table.fault(self.row, name, f"{mine}, but {theirs} for {self.other} in table {self.table}")


class Ranking(Config):
    """Rows stand in the order of a column, the best first."""

    kind: Literal["ranking"]
    column: str

    def run(self, table: PublishedTable, tables: Tables) -> None:
        rows = _numbers(table, [self.column])
        higher = table.columns[self.column].higher_is_better
        for (above, (first,)), (below, (second,)) in pairwise(rows):
            if (second > first) if higher else (second < first):
                raise table.fault(below.printed, self.column, f"{second} stands below {first} of {above.printed}")


Check = Annotated[
    WeightedMean | MeanOfNonzero | Multiples | Sum | Improvement | SameRow | Ranking, Field(discriminator="kind")
]


def run_checks(table: PublishedTable, tables: Tables) -> None:
    """All checks of a table.

    Args:
        tables: all tables by id, for the checks that look into another one.

    Raises:
        ConfigError: file, table, cell, and what does not hold; or a check names what the table does not have.
    """
    for check in table.checks:
        check.run(table, tables)


def _numbers(table: PublishedTable, columns: Iterable[str]) -> list[tuple[PublishedRow, list[Decimal]]]:
    """The rows that have a number in each of the columns, with these numbers."""
    names = list(columns)
    for name in names:
        table.column(name)
    found = []
    for row in table.rows:
        values = [value for name in names if (value := row.cells[name].decimal) is not None]
        if len(values) == len(names):
            found.append((row, values))
    return found
