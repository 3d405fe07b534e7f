"""What the drill-down pages are made of: order of clips, addresses, data inside the page, escaping, size."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

import pytest
from talkforge.core.emotions import MEAD_EMOTIONS
from talkforge.reports import html as html_module
from talkforge.reports.drilldown import (
    Aim,
    Clip,
    CurveGroup,
    File,
    Strip,
    clip_aim,
    confusion,
    looked_at_first,
    ranking,
)
from talkforge.reports.drilldown_data import ALPHABET, AU_FLOOR, compare_data, groups, island, method_data
from talkforge.reports.drilldown_links import data_uri, file_name, relative_href, safe_name
from talkforge.reports.drilldown_page import render_compare, render_method
from talkforge.reports.view import Curve
from talkforge.tests.reports.demo import INJECTION, result
from talkforge.tests.reports.drilldown_demo import SYNC, demo_method, metric
from talkforge.tests.reports.page import Page

TEMPLATES = Path(html_module.__file__).parent / "templates"
OURS = ("drilldown", "compare")
PAYLOADS = [
    INJECTION,
    '"><script>alert(1)</script>',
    "' onmouseover='alert(1)",
    "</script><!--<script>",
    "javascript:alert(1)",
    "</style></title>{{ 7*7 }}",
]
AWKWARD = ["a b.mp4", "it's #1 100%.mp4", 'q"uote?.mp4', "c:d&e=f;g.mp4", "Ünïcode 名.mp4", "%41.mp4", "\\back.mp4"]


def clips_of(values: list[float | None]) -> list[Clip]:
    """Clips named after their place, the first letters last."""
    names = [f"{chr(ord('z') - k)}" for k in range(len(values))]
    return [
        Clip(
            k, name, File(), File(), values={SYNC: value}, reasons={} if value is not None else {SYNC: "no_face: none"}
        )
        for k, (name, value) in enumerate(zip(names, values, strict=True))
    ]


def names(clips: list[Clip]) -> list[str]:
    return [clip.name for clip in clips]


def test_the_best_and_the_worst_clips_by_the_aim_of_the_metric() -> None:
    clips = clips_of([0.5, 0.1, 0.9, 0.3])
    for aim, best, worst in (
        (Aim("high"), ["x", "z"], ["y", "w"]),
        (Aim("low"), ["y", "w"], ["x", "z"]),
        (Aim("near", 0.32), ["w", "z"], ["x", "y"]),
    ):
        found = ranking(clips, metric(aim))
        assert (names(found.best), names(found.worst)) == (best, worst)


def test_ties_go_by_name_and_no_clip_is_in_both_lists() -> None:
    found = ranking(clips_of([1.0, 1.0, 1.0, 1.0, 1.0]), metric(Aim("high")))
    assert (names(found.best), names(found.worst)) == (["v", "w", "x"], ["y", "z"])


def test_each_list_holds_ten_clips_and_the_worst_comes_first() -> None:
    found = ranking(clips_of([float(k) for k in range(25)]), metric(Aim("low")))
    assert [clip.number for clip in found.best] == list(range(10))
    assert [clip.number for clip in found.worst] == list(range(24, 14, -1))


@pytest.mark.parametrize("missing", [None, math.nan, math.inf])
def test_a_clip_without_a_number_is_in_no_list_but_has_its_reason(missing: float | None) -> None:
    clips = clips_of([0.5, missing, 0.1])
    clips[1] = replace(clips[1], reasons={SYNC: "silent_audio: the sound track is silent"})
    found = ranking(clips, metric(Aim("high")))
    assert names(found.best) + names(found.worst) == ["z", "x"]
    assert [(clip.name, reason) for clip, reason in found.missing] == [("y", "silent_audio: the sound track is silent")]


def test_without_a_known_aim_nothing_is_ranked() -> None:
    found = ranking(clips_of([0.5, 0.1]), metric(None))
    assert found.best == found.worst == found.missing == []


def test_the_aim_of_clips_own_values_is_not_always_that_of_the_metric() -> None:
    up, down = result(1.0, None, higher_is_better=True), result(1.0, None)
    assert clip_aim(up, "") == clip_aim(up, "of the clip's own emotion") == Aim("high")
    assert clip_aim(down, "gap of mean features") == Aim("low")
    assert clip_aim(up, "distance to the emotion's mean") == Aim("low")
    assert clip_aim(down, "own signed offset") == Aim("near", 0.0)
    level = result(1.0, None, best_is_real=True, real_vs_real=2.5, higher_is_better=True)
    assert clip_aim(level, "") == Aim("near", 2.5)
    assert clip_aim(level | {"real_vs_real": None}, "") is None


def test_clips_of_some_list_are_looked_at_before_the_others() -> None:
    clips = clips_of([float(k) for k in range(30)])
    first = [clip.number for clip in looked_at_first(clips, [metric(Aim("low"))])]
    assert first[:10] == list(range(29, 19, -1)) and first[10:20] == list(range(10))
    assert sorted(first) == list(range(30))


def test_a_confusion_counts_and_keeps_the_order_of_emotions() -> None:
    found = confusion(
        "net", [("happy", "happy"), ("happy", "sad"), ("angry", "happy"), ("happy", "happy"), ("sad", "?")]
    )
    assert list(found.labelled) == ["angry", "happy", "sad"] and list(found.seen) == ["angry", "happy", "sad", "?"]
    assert found.counts == [[0, 1, 0, 0], [0, 2, 1, 0], [0, 0, 0, 1]]
    assert found.rows[1] == ("happy", 3, [(0, 0, False), (6, 2, True), (3, 1, False), (0, 0, False)])
    assert set(MEAD_EMOTIONS) >= set(found.labelled)


@pytest.mark.parametrize("name", AWKWARD)
def test_an_address_leads_to_the_very_file(name: str, tmp_path: Path) -> None:
    file = tmp_path / "vid eos" / name
    href = relative_href(file, tmp_path / "pages" / "method-x")
    parts = urlsplit(href)
    assert (parts.scheme, parts.netloc, parts.query, parts.fragment) == ("", "", "", "")
    assert unquote_to_bytes(parts.path) == b"../../vid eos/" + name.encode()
    assert re.fullmatch(r"[A-Za-z0-9_.~/%-]+", href)


def test_an_address_holds_bytes_that_are_no_text(tmp_path: Path) -> None:
    assert relative_href(tmp_path / "take\udcff.mp4", tmp_path) == "take%FF.mp4"


def test_names_of_folders_are_safe_and_differ() -> None:
    hostile = ["dice-talk", "Dice-Talk", "a/b", "a b", "..", "", "a" * 300, "CON?", INJECTION, "名"]
    made = [safe_name(text) for text in hostile]
    assert made[0] == "dice-talk" and len(set(made)) == len(made)
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,80}", name) for name in made)


def test_copies_of_equal_names_in_different_folders_differ(tmp_path: Path) -> None:
    one, other = file_name(tmp_path / "a" / "x y.MP4"), file_name(tmp_path / "b" / "x y.MP4")
    assert one != other and one.endswith("-x-y.mp4") and one == file_name(tmp_path / "a" / "x y.MP4")
    assert data_uri(b"\x00\x01", ".MP4") == "data:video/mp4;base64,AAE="


def test_no_text_ends_the_data_or_opens_a_comment() -> None:
    text = island({"name": "</script><!-- & \u2028 \ud800"})
    assert not re.search(r"[<>&]", text) and text.isascii()
    assert json.loads(text)["name"] == "</script><!-- & \u2028 \ud800"


def test_a_curve_comes_back_from_its_letters_with_its_gaps() -> None:
    values: list[float | None] = [0.1, 0.4, None, 0.25, math.nan]
    group = CurveGroup("AU12", "unit", [Curve("real", "", 25.0, values), Curve("generated", "", 25.0, [0.5, 0.0])])
    clip = replace(demo_method().clips[0], curves=[group])
    (found,) = method_data(replace(demo_method(), clips=[clip]))["clips"][0]["curves"]
    letters = found["lines"][0]["data"]
    assert len(letters) == 5 and letters[2] == letters[4] == " "
    back = [0.5 * ALPHABET.index(letters[k]) / (len(ALPHABET) - 1) for k in (0, 1, 3)]  # both share 0 to 0.5
    assert back == pytest.approx([0.1, 0.4, 0.25], abs=0.5 / (len(ALPHABET) - 1) / 2 + 1e-9)


def test_a_resting_action_unit_is_not_blown_up_and_a_long_curve_is_thinned() -> None:
    rest = CurveGroup("AU01", "unit", [Curve("real", "", 25.0, [0.0, AU_FLOOR / 10])])
    long = CurveGroup("mouth", "sync", [Curve("real", "", 25.0, [float(k % 7) for k in range(3000)])])
    clip = replace(demo_method().clips[0], curves=[rest, long])
    first, second = method_data(replace(demo_method(), clips=[clip]))["clips"][0]["curves"]
    assert ALPHABET.index(first["lines"][0]["data"][1]) == round((len(ALPHABET) - 1) / 10)
    line = second["lines"][0]
    assert len(line["data"]) == 600 and len(line["data"]) / line["fps"] == 120.0


def test_the_alphabet_of_curves_needs_no_escape() -> None:
    assert len(set(ALPHABET)) == len(ALPHABET) and not set(ALPHABET) & set("<>&\"\\' ")


def test_numbers_of_other_protocols_are_in_other_groups() -> None:
    a, b, c = (demo_method(name) for name in "abc")
    c.results["results"][SYNC]["protocol"] = {"crop": "none"}
    d = replace(demo_method("d"), metrics=[])
    assert groups([a, b, c, d], SYNC) == [0, 0, 1, -1]


def test_the_page_of_two_knows_each_clip_of_each_method_and_why_a_number_is_missing() -> None:
    a, b = demo_method("a", count=4), demo_method("b", count=3)
    data = compare_data([a, b])
    assert [name for _, name, _ in data["clips"]] == [clip.name for clip in a.clips]
    sync = next(k for k, m in enumerate(data["metrics"]) if m["id"] == SYNC)
    second = data["methods"][1]
    assert second["values"][sync][3] is None and second["files"][3][1] == "not a clip of this method"
    assert second["why"][second["missing"][sync]["2"]] == "silent_audio: the sound track is silent"
    assert second["values"][sync][0] == pytest.approx(b.clips[0].values[SYNC], rel=1e-4)


def test_clips_beside_other_real_files_are_known() -> None:
    a, b = demo_method("a", count=3), demo_method("b", count=3)
    moved = replace(b.clips[1], real=File("videos/elsewhere/1.mp4"))
    data = compare_data([a, replace(b, clips=[b.clips[0], moved, b.clips[2]])])
    assert sorted(method["other"] for method in data["methods"]) == [[], [1]]  # one of them is the one that is shown


@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_text_changes_the_structure_of_the_pages(payload: str) -> None:
    def pages(text: str) -> list[Page]:
        one, other = demo_method(text, hostile=text), demo_method(f"2{text}", hostile=text)
        return [Page(render_method(one, compare="../compare.html")), Page(render_compare([one, other]))]

    for plain, hostile in zip(pages("word"), pages(payload), strict=True):
        assert hostile.skeleton() == plain.skeleton()
        for element in hostile.elements:
            assert not any(name.startswith("on") or name == "style" for name in element.attributes)
            href = element.attributes.get("href") or ""
            assert not urlsplit(href).scheme or href == "data:,"
        data = json.loads(hostile.all("script", id="data")[0].text)
        assert payload in json.dumps(data, ensure_ascii=False) or payload in repr(data)


def test_the_policy_pins_styles_and_scripts_and_lets_nothing_in_from_the_network() -> None:
    for text in (render_method(demo_method()), render_compare([demo_method("a"), demo_method("b")])):
        page = Page(text)
        (meta,) = page.all("meta", http_equiv="Content-Security-Policy")
        policy = {p.split()[0]: p.split()[1:] for p in (meta.attributes["content"] or "").split(";")}
        assert policy["default-src"] == ["'none'"]
        assert policy["media-src"] == policy["img-src"] == ["'self'", "file:", "data:"]
        for tag in ("style", "script"):
            found = [e for e in page.all(tag) if e.attributes.get("type") != "application/json"]
            digests = [base64.b64encode(hashlib.sha256(e.text.encode()).digest()).decode() for e in found]
            assert policy[f"{tag}-src"] == [f"'sha256-{digest}'" for digest in digests]


def test_scripts_write_text_and_never_markup() -> None:
    scripts = [path for path in TEMPLATES.glob("*.js") if path.name.startswith(OURS)]
    assert len(scripts) == 4
    for path in scripts:
        words = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|fetch\(|XMLHttp|import\("
        assert not re.search(words, path.read_text(encoding="utf-8")), path.name


def test_without_scripts_the_table_leads_to_every_file_and_says_what_is_missing() -> None:
    method = demo_method(count=4)
    clips = [*method.clips[:3], replace(method.clips[3], generated=File(reason="no generated file of this name"))]
    page = Page(render_method(replace(method, clips=clips)))
    links = {e.attributes["href"] for e in page.all("a")}
    for clip in clips[:3]:
        assert {clip.real.href, clip.generated.href} <= links
    assert "no generated file of this name" in page.all("table", id="clips")[0].text


def test_what_is_embedded_stands_in_the_page_once() -> None:
    method = demo_method(count=3)
    uri = data_uri(b"video", ".mp4")
    clips = [replace(clip, generated=File(uri, name="v.mp4")) for clip in method.clips[:1]]
    assert render_method(replace(method, clips=clips)).count(uri) == 1


def test_ids_are_unique_and_every_label_and_reference_has_its_target() -> None:
    for text in (render_method(demo_method(count=12)), render_compare([demo_method("a"), demo_method("b")])):
        page = Page(text)
        ids = [e.attributes["id"] for e in page.elements if "id" in e.attributes]
        assert len(ids) == len(set(ids))
        for element in page.elements:
            for name in ("aria-labelledby", "aria-describedby", "for"):
                assert set((element.attributes.get(name) or "").split()) <= {*ids}
            href = element.attributes.get("href") or ""
            assert not href.startswith("#") or href[1:] in ids


def test_pages_of_fourteen_methods_and_two_hundred_clips_stay_small() -> None:
    methods = [demo_method(f"method {k}", count=200, metrics=10, curves=k == 0) for k in range(14)]
    one, two = render_method(methods[0], compare="../compare.html"), render_compare(methods)
    assert len(one) < 6e6 and len(two) < 3.5e6
    assert len(Page(one).elements) < 9000 and len(Page(two).elements) < 400


def test_missing_strips_say_why() -> None:
    method = demo_method(count=1)
    clip = replace(method.clips[0], strip_real=Strip(File(reason="not in the feature cache")))
    data = method_data(replace(method, clips=[clip]))
    assert data["clips"][0]["strips"][0]["file"][:2] == [None, "not in the feature cache"]
