"""The page of a dataset build: content, escaping, gaps, no network, and what it says of what is not there."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from typing import Any

import pytest
from talkforge.core.records import Reject
from talkforge.reports.dataset import (
    MOST_REJECTS,
    dataset_page,
    duration,
    filter_model,
    histogram,
    reasons,
    snippets,
    stage_rows,
)
from talkforge.reports.dataset_markdown import dataset_markdown
from talkforge.reports.dataset_view import (
    Column,
    DatasetView,
    Distribution,
    Envelope,
    FilterRow,
    FilterValue,
    Panel,
    SampleClip,
    SplitRow,
    Spread,
    SpreadGroup,
    Stage,
    Tile,
    Work,
)
from talkforge.reports.view import Curve
from talkforge.tests.reports.page import Page

INJECTION = "<img src=x onerror=alert(1)>"
PAYLOADS = [
    INJECTION,
    '"><script>alert(1)</script>',
    "' onmouseover='alert(1)",
    "</style></script></title></svg></pre>{{ 7*7 }}{% raw %}&lt;",
]


def sample_of(text: str, **values: Any) -> SampleClip:
    """A clip of 2 s with a face in all but the frames 20 to 29, every word of it `text`."""
    curve = Curve(text, text, 25.0, [k / 50 if not 20 <= k < 30 else None for k in range(50)])
    given: dict[str, Any] = {
        "clip_id": text,
        "facts": [(text, text)],
        "seconds": 2.0,
        "strip": b"\xff\xd8",
        "tiles": [Tile((k + 0.5) / 3, text) for k in range(6)],
        "notes": [text],
        "sound": Envelope([-0.5, 0.0], [0.25, 0.1], 1.0),
        "level": replace(curve, name=text),
        "panels": [Panel(text, [curve]), Panel(text, [], text)],
        "faceless": [(0.8, 1.2)],
        "filters": [FilterValue(text, 1.0, False, text), FilterValue(text, None, None, text, text)],
    }
    return SampleClip(**given | values)


def view_of(text: str, **values: Any) -> DatasetView:
    """A small build with `text` in every place that takes words."""
    info = {
        **dict.fromkeys(("dataset", "created", "talkforge_version", "digest"), text),
        "environment": {text: {text: text}},
        "counts": {"clips": 3, "rows": 2, "rejects": 1, "left_out_by_limit": 1},
        "notes": [text],
        "extractors": [{"id": text, "version": 1, "what": text, "weights": [text]}],
        "weights": {text: text},
    }
    given: dict[str, Any] = {
        "info": info,
        "splits": {"name": text, "rule": text},
        "identities": 2,
        "seconds": 4.0,
        "rows": [SplitRow("train", 2, 2, 4.0, {text: 2})],
        "distributions": [Distribution(text, text, [1.0, 2.0]), Distribution(text, text, [], text)],
        "samples": [sample_of(text)],
        "rejects": [Reject(text, text, text, text)],
        "filters": [FilterRow(text, [1.0, None], [False, None], 1, text)],
        "spreads": [
            SpreadGroup(text, text, [Spread(text, 90, 10, (0.0, 0.2, 0.5, 0.6, 1.0)), Spread(text, 0, 9, None)])
        ],
        "columns": [Column(text, text, 3, 1), Column("split", "string")],
        "work": Work([Stage(text, 3.0, 2.0)], 4.0, 1, 1, 3.0, {text: 1}),
        "kept": 1,
    }
    return DatasetView(**given | values)


def section(view: DatasetView, name: str) -> str:
    (found,) = Page(dataset_page(view)).all("section", aria_labelledby=name)
    return " ".join(found.text.split())


@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_text_can_change_the_structure_of_the_page(payload: str) -> None:
    plain, hostile = Page(dataset_page(view_of("word"))), Page(dataset_page(view_of(payload)))
    assert hostile.skeleton() == plain.skeleton()
    assert hostile.all("h1")[0].text == payload
    (name,) = hostile.all("span", class_="clip-name")
    assert name.text == payload
    assert {(e.attributes["href"] or "")[:1] for e in hostile.elements if e.tag == "a"} == {"#"}


def test_markdown_holds_the_same_figures_and_no_markup_of_others() -> None:
    text = dataset_markdown(view_of(INJECTION))
    assert "<img" not in text and "&lt;img src=x onerror=alert(1)&gt;" in text
    assert "clips listed: 3, rows: 2, rejected: 1, of video: 4.0 s" in text
    assert "All together would keep 1 of 2 rows." in text
    for code in re.findall(r"```python\n(.*?)```", text, re.S):
        compile(code, "snippet", "exec")


def test_nothing_is_loaded_from_anywhere() -> None:
    html = dataset_page(view_of("word"))
    loading = {"src", "srcset", "href", "data", "action", "poster", "style", "xlink:href"}
    for element in Page(html).elements:
        for name, value in element.attributes.items():
            assert not name.startswith("on")
            if name in loading:
                assert value and re.match(r"#|data:image/jpeg;base64,|data:,$", value), (element.tag, name)
    assert "url(" not in html and "@import" not in html and "://" not in html


def test_the_policy_pins_both_styles_and_the_script() -> None:
    page = Page(dataset_page(view_of("word")))
    (meta,) = page.all("meta", http_equiv="Content-Security-Policy")
    policy = dict(part.strip().split(" ", 1) for part in (meta.attributes["content"] or "").split(";"))
    for tag, count in (("style", 2), ("script", 1)):
        digests = [base64.b64encode(hashlib.sha256(e.text.encode()).digest()).decode() for e in page.all(tag)]
        assert len(digests) == count
        assert policy[f"{tag}-src"] == " ".join(f"'sha256-{digest}'" for digest in digests)


def test_a_gap_stays_a_gap_and_is_shaded_where_it_lies() -> None:
    page = Page(dataset_page(view_of("word")))
    lines = [e.attributes["d"] or "" for e in page.all("path", class_="line0")]
    assert lines and all(path.count("M") == 2 for path in lines)
    shades = page.all("rect", class_="shade")
    assert {(e.attributes["x"], e.attributes["width"]) for e in shades} == {("40.0%", "20.0%")}
    ends = [path.split("M")[1].split("L")[-1].split()[0] for path in lines]
    assert ends == ["380.0"] * len(lines)  # frame 19 of 50 on the box of 1000: the shades begin a frame later


def test_strip_and_curves_share_one_axis() -> None:
    short = [Panel("short", [Curve("short", "", 25.0, [1.0] * 25)])]
    page = Page(dataset_page(view_of("word", samples=[sample_of("word", panels=short, level=None, faceless=[])])))
    marks = [e.attributes["x1"] for e in page.all("line", class_="frame-mark")]
    assert marks[:6] == ["8.33%", "25.0%", "41.67%", "58.33%", "75.0%", "91.67%"]
    (path,) = (e.attributes["d"] or "" for e in page.all("path", class_="line0"))
    assert path.split("L")[-1].split()[0] == "480.0"  # the 25th frame of a clip of 50


def test_the_waveform_fills_its_box_by_its_loudest_peak() -> None:
    page = Page(dataset_page(view_of("word")))
    (path,) = (e.attributes["d"] for e in page.all("path", class_="area0"))
    assert path == "M250.0 25.0L750.0 40.0L750.0 50.0L250.0 100.0Z"
    assert "peak 0.50 of full scale" in page.all("main")[0].text


def test_what_is_not_there_is_named() -> None:
    bare = sample_of(
        "clip", strip=None, tiles=[], notes=["The crop video cannot be shown: corrupt."], sound=None, level=None,
        sound_reason="the clip has no sound", panels=[Panel("Expression", [], "no_face")], filters=[],
    )  # fmt: skip
    empty = view_of(
        "word", samples=[bare], filters=[], spreads=[], rejects=[], kept=None, identities=None,
        work=Work([], 0.0, 0, 2, 61.0, {}),
    )  # fmt: skip
    text = section(empty, "samples")
    for words in ("cannot be shown: corrupt", "— the clip has no sound", "— no_face"):
        assert words in text
    assert "This build has no filter columns." in section(empty, "filters")
    assert "no columns of expression" in section(empty, "features")
    assert "no times of their stages. All shards together took 61.0 s" in section(empty, "work")
    assert "every clip that was listed is a row" in section(empty, "rejects")
    assert not Page(dataset_page(empty)).all("img")


def test_a_build_without_rows_is_a_page() -> None:
    gone = [Distribution("Length", "s", [], "there is no clip")]
    view = view_of("word", rows=[], samples=[], filters=[], distributions=gone)
    assert "No clip made it into a row." in section(view, "splits")
    assert "No clip to show." in section(view, "samples")
    assert "— there is no clip" in section(view, "lengths")
    assert "rows: 2" in dataset_markdown(view)


def test_rejects_are_all_counted_and_the_first_listed() -> None:
    many = [Reject(f"c{k:03d}", "track", "no_face", f"m{k}") for k in range(MOST_REJECTS + 50)]
    view = view_of("word", rejects=[*many, Reject("z", "read", "corrupt", "bad")])
    view.info["counts"]["clips"] = 502
    assert [(r.reason, r.clips, r.share) for r in reasons(view)] == [("no_face", 250, 49.8), ("corrupt", 1, 0.2)]
    text = section(view, "rejects")
    assert "The first 200 of 251 rejects" in text and "c199" in text and "c200" not in text


def test_a_histogram_counts_every_value_once() -> None:
    values = [0.0, 0.1, 1.0, 1.0, 2.5, 2.9, 9.99, -1.0]
    found = histogram([values], "s")
    assert found is not None
    counts = [int(bar.label.split(": ")[1].split()[0]) for bar in found.bars]
    assert counts == [1, 4, 2, 0, 0, 1] and found.most == 4
    assert [bar.label for bar in found.bars][:2] == ["-2 to 0 s: 1 clip", "0 to 2 s: 4 clips"]
    for bar, count in zip(found.bars, counts, strict=True):
        assert bar.parts[0][1] == pytest.approx(100 * count / found.most)
    assert found.words == "median 1 s, -1 to 9.99 s"
    assert histogram([[None, float("nan")]], "") is None


def test_a_histogram_of_one_value_and_one_of_exact_edges() -> None:
    alone = histogram([[3.0, 3.0]], "px")
    assert alone is not None and [bar.label for bar in alone.bars] == ["3 to 4 px: 2 clips"]
    edges = histogram([[0.1 * k for k in range(11)]], "")
    assert edges is not None and sum(int(b.label.split(": ")[1].split()[0]) for b in edges.bars) == 11


def test_groups_of_a_histogram_are_stacked_without_overlap() -> None:
    found = histogram([[1.0, 1.0], [1.0, 5.0]], "")
    assert found is not None and found.most == 3
    (low, low_height), (high, high_height) = found.bars[0].parts
    assert (low_height, high_height) == (pytest.approx(66.67, abs=0.01), pytest.approx(33.33, abs=0.01))
    assert high + high_height == pytest.approx(low, abs=0.02) and low + low_height == pytest.approx(100)


def test_a_filter_counts_what_it_would_drop() -> None:
    model = filter_model(FilterRow("f", [1.0, 2.0, None, 9.0], [False, True, None, False], 1))
    assert (model.measured, model.dropped, model.undecided, model.only, model.share) == (3, 2, 1, 1, 50.0)
    pairs = ((1.0, True), (1.0, False), (1.0, None), (None, None))
    decisions = [FilterValue("f", value, keep, "", "why").decision for value, keep in pairs]
    assert decisions == ["keep", "drop", "no bound", "why"]


def test_stages_are_summed_and_compared_with_the_video() -> None:
    rows = stage_rows(Work([Stage("a", 2.0, 1.0), Stage("b", 4.0, 3.0)], 8.0, 1, 1, 6.0, {}))
    assert [(r.name, r.wall, r.cpu, r.per_second, r.share) for r in rows] == [
        ("b", "4.0 s", "3.0 s", "0.375 s", 75.0),
        ("a", "2.0 s", "1.0 s", "0.125 s", 25.0),
        ("all stages", "6.0 s", "4.0 s", "0.500 s", None),
    ]


def test_cpu_seconds_that_nobody_measured_are_no_zero() -> None:
    rows = stage_rows(Work([Stage("a", 3.0, None), Stage("b", 1.0, 1.0)], 0.0, 1, 1, 4.0, {}))
    assert [(r.name, r.cpu, r.per_second, r.share) for r in rows] == [
        ("a", "—", "—", 75.0),
        ("b", "1.0 s", "—", 25.0),
        ("all stages", "—", "—", None),
    ]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "0.0 s"), (89.9, "89.9 s"), (90.0, "1.5 min"), (5400.0, "1.5 h"), (None, "—")]
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_the_snippet_filters_by_the_build_decision_where_there_is_one() -> None:
    view = view_of("word", columns=[Column(name, "") for name in ("clip_id", "split", "keep", "arkit52_blendshapes")])
    arrow, arrays = snippets(view)
    assert 'filter=(ds.field("split") == "train") & ds.field("keep")' in arrow
    assert 'columns=["clip_id"]' in arrow and 'columns=["arkit52_blendshapes"]' in arrays
    assert 'ds.field("keep")' not in snippets(view_of("word"))[0]
