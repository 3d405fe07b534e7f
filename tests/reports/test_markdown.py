"""The Markdown twin, read back with an independent CommonMark parser (markdown-it)."""

from __future__ import annotations

import pytest
from markdown_it import MarkdownIt
from talkforge.reports.formatting import printable
from talkforge.reports.markdown import MarkdownPage, code, escape, link, render_markdown
from talkforge.tests.reports.demo import INJECTION, demo_results, demo_run
from talkforge.tests.reports.page import Page
from talkforge.tests.reports.test_html import PAYLOADS, hostile_run

NASTY = [
    *PAYLOADS,
    "a|b", "a\\|b", "`code`", "``x", "[text](http://host/x)", "![x](y)", "**bold** _it_ ~~no~~", "# head", "- item",
    "+ item", "1. one", "2) two", "---", "===", "> quote", "<!-- c -->", "&lt;b&gt;", "\\", "\\\\*x*", "https://host/",
    "www.host.org", "a@b.org", "-3.2", "line\nbreak | cell", "| a | b |", "*", "_", "[ref]: x", "    indented",
]  # fmt: skip


def render(markdown: str) -> str:
    return MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(markdown)


@pytest.mark.parametrize("text", NASTY)
def test_escaped_text_renders_as_itself_everywhere(text: str) -> None:
    page = MarkdownPage(escape(text))
    page.text(escape(text))
    page.bullets([escape(text)])
    page.table(["Head", escape(text)], [[escape(text), "end"]])
    shown = Page(render(page.render()))
    expected = printable(text).strip()
    for tag in ("h1", "p", "li", "td"):
        assert shown.all(tag)[0].text == expected, tag
    assert [cell.text for cell in shown.all("td")] == [expected, "end"]
    assert {e.tag for e in shown.elements} == {"h1", "p", "ul", "li", "table", "thead", "tbody", "tr", "th", "td"}


@pytest.mark.parametrize("text", ["https://host/x", "see www.host.org", "a@b.org"])
def test_no_address_becomes_a_link(text: str) -> None:
    assert not any(start in escape(text) for start in ("://", "www.", "@"))


def test_only_identifiers_become_code_spans() -> None:
    assert code("fvd:i3d-k400-16f") == "`fvd:i3d-k400-16f`"
    assert Page(render(code("a` <b>` |"))).all("p")[0].text == "a` <b>` |"


def test_a_link_keeps_a_hostile_name_as_its_text() -> None:
    (anchor,) = Page(render(link("](x) <i>", "a%20b/report.html"))).all("a")
    assert (anchor.text, anchor.attributes["href"]) == ("](x) <i>", "a%20b/report.html")
    assert link("name", None) == "name"


def test_the_report_holds_the_numbers_and_the_reasons() -> None:
    page = Page(render(render_markdown(demo_run())))
    assert "12 clips attempted, 9 scored, 3 rejected." in [p.text for p in page.all("p")]
    rows = ["|".join(line.split("\n")) for line in (e.text.strip() for e in page.all("tr"))]
    assert any(r.startswith("FVD, 16 frames ↓|fvd:i3d-k400-16f|412|[355, 486]|9/12|149|yes: Window") for r in rows)
    assert any("|— weights_missing: get them with: talkforge weights pull syncnet_v2|—|0/12|—|no" in r for r in rows)
    assert any(r.startswith("no_face|track|1|mead/W015") for r in rows)
    text = "".join(e.text for e in page.all("li"))
    assert all(d in text for m in demo_results()["results"].values() for d in m["weights"].values())


def test_every_table_row_has_the_columns_of_its_head() -> None:
    for block in render_markdown(hostile_run("a|b\\|`c`")).split("\n\n"):
        if block.startswith("|"):
            counts = {line.replace("\\|", "").count("|") for line in block.splitlines()}
            assert len(counts) == 1, block


@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_text_can_change_the_structure_of_the_report(payload: str) -> None:
    plain = Page(render(render_markdown(hostile_run(escape("a word")))))
    hostile = Page(render(render_markdown(hostile_run(payload))))
    spans = {"code"}  # an identifier may be a code span, other text is not
    assert [s for s in hostile.skeleton() if s[0] not in spans] == [s for s in plain.skeleton() if s[0] not in spans]


def test_an_injected_clip_name_stays_text() -> None:
    page = Page(render(render_markdown(demo_run(hostile=True))))
    assert not page.all("img")
    assert INJECTION in [cell.text for cell in page.all("td")]
