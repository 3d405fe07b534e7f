"""LaTeX tables: read back they equal what was written, and nothing else is read."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from talkforge.core.errors import InputError
from talkforge.reports.latex import (
    LatexColumn,
    LatexRow,
    LatexTable,
    escape,
    marks,
    parse_latex,
    unescape,
    write_latex,
)
from talkforge.reports.published import FOLDER, PROTOCOL, Cell, PublishedTable, load_published
from talkforge.reports.published_page import published_latex_table, render_published_latex
from talkforge.tests.reports.demo import INJECTION

SMALL = LatexTable(
    label="small",
    caption="50% of A & B",
    heads=("Method",),
    columns=(LatexColumn("FID", False), LatexColumn("Votes", True, "%")),
    rows=(
        LatexRow((Cell("EAMM_2"),), (Cell("9.50"), Cell("0"))),
        LatexRow((Cell("SadTalker"),), (Cell("10.25"), Cell(None, "nobody was asked"))),
        LatexRow((Cell("Ours"),), (Cell("9.5"), Cell("25"))),
    ),
    notes=(("Test set", "HDTF"),),
)
TEX = r"""% Tables by TalkForge. They need \usepackage{booktabs} and, for check marks, \usepackage{amssymb}.

\begin{table}[htbp]
\centering\small
\caption{50\% of A \& B}
\label{tab:small}
\begin{tabular}{lrr}
\toprule
Method & FID $\downarrow$ & Votes $\uparrow$ \\
 &  & (\%) \\
\midrule
EAMM\_2 & \textbf{9.50} & \underline{0} \\
SadTalker & \underline{10.25} & --\textsuperscript{1} \\
Ours & \textbf{9.5} & \textbf{25} \\
\bottomrule
\end{tabular}
\par\smallskip\parbox{\linewidth}{\footnotesize
\textit{Test set:} HDTF\par
\textsuperscript{1} nobody was asked\par
}
\end{table}
"""


@pytest.fixture(scope="module")
def published() -> list[PublishedTable]:
    return load_published()


def raw_tables() -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """(file, table) by table id, straight from YAML."""
    files = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(Path(FOLDER).glob("*.yaml"))]
    return {table["id"]: (file, table) for file in files for table in file["tables"]}


def raw_heads(table: dict[str, Any]) -> list[str]:
    condition = [] if "no_condition" in table else ["Condition"]
    return [table.get("row_header", "Method"), *condition, *table.get("labels", [])]


def raw_texts(table: dict[str, Any]) -> list[list[str | None]]:
    keys = [] if "no_condition" in table else ["condition"]
    return [
        [row.get("printed", row["method"]), *(row[key] for key in keys), *row.get("labels", {}).values()]
        for row in table["rows"]
    ]


def test_what_is_written() -> None:
    assert write_latex([SMALL]) == TEX
    assert parse_latex(TEX) == [SMALL]


def test_all_published_tables_come_back_equal(published: list[PublishedTable]) -> None:
    tables = [published_latex_table(table) for table in published]
    assert len(tables) == 11
    assert parse_latex(render_published_latex(published)) == tables


def test_what_comes_back_is_what_the_yaml_says(published: list[PublishedTable]) -> None:
    """The same round trip without the loader: LaTeX text against the YAML's own strings."""
    raw = raw_tables()
    parsed = {table.label: table for table in parse_latex(render_published_latex(published))}
    assert parsed.keys() == raw.keys()
    for name, (file, table) in raw.items():
        found, columns = parsed[name], [file["columns"][key] for key in table["columns"]]
        assert [[cell.text for cell in row.cells] for row in found.rows] == [r["cells"].split() for r in table["rows"]]
        assert [[cell.text for cell in row.labels] for row in found.rows] == raw_texts(table)
        assert list(found.heads) == raw_heads(table)
        assert found.columns == tuple(
            LatexColumn(c["title"], c["higher_is_better"], c.get("unit", "")) for c in columns
        )
        facts = dict(found.notes)
        assert found.caption == table["caption"]
        assert file["source"]["title"] in facts["Source"]
        assert facts.get("Condition", "— None") == f"— {table.get('no_condition')}"
        assert (facts["Test set"], facts["Protocol"]) == (table["dataset"] or f"— {table['no_dataset']}", PROTOCOL)


def test_missing_published_cells_keep_their_reason(published: list[PublishedTable]) -> None:
    tex = render_published_latex([table for table in published if table.id == "mf-etalk-1-mead"])
    table = parse_latex(tex)[0]
    assert table.rows[-1].labels == (Cell("Ours"), Cell(None, "the cell is empty"))
    assert r"Ours & --\textsuperscript{1} & \textbf{43.052} & " in tex
    assert r"\textit{Condition:} — the table prints no conditions\par" in tex


NAMES = [
    INJECTION,
    "100% of_a & b #1 $x^2$ ~ {braces}",
    r"\input{/etc/passwd}\end{document}",
    r"a \\ b & c",
    "[1ex] *",
    "-- --- '' ,, `` ?` !`",
    "|<>|",
    "× ✓ ↑ ↓",
    r"\textbf{9}",
    r"--\textsuperscript{1}",
    "  two  blanks ",
    "Zażółć 日本",
    "",
]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_comes_back(name: str) -> None:
    cells = (Cell(name), Cell(None, name or "none"))
    table = replace(
        SMALL,
        caption=name,
        heads=(name,),
        columns=(LatexColumn(name, True, name), LatexColumn("x", False)),
        rows=(LatexRow((Cell(name),), cells), LatexRow((Cell(None, "why"),), cells[::-1])),
        notes=((name, name),),
    )
    tex = write_latex([table, replace(table, label="again")])
    assert parse_latex(tex) == [table, replace(table, label="again")]


@pytest.mark.parametrize("name", NAMES)
def test_no_name_is_markup(name: str) -> None:
    """Nothing is left that TeX would act on, by a list of TeX's special characters and the escapes' own commands."""
    known = r"\\text(?:backslash|ascii(?:tilde|circum|grave)|less|greater|bar)\{\}|\\[&%$#_{}]|\{[\[\]*]?\}"
    rest = re.sub(known + r"|\$\\(?:times|checkmark|uparrow|downarrow)\$", "?", escape(name))
    assert not re.search(r"[\\{}$&#^_%~<>|`\[\]*]|--|''|,,", rest)


def test_random_texts_come_back() -> None:
    rng = random.Random(0)
    alphabet = "ab \\{}$&#%^_~<>|`'-,[]*×✓↑"
    for _ in range(500):
        text = "".join(rng.choices(alphabet, k=rng.randint(0, 12)))
        assert unescape(escape(text)) == text


def test_control_characters_become_visible() -> None:
    assert unescape(escape("a\nb\x00\u202ec")) == r"a b\x00\u202ec"


@pytest.mark.parametrize("tex", ["a & b", "100%", "a_b", r"\alpha", "--", "<", "{", "$x$", r"\textbackslash", "[x]"])
def test_unescaped_text_is_refused(tex: str) -> None:
    with pytest.raises(InputError, match="is not escaped text"):
        unescape(tex)


@pytest.mark.parametrize(
    ("numbers", "higher", "expected"),
    [
        ([1.0, 3.0, 2.0], True, ["", "best", "second"]),
        ([1.0, 3.0, 2.0], False, ["best", "", "second"]),
        ([2.0, 2.0, 1.0, 1.0, 0.0], True, ["best", "best", "second", "second", ""]),
        ([5.0, 5.0], True, ["best", "best"]),
        ([None, 1.0, None, 4.0], False, ["", "best", "", "second"]),
        ([None, 7.0], True, ["", ""]),
        ([], True, []),
    ],
)
def test_marks(numbers: list[float | None], higher: bool, expected: list[str]) -> None:
    assert marks(numbers, higher) == expected


def test_published_bests_are_the_papers() -> None:
    """Bold in a paper's Table 2: Sonic leads all four columns; the second is another method in each."""
    table = next(t for t in load_published() if t.id == "dice-talk-2")
    tex = render_published_latex([table])
    assert r"Sonic & audio & \textbf{157.1348} & \textbf{9.0076} & \textbf{7.7676} & \textbf{7.3520} \\" in tex
    assert re.findall(r"^(\S+) .*?underline", tex, re.MULTILINE) == ["AniPortait", "Hallo", "Hallo2", "EAT"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        # a number that was changed so that the marks no longer fit
        (r"\underline{10.25}", r"\underline{1.25}", "line 12: .* going by the rest of the table"),
        (r"\textbf{9.50}", "9.50", "line 12: "),
        (r"\underline{0}", r"\textbf{0}", "line 12: "),
        # the form
        (r"& \textbf{25} \\", r"\\", "line 14: 2 cells for 3 columns"),
        (r"\toprule", r"\hline", "line 8: expected .*toprule', found .*hline'"),
        (r"$\downarrow$", "", "line 9: a column without an arrow"),
        ("EAMM\\_2", "EAMM_2", "line 12: 'EAMM_2' is not escaped text"),
        ("EAMM\\_2", r"\emph{EAMM}", "line 12: .* is not escaped text"),
        (r"--\textsuperscript{1}", r"--\textsuperscript{2}", "there is no footnote 2"),
        (r"--\textsuperscript{1}", "10", "line 12: "),
        (r"\textsuperscript{1} nobody", r"\textsuperscript{7} nobody", "line 19: expected"),
        (r"\textit{Test set:} HDTF", r"\textit{Test set} HDTF", "line 18: a note without a name"),
        ("{lrr}", "{rlr}", "line 7: "),
        ("(\\%)", "\\%", "line 10: "),
        (r"\label{tab:small}", r"\label{small}", "line 6: "),
        (r"\label{tab:small}", r"\label{tab:a b}", "cannot be a LaTeX label"),
        ("% Tables by", "% Tables of", "line 1: "),
        ("\\end{table}\n", "\\end{table}\n\\input{x}\n", "line 22: "),
        ("\\end{table}\n", "", "line 21: "),
        ("\\end{table}\n", "\\end{table}", "line 22: "),
    ],
)
def test_anything_else_is_refused(old: str, new: str, message: str) -> None:
    assert old in TEX
    with pytest.raises(InputError, match=message):
        parse_latex(TEX.replace(old, new, 1))


def test_a_changed_digit_is_never_read_as_equal(published: list[PublishedTable]) -> None:
    """Each digit of a table's LaTeX, one at a time: refused, or read as another table."""
    table = next(one for one in published if one.id == "mf-etalk-3")
    tex, original = render_published_latex([table]), published_latex_table(table)
    places = [match.start() for match in re.finditer(r"(?<=[\d.&{ ])\d(?=[\d.} ]*)", tex)]
    assert len(places) > 50
    for place in places:
        digit = str((int(tex[place]) + 1) % 10)
        try:
            assert parse_latex(tex[:place] + digit + tex[place + 1 :]) != [original]
        except InputError:
            continue


def test_a_row_of_another_width_is_refused() -> None:
    with pytest.raises(InputError, match="row of another width"):
        write_latex([replace(SMALL, heads=())])


def test_no_tables_are_a_file_too() -> None:
    assert parse_latex(write_latex([])) == []
