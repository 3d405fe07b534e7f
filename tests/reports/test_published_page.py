"""The published tables as a page, Markdown, CSV and JSON: same numbers, sources beside them, no text as markup."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest
from markdown_it import MarkdownIt
from talkforge.reports.published import PROTOCOL, Cell, PublishedTable, load_published
from talkforge.reports.published_page import (
    published_json,
    render_published_csv,
    render_published_html,
    render_published_latex,
    render_published_markdown,
)
from talkforge.tests.reports.demo import INJECTION
from talkforge.tests.reports.page import Page


@pytest.fixture(scope="module")
def tables() -> list[PublishedTable]:
    return load_published()


def printed(tables: list[PublishedTable]) -> list[list[list[str | None]]]:
    """The printed cells of each table."""
    return [[[cell.text for cell in row.cells.values()] for row in table.rows] for table in tables]


def hostile(tables: list[PublishedTable], name: str) -> list[PublishedTable]:
    """The first table with hostile text wherever there can be text."""
    first = tables[0]
    row = replace(first.rows[0], printed=name, method=f"{name}2", condition=Cell(None, name))
    cell = {**first.rows[1].cells, "fvd": Cell(None, name)}
    rows = (row, replace(first.rows[1], cells=cell), *first.rows[2:])
    source = first.source.model_copy(update={"title": name, "authors": (name,), "stated": name})
    return [replace(first, rows=rows, source=source, caption=name, dataset=Cell(name), notes=(name,), findings=(name,))]


def test_the_page_shows_every_number_as_printed(tables: list[PublishedTable]) -> None:
    page = Page(render_published_html(tables))
    values = [element.text for element in page.all("span", class_="value")]
    expected = [text for table in printed(tables) for row in table for text in row]
    assert [value.removesuffix(" (best)") for value in values] == expected
    assert len(page.all("table")) == 11
    assert len(page.all("li")) == 30  # methods that two papers give different numbers
    facts = [element.text for element in page.all("dd")]
    assert facts.count(PROTOCOL) == 11


def test_the_best_of_a_column_is_bold(tables: list[PublishedTable]) -> None:
    page = Page(render_published_html([table for table in tables if table.id == "dice-talk-1-ood"]))
    bold = [element.text for element in page.all("strong")]
    assert bold == ["0.5527", "0.5276", "0.7237", "6.9257", "7.3133"]


def test_markdown_has_the_same_cells(tables: list[PublishedTable]) -> None:
    html = MarkdownIt("commonmark").enable("table").render(render_published_markdown(tables))
    page = Page(html)
    assert len(page.all("table")) == 11
    cells = [element.text for element in page.all("td", style="text-align:right")]
    assert cells == [text for table in printed(tables) for row in table for text in row]


def test_csv_has_a_line_a_cell(tables: list[PublishedTable]) -> None:
    lines = list(csv.DictReader(io.StringIO(render_published_csv(tables))))
    assert len(lines) == 508
    assert {line["protocol"] for line in lines} == {PROTOCOL}
    found = {(line["table"], line["printed_as"], line["column"]): line for line in lines}
    line = found["dice-talk-1-mead", "Ours-P", "FVD"]
    assert (line["text"], float(line["value"]), line["metric"]) == ("377.0500", 377.05, "fvd")
    assert (line["method"], line["condition"], line["higher_is_better"]) == ("DICE-Talk-P", "audio+prompt", "False")


def test_json_has_null_with_a_reason_and_the_source(tables: list[PublishedTable]) -> None:
    data = json.loads(json.dumps(published_json(tables), allow_nan=False))
    assert data["protocol"] == PROTOCOL
    table = next(one for one in data["tables"] if one["id"] == "mf-etalk-1-mead")
    ours = table["rows"][-1]
    assert ours["labels"]["Years"] == {"text": None, "reason": "the cell is empty"}
    assert ours["values"]["fid"] == {"text": "43.052", "value": 43.052, "reason": None}
    assert (ours["published"], ours["method"], ours["printed"]) == (True, "MF-ETalk", "Ours")
    assert table["source"]["doi"] == "10.3390/electronics14132684"
    assert table["columns"]["fid"]["higher_is_better"] is False


@pytest.mark.parametrize("name", [INJECTION, "100% of_a & *b* | [c](d) `e` $f$"])
def test_no_text_becomes_markup(tables: list[PublishedTable], name: str) -> None:
    bad, good = hostile(tables, name), hostile(tables, "harmless")
    page = Page(render_published_html(bad))
    assert page.skeleton() == Page(render_published_html(good)).skeleton()
    assert any(element.text == name for element in page.all("bdi"))
    rendered = [
        Page(MarkdownIt("commonmark").enable("table").render(render_published_markdown(one))) for one in (bad, good)
    ]
    assert rendered[0].skeleton() == rendered[1].skeleton()
    assert any(element.text == name for element in rendered[0].all("td"))
    assert "<img" not in render_published_latex(bad)
    assert any(line["printed_as"] == name for line in csv.DictReader(io.StringIO(render_published_csv(bad))))


def test_a_missing_number_is_a_dash_with_its_reason(tables: list[PublishedTable]) -> None:
    html = Page(render_published_html(hostile(tables, "nobody knows")))
    assert "nobody knows" in [element.text for element in html.all("span", class_="reason")]
    assert "| — nobody knows |" in render_published_markdown(hostile(tables, "nobody knows"))
