"""The table of differences: what it prints, what it says of missing ones, and that the other run's name is text."""

from __future__ import annotations

from typing import Any

import pytest
from talkforge.reports.against import against_lines, against_model, p_text, signed
from talkforge.reports.html import render_html
from talkforge.reports.markdown import render_markdown
from talkforge.reports.view import RunView
from talkforge.tests.reports.demo import INJECTION, result, results
from talkforge.tests.reports.page import Page


def gap(difference: float | None, **fields: Any) -> dict[str, Any]:
    entry = {"ci95": None, "p_value": None, "n_common": 9, "verdict": None, "value": None, "other": None}
    return entry | {"difference": difference, "reason": None, "message": ""} | fields


def compared(name: str = "other") -> dict[str, Any]:
    data = results("mine", a__v=result(3.0, [2.0, 4.0], unit="dB"), b__v=result(1.0, None), c__v=result(None, None))
    told = gap(-1.25, ci95=[-2.0, -0.5], p_value=0.012, verdict="better", value=3.0, other=4.25)
    gaps = {"a:v": told, "b:v": gap(2.0, n_common=1, verdict="not established", value=3.0, other=1.0)}
    gaps["c:v"] = gap(None, reason="no_common_clips", message="none", n_common=0)
    return data | {"against": {"run": name, "folder": "f", "created": "", "results": gaps}}


def test_a_run_alone_has_no_table() -> None:
    assert against_model(results("mine", a__v=result(3.0, [2.0, 4.0]))) is None
    assert against_lines(results("mine")) == []
    assert "Against" not in render_html(RunView(results("mine")))


def test_a_difference_shows_sign_interval_p_and_where_zero_is() -> None:
    row = against_model(compared()).rows[0]
    assert (row.text, row.interval, row.p_value, row.verdict) == ("-1.25 dB", "[-2.00, -0.50]", "0.012", "better")
    assert (row.values, row.count, row.arrow) == ("3.00 − 4.25", "9", "↓")
    assert row.plot.low < row.plot.value < row.plot.high < row.plot.reference


def test_the_terminal_has_a_line_a_metric() -> None:
    head, *lines = against_lines(compared())
    assert head == "against other:"
    assert lines[0].split() == ["a:v", "↓", "-1.25", "dB", "[-2.00,", "-0.50]", "p", "0.012,", "n", "9:", "better"]
    assert lines[1].split() == ["b:v", "↓", "+2", "—", "p", "—,", "n", "1:", "not", "established"]
    assert lines[2].split() == ["c:v", "—", "no_common_clips:", "none"]


def test_both_reports_hold_the_same_rows() -> None:
    page = Page(render_html(RunView(compared())))
    rows = [" ".join(row.text.split()) for row in page.all("tr")]
    assert any("-1.25 dB [-2.00, -0.50] 0.012 9 better" in row for row in rows)
    assert any("c:v — no_common_clips: none" in row for row in rows)
    text = render_markdown(RunView(compared()))
    assert "| **-1.25 dB** | \\[-2.00, -0.50\\] | 0.012 | 9 | better |" in text
    assert "— no\\_common\\_clips: none" in text


def test_the_other_runs_name_is_text() -> None:
    page = Page(render_html(RunView(compared(INJECTION))))
    assert any(INJECTION in heading.text for heading in page.all("h2"))
    assert not [e for e in page.all("img") if e.attributes.get("src") == "x"]
    assert "<img" not in render_markdown(RunView(compared(INJECTION)))


@pytest.mark.parametrize(("number", "shown"), [("1.2 dB", "+1.2 dB"), ("-1", "-1"), ("0.00", "0.00"), ("0 m2", "0 m2")])
def test_what_rounds_to_nothing_has_no_sign(number: str, shown: str) -> None:
    assert signed(number) == shown


def test_small_p_values_are_not_rounded_to_nothing() -> None:
    assert [p_text(p) for p in (None, 1.0, 0.0312, 0.0004)] == ["—", "1.000", "0.031", "< 0.001"]
