"""Runs side by side: what may share a column, what is best, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from markdown_it import MarkdownIt
from talkforge.core.errors import ConfigError
from talkforge.reports.comparison import (
    comparison_model,
    relative_href,
)
from talkforge.reports.comparison_facts import Reference, RunFacts
from talkforge.tests.reports.demo import INJECTION, demo_comparison, html_of, markdown_of, result, results
from talkforge.tests.reports.page import Page

FVD, SYNC = "fvd:i3d-k400-16f", "av_sync:mouth-envelope"


def runs_of(*entries: dict[str, Any]) -> list[dict[str, Any]]:
    """Runs A, B, C... which all carry the metric `m:v`."""
    return [results("ABCDEF"[k], m__v=entry) for k, entry in enumerate(entries)]


def test_the_best_is_marked_by_the_direction_of_the_metric() -> None:
    model = comparison_model(*demo_comparison())
    best = {table.metric_id: [row.method for row in table.rows if row.cell.best] for table in model.columns}
    assert best[FVD] == ["StyleTalk"]  # lowest of 412, 517, 389, 471
    assert best[SYNC] == ["Wav2Lip"]  # highest of 0.58, 0.45, 0.61, 0.70
    assert best["fvd:i3d-k400-full"] == []
    order = {table.metric_id: [row.method for row in table.rows] for table in model.columns}
    assert order[FVD] == ["StyleTalk", "EDTalk", "Wav2Lip", "SadTalker"]
    assert order[SYNC] == ["Wav2Lip", "StyleTalk", "EDTalk", "SadTalker"]
    assert order["fd:mobilenet-v2"][-1] == "Wav2Lip"  # no number: last, never the best


def test_where_the_real_clips_are_best_the_nearest_to_their_level_is() -> None:
    """Less than the real clips have is no better than more: a still mouth is not the steadiest one."""
    level = {"best_is_real": True, "real_vs_real": 0.32}
    runs = runs_of(result(0.13, None, **level), result(0.37, None, **level), result(0.30, None, **level))
    (table,) = comparison_model(runs, {}).columns
    assert [row.method for row in table.rows] == ["C", "B", "A"]
    assert [row.method for row in table.rows if row.cell.best] == ["C"]
    assert table.arrow == "≈" and table.direction == "best is the real clips' level"


def test_ties_are_both_best_and_a_lone_number_is_not() -> None:
    (table,) = comparison_model(runs_of(result(2.0, None), result(2.0, None), result(3.0, None)), {}).columns
    assert [row.cell.best for row in table.rows] == [True, True, False]
    (table,) = comparison_model(runs_of(result(2.0, None), result(None, None, reason="no_face")), {}).columns
    assert [row.cell.best for row in table.rows] == [False, False]


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"protocol": {"crop": "none", "fps": 25}}, "protocol.crop: face (A, C); none (B)"),
        ({"protocol": {"crop": "face"}}, "protocol.fps: 25 (A, C); absent (B)"),
        ({"weights": {"net": "ab12"}}, "weights.net: absent (A, C); ab12 (B)"),
        ({"unit": "px"}, "unit:  (A, C); px (B)"),
        ({"higher_is_better": True}, "higher_is_better: no (A, C); yes (B)"),
        ({"best_is_real": True}, "best_is_real: no (A, C); yes (B)"),
        ({"version": 2}, "version: none (A, C); 2 (B)"),
        (
            {"protocol": {"crop": "face", "fps": 25, "extractors": {"net": {"version": 2}}}},
            "protocol.extractors.net.version: absent (A, C); 2 (B)",
        ),
    ],
)
def test_numbers_measured_differently_never_share_a_table(change: dict[str, Any], difference: str) -> None:
    runs = runs_of(result(3.0, [2.0, 4.0]), result(1.0, [0.5, 2.0]) | change, result(2.0, [1.0, 3.0]))
    model = comparison_model(runs, {})
    assert model.columns == []
    (split,) = model.split
    assert [[row.method for row in table.rows] for table in split.tables] == [["C", "A"], ["B"]]
    assert difference in split.differences
    assert [row.cell.best for table in split.tables for row in table.rows] == [True, False, False]
    assert "m:v was measured in 2 different ways" in model.notes[0]
    for text in (html_of(runs, {}), markdown_of(runs, {}).replace("\\", "")):
        assert difference in text


CLIPS = Reference(frozenset(["x", "y"]), "ab" * 32)


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (Reference(frozenset(["x", "z"]), "cd" * 32), "not in all runs: z (B)"),
        (Reference(frozenset(["x", "y"]), "cd" * 32), "B: 2 real clips, sha256 cdcdcdcdcdcd"),
        (Reference(frozenset(["x", "y"]), "cd" * 32), "clips of the same names are not the same files"),
        (Reference(frozenset(["x", "y"])), "B: 2 real clips, known by their names alone"),
        (Reference(frozenset(["x", "y"]), real=False), "B: 2 clips without real ones"),
        (Reference(), "B: real clips: not recorded"),
    ],
)
def test_runs_over_other_real_clips_never_share_a_table(other: Reference, difference: str) -> None:
    runs = runs_of(result(3.0, None), result(1.0, None), result(2.0, None))
    facts = {"A": RunFacts(CLIPS), "B": RunFacts(other), "C": RunFacts(CLIPS)}
    model = comparison_model(runs, {}, facts)
    assert [[run.method for run in board.runs] for board in model.boards] == [["A", "C"], ["B"]]
    assert [[row.method for row in table.rows] for table in model.columns] == [["C", "A"], ["B"]]
    assert [row.cell.best for table in model.columns for row in table.rows] == [True, False, False]
    assert "The runs are about different real clips" in model.notes[0]
    page, text = html_of(runs, {}, facts), markdown_of(runs, {}, facts)
    assert all(any(difference in line for line in lines) for lines in (model.parted, [page], [text.replace("\\", "")]))
    assert len(Page(page).all("table", class_="matrix")) == 2


def test_clips_without_real_ones_are_not_the_real_clips_of_these_names() -> None:
    facts = {"A": RunFacts(Reference(frozenset("xy"))), "B": RunFacts(Reference(frozenset("xy"), real=False))}
    model = comparison_model(runs_of(result(3.0, None), result(1.0, None)), {}, facts)
    assert len(model.boards) == 2 and "B: 2 clips without real ones" in model.parted


def test_clips_that_are_known_by_their_names_alone_are_warned_of() -> None:
    facts = {method: RunFacts(Reference(frozenset("xy"))) for method in "AB"}
    model = comparison_model(runs_of(result(3.0, None), result(1.0, None)), {}, facts)
    assert len(model.boards) == 1 and not model.parted
    assert model.notes == ["The real clips of A, B could not be read again: they are alike by their names alone."]


def test_runs_by_other_versions_are_pointed_out() -> None:
    runs = runs_of(result(3.0, None), result(1.0, None))
    runs[1]["talkforge_version"] = "0.2.0"
    assert "different versions of TalkForge (0.1.0, 0.2.0)" in comparison_model(runs, {}).notes[0]


def test_coverage_is_that_of_the_worst_and_the_best_metric() -> None:
    """Metrics without weights do not count: no clip is to blame for these."""
    some = result(1.0, None, n_scored=5, n_attempted=7)
    most = result(1.0, None, n_scored=7, n_attempted=7)
    none = result(None, None, n_scored=0, n_attempted=7, reason="weights_missing")
    run = results("A", m__v=some, n__v=most, o__v=none)
    (row,) = comparison_model([run], {}).runs
    assert (row.coverage.text, row.coverage.share) == ("5–7/7", 5 / 7)
    (row,) = comparison_model([results("A", m__v=none)], {}).runs
    assert row.coverage.text == "0/0" and row.coverage.share == 0


def test_a_run_without_a_number_does_not_split_a_column() -> None:
    missing = result(None, None, reason="weights_missing", weights={}, n_scored=0)
    model = comparison_model(runs_of(result(3.0, None, weights={"net": "ab"}), missing), {})
    assert not model.split
    (table,) = model.columns
    assert [(row.method, row.cell.text) for row in table.rows] == [("A", "3"), ("B", "—")]


def test_a_run_without_a_number_keeps_its_reason_beside_split_tables() -> None:
    missing = result(None, None, reason="weights_missing", weights={})
    runs = runs_of(result(3.0, None, weights={"net": "ab"}), result(2.0, None, weights={"net": "cd"}), missing)
    (split,) = comparison_model(runs, {}).split
    assert [[row.method for row in table.rows] for table in split.tables] == [["A"], ["B", "C"]]
    assert split.differences == ["weights.net: ab (A); cd (B)"]


def test_a_metric_that_a_run_lacks_is_a_dash_with_words() -> None:
    page = Page(html_of(*demo_comparison()))
    row = next(e for e in page.all("tr") if "matrix" not in e.attributes and e.text.split()[:1] == ["SadTalker"])
    assert "not part of this run" in row.text


def test_real_against_real_is_one_figure_or_a_range() -> None:
    same = runs_of(result(3.0, None, real_vs_real=0.5), result(4.0, None, real_vs_real=0.5))
    apart = runs_of(result(3.0, None, real_vs_real=0.7), result(4.0, None, real_vs_real=0.5), result(5.0, None))
    assert comparison_model(same, {}).columns[0].reference == "0.5"
    assert comparison_model(apart, {}).columns[0].reference == "0.5 to 0.7"
    assert comparison_model(runs_of(result(3.0, None)), {}).columns[0].reference == "—"


def test_a_unit_stands_once_in_the_head_of_its_column() -> None:
    runs = runs_of(result(3.0, None, unit="px", real_vs_real=0.7), result(4.0, None, unit="px", real_vs_real=0.5))
    page = Page(html_of(runs, {}))
    assert [cell.text for cell in page.all("td", class_="num") if "px" in cell.text] == []
    assert sum("px" in head.text.split() for head in page.all("th", title="m:v")) == 1
    assert any("px" in head.text.split() for head in page.all("h3"))
    assert comparison_model(runs, {}).columns[0].reference == "0.5 to 0.7 px"
    plain = Page(html_of(runs_of(result(3.0, None, unit="1")), {}))
    assert not plain.all("span", class_="unit")


def test_intervals_share_the_axis_of_their_table() -> None:
    runs = runs_of(result(10.0, [0.0, 20.0], real_vs_real=5.0), result(40.0, [20.0, 100.0], real_vs_real=5.0))
    (table,) = comparison_model(runs, {}).columns
    first, second = (row.plot for row in table.rows)
    assert first and second
    assert first.high == second.low  # both are 20
    assert first.reference == second.reference
    zero, hundred = first.low, second.high
    assert zero is not None and hundred is not None
    assert first.value == pytest.approx(zero + (hundred - zero) * 0.1, abs=0.02)
    for place, label in table.ticks:
        assert place == pytest.approx(zero + (hundred - zero) * float(label) / 100, abs=0.02)


def test_different_numbers_of_clips_are_pointed_out() -> None:
    model = comparison_model(runs_of(result(1.0, None, n_attempted=12), result(1.0, None, n_attempted=40)), {})
    assert model.notes == ["The runs attempted different numbers of clips (A 12, B 40)."]


def test_links_lead_to_the_runs() -> None:
    runs, links = demo_comparison()
    anchors = {e.text: e.attributes["href"] for e in Page(html_of(runs, links)).all("a") if e.text in links}
    assert anchors == {method: href.replace(" ", "%20") for method, href in links.items()}
    page = Page(MarkdownIt("commonmark").enable("table").render(markdown_of(runs, links)))
    assert {(e.text, e.attributes["href"]) for e in page.all("a")} == set(anchors.items())


@pytest.mark.parametrize(
    "href", ["javascript:alert(1)", "https://host/x", "//host/x", "/etc/passwd", "JAVASCRIPT:x", "java\tscript:x"]
)
def test_a_link_that_is_not_relative_is_refused(href: str) -> None:
    with pytest.raises(ConfigError, match="not relative"):
        relative_href(href)


def test_an_odd_relative_link_stays_a_path() -> None:
    assert relative_href('a b/"><x>/report.html') == "a%20b/%22%3E%3Cx%3E/report.html"


def test_two_runs_of_one_name_and_no_runs_are_refused() -> None:
    run = results("A", m__v=result(1.0, None))
    with pytest.raises(ConfigError, match="two runs carry the method name 'A'"):
        html_of([run, run], {})
    with pytest.raises(ConfigError, match="no runs"):
        markdown_of([], {})
    with pytest.raises(ConfigError, match="missing ci95"):
        html_of([results("A", m__v={k: v for k, v in result(1.0, None).items() if k != "ci95"})], {})


def test_a_method_named_like_markup_stays_text() -> None:
    runs, _ = demo_comparison(split=True)
    runs[0]["method"] = INJECTION
    plain, _ = demo_comparison(split=True)
    page, other = Page(html_of(runs, {})), Page(html_of(plain, {}))
    assert page.skeleton() == other.skeleton()
    assert not page.all("img") and INJECTION in page.all("table", class_="matrix")[0].text
    shown = Page(MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown_of(runs, {})))
    assert not shown.all("img") and INJECTION in [e.text for e in shown.all("td")]
