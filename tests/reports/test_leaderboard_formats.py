"""The comparison as LaTeX, CSV, JSON, Markdown and page: the same numbers in each, published ones by themselves."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from markdown_it import MarkdownIt
from talkforge.reports.comparison import comparison_model, comparison_page
from talkforge.reports.comparison_facts import Cost, Reference, RunFacts
from talkforge.reports.comparison_layout import ComparisonModel
from talkforge.reports.comparison_markdown import markdown_page
from talkforge.reports.latex import parse_latex, write_latex
from talkforge.reports.leaderboard_data import CSV_HEAD, leaderboard_json, render_leaderboard_csv
from talkforge.reports.leaderboard_latex import LINE, leaderboard_tables, overview_tables, render_leaderboard_latex
from talkforge.reports.leaderboard_published import corresponding
from talkforge.reports.published import PROTOCOL, Cell, PublishedTable, load_published
from talkforge.reports.published_page import published_latex_table
from talkforge.tests.reports.demo import INJECTION, demo_comparison, result, results
from talkforge.tests.reports.made_runs import NAME, hard_clips, made
from talkforge.tests.reports.page import Page

NAMES = [INJECTION, '=1+1"; \\input{x} % $a_b^c$ & ~#', "a\u202eb\x07\udc80", "| *b* [x](y) `c` <!--"]


@pytest.fixture(scope="module")
def published() -> list[PublishedTable]:
    return corresponding(load_published(), {"fvd"})


def demo_model(**options: Any) -> ComparisonModel:
    return comparison_model(*demo_comparison(**options))


def lines(model: ComparisonModel, *published: PublishedTable) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(render_leaderboard_csv(model, published), newline="")))


def level_model() -> ComparisonModel:
    """A metric whose best is the real clips' level beside one that has a direction."""
    level = {"best_is_real": True, "real_vs_real": 0.32, "unit": "px"}
    runs = [results(m, m__v=result(v, None, **level), n__v=result(v, None)) for m, v in (("A", 0.13), ("B", 0.37))]
    return comparison_model(runs, {})


@pytest.mark.parametrize("split", [False, True])
def test_latex_reads_back(published: list[PublishedTable], split: bool) -> None:
    model = demo_model(split=split)
    expected = [*leaderboard_tables(model), *map(published_latex_table, published)]
    assert parse_latex(render_leaderboard_latex(model, published)) == expected
    assert parse_latex(render_leaderboard_latex(level_model())) == leaderboard_tables(level_model())


def test_the_overview_marks_best_and_second_and_has_arrows() -> None:
    overview = write_latex(overview_tables(demo_model().boards[0]))
    assert r"Mouth-speech correlation $\uparrow$" in overview
    tex = next(part for part in overview.split(r"\end{tabular}") if r"FVD, 16 frames $\downarrow$" in part)
    row = {line.split(" & ")[0]: line.split(" & ") for line in tex.split("\n") if " & " in line}
    at = row["Method"].index(r"FVD, 16 frames $\downarrow$")
    assert row["StyleTalk"][at] == r"\textbf{389}" and row["EDTalk"][at] == r"\underline{412}"
    assert row["SadTalker"][at] == "517"
    assert all(rule in tex for rule in (r"\toprule", r"\midrule"))


def test_a_level_has_no_arrow_and_no_mark() -> None:
    table = leaderboard_tables(level_model())[0]
    assert table.heads == ("Method", "Scored", "m:v (best: 0.32)") and [c.title for c in table.columns] == ["n:v"]
    assert [row.labels[2].text for row in table.rows] == ["0.13", "0.37"]


def test_many_metrics_are_cut_to_the_width_of_a_page() -> None:
    names = [f"metric number {k}" for k in range(12)]
    level = {"best_is_real": True, "real_vs_real": 0.32, "unit": "eye distances a frame"}
    values = {f"{name}__v": result(0.5, None, **(level if k % 2 else {})) for k, name in enumerate(names)}
    model = comparison_model([results("A", **values), results("B", **values)], {})
    parts = [table for table in leaderboard_tables(model) if table.label.startswith("board-1-part-")]
    assert len(parts) > 1 and parse_latex(write_latex(parts)) == parts
    shown = [text for part in parts for text in (*part.heads[2:], *(column.title for column in part.columns))]
    assert sorted(text.split(":v")[0] for text in shown) == sorted(names)
    for part in parts:
        titles = [*part.heads, *(f"{column.title} ^" for column in part.columns)]
        assert part.heads[:2] == ("Method", "Scored") and sum(len(title) + 2 for title in titles) <= LINE


def test_csv_has_a_line_a_method_and_metric() -> None:
    model = comparison_model(*_ordered())
    found = lines(model)
    assert [line["method"] for line in found] == ["M0", "M1", "M2"]
    assert tuple(found[0]) == CSV_HEAD
    line, row = found[1], model.columns[0].rows[1]
    entry, standing = row.entry.result, row.standing
    assert standing is not None and standing.above is not None
    assert [float(line[key]) for key in ("value", "ci_low", "ci_high")] == [entry["value"], *entry["ci95"]]
    assert (line["metric"], line["kind"], line["board"], line["reference_sha256"]) == (NAME, "measured", "1", "ab" * 32)
    assert [line[key] for key in ("rank", "rank_low", "rank_high", "rank_of", "rank_clips")] == list("2223") + ["20"]
    assert (line["above"], float(line["p_vs_above"])) == ("M0", standing.above.p_value)
    assert (float(line["p_holm"]), line["p_clips"], line["above_established"]) == (standing.above.holm, "20", "True")
    assert (line["n_scored"], line["n_attempted"], line["seconds_per_second"]) == ("20", "20", "2.5")
    assert line["definition_sha256"] == row.entry.digest and line["weights"] == f"net={'cd' * 32}"
    assert found[0]["p_vs_above"] == found[0]["above"] == ""


def _ordered() -> tuple[Any, Any, Any]:
    runs, facts = made(hard_clips(3, 20), cost=Cost(2.5, None, 20), weights={"net": "cd" * 32})
    return runs, {}, facts


def test_json_holds_what_the_csv_holds(published: list[PublishedTable]) -> None:
    model = comparison_model(*_ordered())
    data = json.loads(json.dumps(leaderboard_json(model, published), allow_nan=False))
    (board,) = data["boards"]
    assert board["reference"] == {"clips": [f"c{k:02d}" for k in range(20)], "sha256": "ab" * 32}
    for row, line in zip(board["tables"][0]["rows"], lines(model), strict=True):
        assert (row["method"], repr(row["value"])) == (line["method"], line["value"])
        standing = row["standing"]
        assert [str(standing[key]) for key in ("low", "high", "best")] == [
            line[key] for key in ("rank_low", "rank_high", "p_best")
        ]
        assert str((standing["above"] or {}).get("p_value") or "") == line["p_vs_above"]
    assert board["runs"][0]["cost"] == {"value": 2.5, "reason": None, "videos": 20}
    assert {one["id"] for one in data["published"]["tables"]} == {table.id for table in published}


def test_missing_is_empty_with_its_reason() -> None:
    found = [line for line in lines(demo_model()) if (line["method"], line["metric"]) == ("Wav2Lip", "fd:mobilenet-v2")]
    assert [(line["value"], line["ci_low"], line["rank"], line["reason"]) for line in found] == [
        ("", "", "", "too_few_samples")
    ]


def test_published_numbers_stand_by_themselves(published: list[PublishedTable]) -> None:
    """Other columns are cut off; no line of theirs has a rank, and no measured table holds one of their methods."""
    assert published and all({c.metric for c in table.columns.values()} == {"fvd"} for table in published)
    model = demo_model()
    theirs = [line for line in lines(model, *published) if line["kind"] == PROTOCOL]
    assert len(theirs) == sum(len(table.rows) for table in published)
    assert not any(line["rank"] or line["p_holm"] or line["board"] for line in theirs)
    page = Page(comparison_page(model, published))
    tables = page.all("table", class_="matrix")
    assert len(tables) == 1 + len(published) == 1 + len(page.all("details", class_="published"))
    names = {row.printed for table in published for row in table.rows} - {run.method for run in model.runs}
    assert names and not any(name in tables[0].text for name in names)
    assert "details" in tables[1].parents and "details" not in tables[0].parents
    assert PROTOCOL.capitalize() in markdown_page(model, published)
    assert "Published" not in comparison_page(model) and "published" not in markdown_page(model).lower()


def test_a_substitute_network_has_no_published_numbers() -> None:
    assert corresponding(load_published(), {"fd"}) == []
    families = {"fid", "lse_c", "e_fid"}
    tables = corresponding(load_published(), families)
    assert {column.metric for table in tables for column in table.columns.values()} == families


def everything_named(name: str) -> tuple[Any, Any, Any]:
    """A method, its metric's title, a protocol, weights and a clip of that name."""
    title = {"title": name, "protocol": {name: name}, "weights": {name: "ab"}}
    runs = [results(name, m__v=result(1.0, [0, 2], **title)), results("B", m__v=result(None, None, reason=name))]
    facts = RunFacts(Reference(frozenset([name])), cost=Cost(None, name))
    return runs, {}, {name: facts, "B": facts}


@pytest.mark.parametrize("name", NAMES)
def test_no_name_becomes_markup(name: str, published: list[PublishedTable]) -> None:
    bad, good = (comparison_model(*everything_named(text)) for text in (name, "harmless"))
    pages = [Page(comparison_page(model)) for model in (bad, good)]
    assert pages[0].skeleton() == pages[1].skeleton() and not pages[0].all("img")
    shown = [Page(MarkdownIt("commonmark").enable("table").render(markdown_page(model))) for model in (bad, good)]
    assert shown[0].skeleton() == shown[1].skeleton()
    tex = render_leaderboard_latex(bad)
    plain = [table.rows[0].labels[0] for table in parse_latex(tex)]
    assert plain == [Cell(_visible(name))] * 2 and r"\input" not in tex and "<img" not in tex
    found = lines(bad)
    assert [line["method"] for line in found] == [_visible(name), "B"] and len(found[0]) == len(CSV_HEAD)
    json.dumps(leaderboard_json(bad), ensure_ascii=False).encode()  # UTF-8 can hold it
    for text in (comparison_page(bad), markdown_page(bad), tex, render_leaderboard_csv(bad)):
        text.encode()


def _visible(name: str) -> str:
    return {NAMES[2]: "a\\u202eb\\x07\\udc80"}.get(name, name)


def test_a_page_of_many_methods_stays_small() -> None:
    """14 methods over 200 clips under 15 metrics: nothing on it grows with the clips."""
    runs, facts = made(hard_clips(14, 200))
    for run in runs:
        run["results"] = {f"m{k}:v": run["results"][NAME] for k in range(15)}
    few, few_facts = made(hard_clips(14, 20))
    for run in few:
        run["results"] = {f"m{k}:v": run["results"][NAME] for k in range(15)}
    page, small = (comparison_page(comparison_model(r, {}, f)) for r, f in ((runs, facts), (few, few_facts)))
    assert len(page.encode()) < 500_000 and len(Page(page).elements) < 9_000
    assert abs(len(page) - len(small)) < 0.02 * len(page)
