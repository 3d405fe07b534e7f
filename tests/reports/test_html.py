"""The run's page: content, escaping, isolation from the network, size."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from talkforge.core.errors import ConfigError
from talkforge.reports import html as html_module
from talkforge.reports.html import render_html
from talkforge.reports.view import ClipView, Curve, MetricView, RunView
from talkforge.tests.reports.demo import INJECTION, demo_metrics, demo_results, demo_run, many_clips, result, results
from talkforge.tests.reports.page import Page

TEMPLATES = Path(html_module.__file__).parent / "templates"
PAYLOADS = [
    INJECTION,
    '"><script>alert(1)</script>',
    "' onmouseover='alert(1)",
    "</style></script></title></svg>{{ 7*7 }}{% raw %}&lt;",
    "javascript:alert(1)",
]


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(render_html(demo_run()))


def metric_rows(page: Page) -> list[str]:
    return [" ".join(e.text.split()) for e in page.all("tr") if "table" in e.parents and e.attributes.get("role")]


def test_the_summary_counts_clips(page: Page) -> None:
    assert page.all("dl", class_="summary")[0].text.split() == ["clips", "attempted12", "scored9", "rejected3"]
    assert page.all("h1")[0].text == "EDTalk"


def test_a_scored_metric_shows_number_interval_counts_and_reference(page: Page) -> None:
    row = next(text for text in metric_rows(page) if "fvd:i3d-k400-16f" in text)
    for part in (
        "FVD, 16 frames",
        "↓",
        "lower is better",
        "412",
        "[355, 486]",
        "9/12",
        "149",
        "yes",
        "Window, network",
    ):
        assert part in row
    row = next(text for text in metric_rows(page) if "av_sync:mouth-envelope" in text)
    assert "↑" in row and "0.653 [0.583, 0.713]" in row and "higher is better" in row


def test_a_missing_metric_is_a_dash_with_its_reason_and_never_a_zero(page: Page) -> None:
    row = next(text for text in metric_rows(page) if "lse_d:syncnet-v2-direct" in text)
    assert "— weights_missing: get them with: talkforge weights pull syncnet_v2" in row
    assert re.findall(r"(?<![\w/])0(?:\.0*)?(?![\w/])", row) == []
    values = [e for e in page.all("td", data_label="Value") if e.text.strip() == "—"]
    assert len(values) == 2


def test_a_number_that_is_not_finite_is_missing_and_says_so() -> None:
    data = results("m", fvd__x=result(float("nan"), [float("nan"), 1.0]), lse__y=result(None, None))
    text = Page(render_html(RunView(data))).all("table")[0].text
    assert "the value is not finite (nan)" in text and "no reason was recorded" in text


def test_tables_say_what_their_cells_belong_to(page: Page) -> None:
    headers = page.all("th")
    assert headers and all(header.attributes.get("scope") in {"col", "row"} for header in headers)
    pictures = page.all("img")
    assert len(pictures) == 18 and all("clip" in (p.attributes["alt"] or "") for p in pictures)
    assert all(p.attributes["loading"] == "lazy" for p in pictures)
    drawings = [e for e in page.all("svg") if "svg" not in e.parents and "aria-hidden" not in e.attributes]
    assert drawings and all(e.attributes.get("role") == "img" and e.attributes.get("aria-label") for e in drawings)
    assert page.all("html")[0].attributes["lang"] == "en"


def dots_and_title(value: float, clip_title: str = "") -> tuple[int, str]:
    """Dots drawn for clips of 1.0, 2.0 and 6.0 under a metric of the given value, and the heading of their column."""
    clips = [ClipView(str(v), None, None, "scored", values={"m:v": v}) for v in (1.0, 2.0, 6.0)]
    views = {"m:v": MetricView("Metric", "", "", "", False, "", "", clip_title)}
    page = Page(render_html(RunView(results("m", m__v=result(value, [0.5, 9.0])), clips, views)))
    heading = page.all("table", class_="clips")[0].text.split("Status")[1].split("↓")[0].strip()
    return len(page.all("circle", class_="point")), heading


def test_clips_share_axis_and_name_only_with_a_metric_that_is_their_mean() -> None:
    assert dots_and_title(3.0) == (3, "Metric")
    assert dots_and_title(7.5) == (0, "Metric, per clip")
    assert dots_and_title(7.5, "gap") == (0, "gap")
    assert dots_and_title(3.0, "gap") == (0, "gap")


def test_each_clip_can_be_opened_and_found(page: Page) -> None:
    ids = [e.attributes["id"] for e in page.elements if "id" in e.attributes]
    assert len(ids) == len(set(ids))
    targets = [e.attributes["href"] or "" for e in page.all("a")]
    assert len([t for t in targets if t.startswith("#clip-")]) == 12 + 4
    assert {t[1:] for t in targets} <= set(ids)
    assert len([e for e in page.all("details") if e.attributes.get("id")]) == 12


def test_rejects_are_grouped_by_reason_the_most_frequent_first() -> None:
    run = demo_run()
    extra = [ClipView(f"x{i}", None, None, "rejected", [("track", "unreadable", "none")]) for i in range(5)]
    table = Page(render_html(replace(run, clips=[*run.clips, *extra]))).all("table", class_="rejects stack")[0].text
    words = " ".join(table.split())
    assert words.index("unreadable track 5") < words.index("no_face track 1") < words.index("silent_audio av_sync 1")
    assert words.count("unreadable") == 1


def test_provenance_is_whole(page: Page) -> None:
    data = demo_results()
    text = page.all("main")[0].text
    for entry in data["results"].values():
        for digest in entry["weights"].values():
            assert digest in text
            assert page.all("code", data_copy=digest, title=digest)
    for words in ("max_lag_frames", "smoothing.frames", "forwards.mobilenet-v2", "4110", "2.8.0+cpu"):
        assert words in text
    assert data["config_digest"] in page.all("header")[0].text


def hostile_run(text: str) -> RunView:
    """One clip and one metric with `text` in every place that takes words."""
    data = results(text)
    data |= {"created": text, "talkforge_version": text, "config_digest": text}
    data["environment"] = {text: {text: text}}
    data["counters"] = {text: 1}
    fields: dict[str, Any] = {"rejects": {text: 1}, "weights": {text: text}, "protocol": {text: text}, "unit": text}
    data["results"] = {
        f"a{text}": result(1.0, [0.5, 2.0], **fields),
        f"b{text}": result(None, None, reason=text, hint=text),
    }
    view = MetricView(text, text, text, text, False, text, text, text)
    clip = ClipView(
        text, text, text, "scored", [(text, text, text)], {f"a{text}": 1.0}, {f"b{text}": text}, b"\xff", b"\xff",
        [Curve(text, text, 25.0, [1.0, 2.0]), Curve(text, text, 25.0, [1.0, None], "area")], [text],
    )  # fmt: skip
    other = ClipView(f"2{text}", text, text, "rejected", [(f"2{text}", text, text)])
    return RunView(data, [clip, other], {f"a{text}": view, f"b{text}": view}, [text])


@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_text_can_change_the_structure_of_the_page(payload: str) -> None:
    plain, hostile = Page(render_html(hostile_run("word"))), Page(render_html(hostile_run(payload)))
    assert hostile.skeleton() == plain.skeleton()
    assert hostile.all("h1")[0].text == payload
    hrefs = {(e.attributes["href"] or "")[:1] for e in hostile.elements if e.tag == "a"}
    assert hrefs == {"#"}


def test_a_name_that_no_encoding_holds_is_spelt_out() -> None:
    clip = ClipView("take\udcff\u202efdp", None, None, "rejected")
    text = render_html(RunView(results("m"), [clip])).encode("utf-8").decode()
    assert "take\\udcff\\u202efdp" in text


def test_nothing_is_loaded_from_anywhere(page: Page) -> None:
    loading = {"src", "srcset", "href", "data", "action", "poster", "style", "xlink:href"}
    for element in page.elements:
        for name, value in element.attributes.items():
            assert not name.startswith("on")
            if name in loading:
                assert value and re.match(r"#|data:image/jpeg;base64,|data:,$", value), (element.tag, name)
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    assert "url(" not in style and "@import" not in style


def test_the_policy_pins_the_very_style_and_script_of_the_page(page: Page) -> None:
    (meta,) = page.all("meta", http_equiv="Content-Security-Policy")
    policy = dict(part.strip().split(" ", 1) for part in (meta.attributes["content"] or "").split(";"))
    assert policy["default-src"] == "'none'" and policy["img-src"] == "data:"
    for tag in ("style", "script"):
        (element,) = page.all(tag)
        digest = base64.b64encode(hashlib.sha256(element.text.encode()).digest()).decode()
        assert policy[f"{tag}-src"] == f"'sha256-{digest}'"


def test_no_template_switches_escaping_off() -> None:
    for path in TEMPLATES.iterdir():
        assert not re.search(r"\|\s*safe\b|autoescape|Markup", path.read_text(encoding="utf-8")), path.name


def test_pictures_beyond_the_limit_are_left_out_and_said_to_be() -> None:
    run = demo_run()
    sizes = [len(c.strip_real or b"") + len(c.strip_generated or b"") for c in run.clips]
    page = Page(render_html(run, max_strip_bytes=sum(sizes[:4])))
    assert len(page.all("img")) == 8
    assert "Picture strips of 5 clips are left out" in page.all("section", class_="warnings")[0].text
    assert page.all("main")[0].text.count("limit for picture strips was reached") == 5


def test_two_hundred_clips_stay_bounded() -> None:
    run = many_clips(200)
    strips = sum(len(strip or b"") for c in run.clips for strip in (c.strip_real, c.strip_generated))
    size = len(render_html(run).encode())
    assert size < strips * 4 / 3 + 200 * 12_000 + 40_000  # 150 samples a curve, three curves a clip


def test_a_run_without_clips_or_metrics_is_a_page() -> None:
    page = Page(render_html(RunView(results("empty"))))
    assert "No metric was asked for" in page.all("main")[0].text
    assert not page.all("details")


def test_results_off_the_contract_are_refused() -> None:
    data = demo_results()
    del data["results"]["fd:mobilenet-v2"]["ci95"]
    with pytest.raises(ConfigError, match="fd:mobilenet-v2: missing ci95"):
        RunView(data, metrics=demo_metrics())
    with pytest.raises(ConfigError, match="schema_version 2"):
        RunView(demo_results() | {"schema_version": 2})


def luminance(color: str) -> float:
    """Relative luminance of `#rgb` or `#rrggbb` (WCAG 2.2)."""
    digits = color[1:] if len(color) == 7 else "".join(c * 2 for c in color[1:])
    channels = [int(digits[k : k + 2], 16) / 255 for k in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    """WCAG contrast ratio, 1 to 21."""
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_text_has_contrast_on_every_ground_in_both_schemes() -> None:
    assert contrast("#000", "#ffffff") == pytest.approx(21.0)
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    schemes = [dict(re.findall(r"--([\w-]+): (#\w+);", block)) for block in re.findall(r":root \{(.*?)\}", style, re.S)]
    assert len(schemes) == 3  # light, dark, print
    light, dark, _ = schemes
    for colors in (light, dark):
        for ground in ("bg", "panel"):
            for ink in ("ink", "muted", "accent", "bad", "warn"):
                assert contrast(colors[ink], colors[ground]) >= 4.5, (ink, ground)
            for line in ("line0", "line1", "line2", "line3"):
                assert contrast(colors[line], colors[ground]) >= 3.0, (line, ground)
        assert contrast(colors["warn"], colors["warn-bg"]) >= 4.5 <= contrast(colors["ink"], colors["warn-bg"])
