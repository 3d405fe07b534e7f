"""Tables as LaTeX (booktabs; arrows, best bold, second best underlined), and the strict parser of exactly that.

`parse_latex(write_latex(tables)) == tables`, so that a table that went into a paper can be held against its source.
The parser takes nothing else than what the writer makes: another command, a mark that the numbers do not bear out or a
wrong number of cells is an error that names the line. No text can reach LaTeX as markup: `escape` leaves no character
that would.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from ..core.errors import InputError
from .cells import arrow
from .formatting import printable
from .published import Cell

PREAMBLE = r"% Tables by TalkForge. They need \usepackage{booktabs} and, for check marks, \usepackage{amssymb}."
ESCAPES = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    # After the `\\` that ends a row these two would be read as its arguments.
    **{character: f"{{{character}}}" for character in "[]*"},
    "×": r"$\times$",
    "✓": r"$\checkmark$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
}
LIGATURES = re.compile(r"(?<=-)(?=-)|(?<=')(?=')|(?<=,)(?=,)")
_CHARACTERS = {tex: character for character, tex in ESCAPES.items()} | {"{}": ""}
_TOKEN = re.compile("|".join(re.escape(tex) for tex in sorted(_CHARACTERS, key=len, reverse=True)) + "|.", re.DOTALL)
_LABEL = re.compile(r"[A-Za-z0-9:._-]+")
_NUMBER = re.compile(r"-?\d+(\.\d+)?", re.ASCII)
_MISSING = re.compile(r"--\\textsuperscript\{(\d{1,4})\}", re.ASCII)
_HEAD = re.compile(r"(.*) (\$\\(?:up|down)arrow\$)")
_MARKED = {"best": r"\textbf{", "second": r"\underline{"}
_NOTES = r"\par\smallskip\parbox{\linewidth}{\footnotesize"


@dataclass(frozen=True)
class LatexColumn:
    """A column of numbers; its arrow follows from the direction, its unit stands in a line below the titles."""

    title: str
    higher_is_better: bool
    unit: str = ""


@dataclass(frozen=True)
class LatexRow:
    """Texts on the left, then numbers as they are printed; a missing one has a reason, which becomes a footnote."""

    labels: tuple[Cell, ...]
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class LatexTable:
    """A table float.

    Attributes:
        label: letters, digits and `:._-`; `tab:` comes before it.
        heads: titles of the text columns.
        notes: (name, text) lines below the table.
    """

    label: str
    caption: str
    heads: tuple[str, ...]
    columns: tuple[LatexColumn, ...]
    rows: tuple[LatexRow, ...]
    notes: tuple[tuple[str, str], ...] = ()


def escape(text: str) -> str:
    """Text that LaTeX sets as itself; control characters and such become their visible escape first."""
    apart = LIGATURES.sub("\0", printable(text))  # printable text holds no such character of its own
    return "".join(ESCAPES.get(character, character) for character in apart).replace("\0", "{}")


def unescape(tex: str) -> str:
    """The text that `escape` made this of.

    Raises:
        InputError: `escape` makes nothing of that form.
    """
    text = _TOKEN.sub(lambda match: _CHARACTERS.get(match[0], match[0]), tex)
    if escape(text) != tex:
        raise InputError(f"{tex!r} is not escaped text")
    return text


def marks(numbers: Sequence[float | None], higher_is_better: bool) -> list[str]:
    """ "best", "second" or "" for each number, ties alike; a column with fewer than two numbers has no marks."""
    known = [number for number in numbers if number is not None]
    ranked = sorted(set(known), reverse=higher_is_better) if len(known) > 1 else []
    named = dict(zip(ranked, _MARKED, strict=False))
    return ["" if number is None else named.get(number, "") for number in numbers]


def write_latex(tables: Iterable[LatexTable]) -> str:
    """A file with the tables, to be read with `\\input`.

    Raises:
        InputError: a label that LaTeX could not refer to, or a row of another width than its table.
    """
    return "\n\n".join([PREAMBLE, *("\n".join(_lines(table)) for table in tables)]) + "\n"


def _lines(table: LatexTable) -> Iterator[str]:
    if not _LABEL.fullmatch(table.label):
        raise InputError(f"{table.label!r} cannot be a LaTeX label")
    if any((len(row.labels), len(row.cells)) != (len(table.heads), len(table.columns)) for row in table.rows):
        raise InputError(f"table {table.label} has a row of another width")
    reasons = _reasons(table.rows)
    yield from (r"\begin{table}[htbp]", r"\centering\small", rf"\caption{{{escape(table.caption)}}}")
    yield rf"\label{{tab:{table.label}}}"
    yield rf"\begin{{tabular}}{{{'l' * len(table.heads)}{'r' * len(table.columns)}}}"
    yield r"\toprule"
    titles = [f"{escape(column.title)} {escape(arrow(column.higher_is_better))}" for column in table.columns]
    yield _line([*map(escape, table.heads), *titles])
    if any(column.unit for column in table.columns):
        units = [escape(f"({column.unit})") if column.unit else "" for column in table.columns]
        yield _line([""] * len(table.heads) + units)
    yield r"\midrule"
    found = _column_marks(table.columns, table.rows)
    for row, marked in zip(table.rows, found, strict=True):
        labels = [_cell(cell, "", reasons) for cell in row.labels]
        yield _line([*labels, *(_cell(cell, mark, reasons) for cell, mark in zip(row.cells, marked, strict=True))])
    yield from (r"\bottomrule", r"\end{tabular}")
    yield from _note_lines(table.notes, reasons)
    yield r"\end{table}"


def _line(cells: Iterable[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def _cell(cell: Cell, mark: str, reasons: Sequence[str]) -> str:
    if cell.text is None:
        return rf"--\textsuperscript{{{reasons.index(cell.reason or '') + 1}}}"
    return f"{_MARKED[mark]}{escape(cell.text)}}}" if mark else escape(cell.text)


def _note_lines(notes: Sequence[tuple[str, str]], reasons: Sequence[str]) -> Iterator[str]:
    if notes or reasons:
        yield _NOTES
        yield from (rf"\textit{{{escape(name)}:}} {escape(text)}\par" for name, text in notes)
        yield from (rf"\textsuperscript{{{index}}} {escape(text)}\par" for index, text in enumerate(reasons, start=1))
        yield "}"


def _reasons(rows: Iterable[LatexRow]) -> list[str]:
    """Reasons of missing cells in order of appearance, each once."""
    cells = (cell for row in rows for cell in (*row.labels, *row.cells))
    return list(dict.fromkeys(cell.reason or "" for cell in cells if cell.text is None))


def _column_marks(columns: Sequence[LatexColumn], rows: Sequence[LatexRow]) -> list[list[str]]:
    """Marks by row and column; a text that is more than a number has none."""
    found = []
    for index, column in enumerate(columns):
        texts = [row.cells[index].text for row in rows]
        numbers = [float(text) if text is not None and _NUMBER.fullmatch(text) else None for text in texts]
        found.append(marks(numbers, column.higher_is_better))
    return [[column[index] for column in found] for index in range(len(rows))]


def parse_latex(text: str) -> list[LatexTable]:
    """The tables of a file that `write_latex` wrote.

    Raises:
        InputError: anything that `write_latex` would not have written; the message names the line.
    """
    reader = _Reader(text.split("\n"))
    reader.exactly(PREAMBLE)
    tables = []
    while reader.left > 1:
        reader.exactly("")
        tables.append(_read_table(reader))
    reader.exactly("")
    # What lines by themselves do not show: a mark that the numbers do not bear out, a footnote that nobody refers to.
    pairs = zip_longest(write_latex(tables).split("\n"), text.split("\n"))
    for line, (ours, theirs) in enumerate(pairs, start=1):
        if ours != theirs:
            raise InputError(f"line {line}: {theirs!r} should be {ours!r}, going by the rest of the table")
    return tables


class _Reader:
    """Lines, one after the other."""

    def __init__(self, lines: list[str]) -> None:
        self._all, self._next = lines, 0

    @property
    def left(self) -> int:
        return len(self._all) - self._next

    def peek(self) -> str:
        return self._all[self._next] if self.left else ""

    def between(self, before: str, after: str, *, only: str | None = None) -> str:
        """What stands between the two in the next line (exactly `only`, where that is given)."""
        line = self.peek()
        inner = line[len(before) : len(line) - len(after)]
        if not self.left or before + inner + after != line or (only is not None and inner != only):
            raise self.fault(f"expected {before + ('...' if only is None else only) + after!r}, found {line!r}")
        self._next += 1
        return inner

    def exactly(self, *lines: str) -> None:
        for line in lines:
            self.between(line, "", only="")

    def text(self, tex: str) -> str:
        """Unescaped text of the line before."""
        try:
            return unescape(tex)
        except InputError as error:
            raise self.fault(error.message, back=1) from error

    def fault(self, message: str, back: int = 0) -> InputError:
        return InputError(f"line {self._next + 1 - back}: {message}")


def _read_table(reader: _Reader) -> LatexTable:
    reader.exactly(r"\begin{table}[htbp]", r"\centering\small")
    caption = reader.text(reader.between(r"\caption{", "}"))
    label = reader.between(r"\label{tab:", "}")
    spec = reader.between(r"\begin{tabular}{", "}")
    reader.exactly(r"\toprule")
    texts, numbers = spec.count("l"), spec.count("r")
    heads, columns = _read_head(reader, texts, numbers)
    raw = []
    while reader.peek() != r"\bottomrule":
        raw.append([_raw_cell(reader, tex) for tex in _cells(reader, texts + numbers)])
    reader.exactly(r"\bottomrule", r"\end{tabular}")
    notes, reasons = _read_notes(reader)
    reader.exactly(r"\end{table}")
    cells = [[_resolved(reader, one, reasons) for one in row] for row in raw]
    rows = tuple(LatexRow(tuple(row[:texts]), tuple(row[texts:])) for row in cells)
    return LatexTable(label, caption, heads, columns, rows, notes)


def _cells(reader: _Reader, width: int) -> list[str]:
    cells = reader.between("", r" \\").split(" & ")
    if len(cells) != width:
        raise reader.fault(f"{len(cells)} cells for {width} columns", back=1)
    return cells


def _read_head(reader: _Reader, texts: int, numbers: int) -> tuple[tuple[str, ...], tuple[LatexColumn, ...]]:
    titles = _cells(reader, texts + numbers)
    heads = tuple(reader.text(tex) for tex in titles[:texts])
    found = [_HEAD.fullmatch(tex) for tex in titles[texts:]]
    matches = [match for match in found if match]
    if len(matches) < len(found):
        raise reader.fault("a column without an arrow", back=1)
    named = [(reader.text(match[1]), match[2] == ESCAPES["↑"]) for match in matches]
    units = [""] * numbers
    if reader.peek() != r"\midrule":
        units = [reader.text(tex)[1:-1] for tex in _cells(reader, texts + numbers)[texts:]]
    reader.exactly(r"\midrule")
    return heads, tuple(LatexColumn(*name, unit) for name, unit in zip(named, units, strict=True))


def _raw_cell(reader: _Reader, tex: str) -> str | int:
    """The text, without its mark; for a missing one the number of its reason."""
    missing = _MISSING.fullmatch(tex)
    if missing:
        return int(missing[1])
    for command in _MARKED.values():
        if tex.startswith(command) and tex.endswith("}"):
            tex = tex[len(command) : -1]
    return reader.text(tex)


def _resolved(reader: _Reader, cell: str | int, reasons: Sequence[str]) -> Cell:
    if isinstance(cell, str):
        return Cell(cell)
    if not 1 <= cell <= len(reasons):
        raise reader.fault(f"there is no footnote {cell} in the table above", back=1)
    return Cell(None, reasons[cell - 1])


def _read_notes(reader: _Reader) -> tuple[tuple[tuple[str, str], ...], list[str]]:
    notes, reasons = [], []
    if reader.peek() != _NOTES:
        return (), []
    reader.exactly(_NOTES)
    while reader.peek().startswith(r"\textit{"):
        name, sign, text = reader.between(r"\textit{", r"\par").partition(":} ")
        if not sign:
            raise reader.fault("a note without a name", back=1)
        notes.append((reader.text(name), reader.text(text)))
    while reader.peek() != "}":
        mark = rf"\textsuperscript{{{len(reasons) + 1}}} "
        reasons.append(reader.text(reader.between(mark, r"\par")))
    reader.exactly("}")
    return tuple(notes), reasons
