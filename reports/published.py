"""Published tables as data: what papers print, cell by cell, with the source, and the checks that the numbers allow.

A published number comes without most of its protocol, so its row says `published` and carries `PROTOCOL`, and a table
holds the rows of one source only: papers give the same method on the same dataset very different scores, which
`disagreements` lists. A cell keeps its printed text, so no decimal is added or lost; the number is derived from it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ..core.config import Config, read_yaml, validate
from ..core.errors import ConfigError
from ..core.weights import CONFIGS
from .published_checks import Check, run_checks

FOLDER = CONFIGS / "published"
PROTOCOL = "published, protocol unstated"
DASH = "-"  # printed where the paper has no number
NUMBER = re.compile(r"-?\d+(\.\d+)?", re.ASCII)
Condition = Literal["audio", "video", "audio+video", "audio+prompt"]


class Source(Config):
    """Where the tables are printed; `stated` says what the source tells of its protocol."""

    key: str
    title: str
    authors: tuple[str, ...] = Field(min_length=1)
    year: int
    venue: str | None = None
    arxiv: str | None = None
    doi: str | None = None
    stated: str

    @property
    def citation(self) -> str:
        """Authors, title, venue, year and identifiers in one line."""
        ids = [f"arXiv:{self.arxiv}" if self.arxiv else None, f"doi:{self.doi}" if self.doi else None]
        return ". ".join(filter(None, [", ".join(self.authors), self.title, self.venue, str(self.year), *ids]))


class Column(Config):
    """A column of numbers.

    Attributes:
        title: as printed, without arrow and unit.
        higher_is_better: the printed arrow.
        metric: family of this toolkit's metrics that measures the same thing; None when there is none.
        unit: of the numbers, "" for plain ones.
        decimals: how many every cell prints; None when they vary.
        low, high: inclusive bounds that the quantity has by its definition.
    """

    title: str
    higher_is_better: bool
    metric: str | None = None
    unit: str = ""
    decimals: int | None = None
    low: Decimal | None = None
    high: Decimal | None = None


@dataclass(frozen=True)
class Cell:
    """What is printed, or None with the reason."""

    text: str | None
    reason: str | None = None

    @property
    def decimal(self) -> Decimal | None:
        """The exact number; None where nothing is printed."""
        return None if self.text is None else Decimal(self.text)

    @property
    def number(self) -> float | None:
        """The number; None where nothing is printed."""
        return None if self.text is None else float(self.text)


@dataclass(frozen=True)
class PublishedRow:
    """A method's row.

    Attributes:
        method: the name that all tables share; `printed` the table's own.
        condition: what drives the method, a `Condition`; a reason where the source says nothing.
        labels: texts beside the numbers, by heading.
        cells: by column id, in the table's order.
        published, protocol: the same for all rows: not measured here.
    """

    method: str
    printed: str
    condition: Cell
    labels: Mapping[str, Cell]
    cells: Mapping[str, Cell]
    published: bool = True
    protocol: str = PROTOCOL


@dataclass(frozen=True)
class PublishedTable:
    """One table of one source on one test set.

    Attributes:
        id: unique over all files; `number` is the paper's, None where it has none.
        caption: what it shows, in our words.
        dataset: a name, or the reason why there is none.
        row_header: heading of the rows' names, as printed.
        columns: by id, in printed order.
        notes: what one must know to read it; `findings`: what does not fit in the source.
        path: the file that it was read from.
    """

    id: str
    source: Source
    number: str | None
    caption: str
    dataset: Cell
    row_header: str
    columns: Mapping[str, Column]
    rows: tuple[PublishedRow, ...]
    notes: tuple[str, ...]
    findings: tuple[str, ...]
    checks: tuple[Check, ...]
    path: Path

    def fault(self, row: str, column: str, message: str) -> ConfigError:
        """The error that says which cell is wrong."""
        title = self.columns[column].title if column in self.columns else column
        return ConfigError(f"{self.path}: table {self.id}: {row}, {title}: {message}")

    def row(self, printed: str) -> PublishedRow:
        """The row of that printed name.

        Raises:
            ConfigError: there is none.
        """
        for row in self.rows:
            if row.printed == printed:
                return row
        raise ConfigError(f"{self.path}: table {self.id} has no row {printed!r}")

    def column(self, column: str) -> Column:
        """The column of that id.

        Raises:
            ConfigError: there is none.
        """
        if column not in self.columns:
            raise ConfigError(f"{self.path}: table {self.id} has no column {column!r}")
        return self.columns[column]

    def cell(self, printed: str, column: str) -> Cell:
        """One cell.

        Raises:
            ConfigError: there is no such row or column.
        """
        self.column(column)
        return self.row(printed).cells[column]


class _Row(Config):
    method: str
    printed: str | None = None
    condition: Condition | None = None
    labels: dict[str, str | None] = Field(default_factory=dict)
    missing: dict[str, str] = Field(default_factory=dict)
    cells: str


class _Table(Config):
    id: str
    number: str | None
    caption: str
    dataset: str | None
    no_dataset: str | None = None
    row_header: str = "Method"
    no_condition: str | None = None
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    columns: tuple[str, ...] = Field(min_length=1)
    rows: tuple[_Row, ...] = Field(min_length=1)
    checks: tuple[Check, ...] = ()
    findings: tuple[str, ...] = ()


class _File(Config):
    source: Source
    columns: dict[str, Column]
    tables: list[dict[str, Any]] = Field(min_length=1)


def load_published(folder: Path | None = None) -> list[PublishedTable]:
    """All published tables, checked.

    Args:
        folder: of YAML files; None for the ones that come with the toolkit.

    Raises:
        ConfigError: a file that cannot be read, or a cell that contradicts a check; the message names file, table and
            cell.
    """
    folder = FOLDER if folder is None else folder
    paths = sorted(folder.glob("*.yaml"))
    if not paths:
        raise ConfigError(f"{folder} holds no published tables", hint="they are YAML files")
    tables = [table for path in paths for table in _read(path)]
    by_id: dict[str, PublishedTable] = {}
    for table in tables:
        if table.id in by_id:
            raise ConfigError(f"{table.path}: table {table.id} is also in {by_id[table.id].path}")
        by_id[table.id] = table
    for table in tables:
        run_checks(table, by_id)
    _sources_agree_with_themselves(tables)
    return tables


def _read(path: Path) -> list[PublishedTable]:
    file = validate(_File, read_yaml(path), where=str(path))
    tables = []
    for index, data in enumerate(file.tables):
        raw = validate(_Table, data, where=f"{path}: table {data.get('id', index)}")
        unknown = [name for name in raw.columns if name not in file.columns]
        if unknown:
            raise ConfigError(f"{path}: table {raw.id}: unknown column {unknown[0]!r}")
        tables.append(_table(raw, file, path))
    return tables


def _table(raw: _Table, file: _File, path: Path) -> PublishedTable:
    columns = {name: file.columns[name] for name in raw.columns}
    where = f"{path}: table {raw.id}"
    table = PublishedTable(
        id=raw.id,
        source=file.source,
        number=raw.number,
        caption=raw.caption,
        dataset=_stated(raw.dataset, raw.no_dataset, f"{where}: dataset"),
        row_header=raw.row_header,
        columns=columns,
        rows=tuple(_row(row, raw, columns, where) for row in raw.rows),
        notes=raw.notes,
        findings=raw.findings,
        checks=raw.checks,
        path=path,
    )
    for row in table.rows:
        for name, cell in row.cells.items():
            _check_cell(table, row, name, cell)
    _names_are_unique(table)
    return table


def _row(raw: _Row, table: _Table, columns: Mapping[str, Column], where: str) -> PublishedRow:
    name, tokens = raw.printed or raw.method, raw.cells.split()
    if len(tokens) != len(columns):
        raise ConfigError(f"{where}: {name} has {len(tokens)} cells for {len(columns)} columns")
    if set(raw.labels) != set(table.labels):
        raise ConfigError(f"{where}: {name} has the labels {sorted(raw.labels)}, the table {sorted(table.labels)}")
    unused = set(raw.missing) - {*table.labels, *columns}
    if unused:
        raise ConfigError(f"{where}: {name}: 'missing' names {sorted(unused)[0]!r}, which is no column or label")
    texts = dict(zip(columns, (None if token == DASH else token for token in tokens), strict=True))
    condition = _stated(raw.condition, table.no_condition if raw.condition is None else None, f"{where}: {name}")
    labels, cells = (
        {key: _stated(text, raw.missing.get(key), f"{where}: {name}, {key}") for key, text in stated.items()}
        for stated in ({head: raw.labels[head] for head in table.labels}, texts)
    )
    return PublishedRow(raw.method, name, condition, labels, cells)


def _stated(text: str | None, reason: str | None, where: str) -> Cell:
    """A text, or the reason why there is none: exactly one of the two."""
    if (text is None) == (reason is None):
        fault = "there is neither a value nor a reason" if text is None else "there is a value and a reason against it"
        raise ConfigError(f"{where}: {fault}")
    return Cell(text, reason)


def _check_cell(table: PublishedTable, row: PublishedRow, name: str, cell: Cell) -> None:
    """Digits, as many decimals as the column prints, and within the quantity's bounds."""
    if cell.text is None:
        return
    column = table.columns[name]
    if not NUMBER.fullmatch(cell.text):
        raise table.fault(row.printed, name, f"{cell.text!r} is not a number as papers print it")
    decimals = len(cell.text.partition(".")[2])
    if column.decimals is not None and decimals != column.decimals:
        raise table.fault(row.printed, name, f"{cell.text} has {decimals} decimals, not {column.decimals}")
    value = Decimal(cell.text)
    if (column.low is not None and value < column.low) or (column.high is not None and value > column.high):
        ends = [DASH if end is None else str(end) for end in (column.low, column.high)]
        raise table.fault(row.printed, name, f"{cell.text} is outside {ends[0]} to {ends[1]}")


def _names_are_unique(table: PublishedTable) -> None:
    for names in ([row.printed for row in table.rows], [row.method for row in table.rows]):
        repeated = [name for name in names if names.count(name) > 1]
        if repeated:
            raise ConfigError(f"{table.path}: table {table.id} has two rows {repeated[0]!r}")


@dataclass(frozen=True)
class Measurement:
    """A cell with its table, for comparing across tables."""

    table: PublishedTable
    row: PublishedRow
    column: str
    text: str


@dataclass(frozen=True)
class Disagreement:
    """Sources that give one method different numbers under one name on one dataset."""

    method: str
    dataset: str
    metric: str
    measurements: tuple[Measurement, ...]

    def __str__(self) -> str:
        given = ", ".join(f"{one.text} ({one.table.source.key})" for one in self.measurements)
        return f"{self.method} on {self.dataset}, {self.metric}: {given}"


def disagreements(tables: Iterable[PublishedTable]) -> list[Disagreement]:
    """Where two sources print different numbers for what carries the same name: why tables never mix sources."""
    found = []
    for (method, dataset, metric), group in _by_quantity(tables).items():
        sources = {one.table.source.key: one for one in group}
        if len({Decimal(one.text) for one in sources.values()}) > 1:
            found.append(Disagreement(method, dataset, metric, tuple(sources.values())))
    return found


def _by_quantity(tables: Iterable[PublishedTable]) -> dict[tuple[str, str, str], list[Measurement]]:
    """Cells by (method, dataset, metric family), for columns that have a family of their own."""
    groups: dict[tuple[str, str, str], list[Measurement]] = defaultdict(list)
    for table in tables:
        families = [column.metric for column in table.columns.values()]
        for row in table.rows:
            for name, cell in row.cells.items():
                metric = table.columns[name].metric
                if cell.text is not None and table.dataset.text and metric and families.count(metric) == 1:
                    groups[row.method, table.dataset.text, metric].append(Measurement(table, row, name, cell.text))
    return groups


def _sources_agree_with_themselves(tables: Sequence[PublishedTable]) -> None:
    """Within one source the same method, dataset and metric have one number."""
    for group in _by_quantity(tables).values():
        for first, second in combinations(group, 2):
            if first.table.source == second.table.source and first.text != second.text:
                raise second.table.fault(
                    second.row.printed, second.column, f"{second.text}, but {first.text} in table {first.table.id}"
                )
