"""The drill-down pages in headless Chromium, with videos that play: together, by frame, by keyboard, from a file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from talkforge.reports.drilldown_page import render_compare, render_method
from talkforge.tests.reports.demo import INJECTION, strip
from talkforge.tests.reports.drilldown_demo import demo_method
from talkforge.tests.reports.drilldown_tabs import (
    FPS,
    LONG,
    OF_TWO,
    SHORT,
    TIMES,
    browser,
    chromium,
    open_tab,
    pages,
    ready,
    standing,
)
from talkforge.tests.reports.test_browser import Tab

pytestmark = pytest.mark.browser

__all__ = ["browser", "chromium", "open_tab", "pages"]  # fixtures


def test_a_hash_opens_the_clip_and_hands_over_the_focus(open_tab: Any) -> None:
    tab = open_tab("method", "#clip-1")
    ready(tab)
    assert tab.page.locator("#panel-title").inner_text() == INJECTION
    assert tab.page.evaluate("document.activeElement.id") == "panel-title"
    assert tab.page.locator(".screen video").evaluate_all("(all) => all.map((v) => v.duration)") == pytest.approx(
        [LONG / FPS, SHORT / FPS], abs=0.05
    )
    assert tab.page.locator("img:not([src*='.jpg'])").count() == 0


# How far the videos' clocks lie apart, sampled as frames are drawn, after half a second and until the shorter ones end.
APART = """() => new Promise((done) => {
  const videos = [...document.querySelectorAll('.screen video:not([hidden])')];
  const found = [];
  const look = () => {
    const times = videos.map((v) => v.currentTime);
    const last = Math.max(...times);
    if (last > 0.5 && last < 2) found.push(last - Math.min(...times));
    if (last >= 2) done(found);
    else requestAnimationFrame(look);
  };
  look();
})"""
PLAYS = 3  # clocks that are read on a busy machine jump now and then: looks of all plays count together


def play(tab: Tab) -> None:
    """Plays from the start."""
    tab.page.keyboard.press("Home")
    assert set(standing(tab)) == {0}
    tab.page.get_by_role("button", name="Play", exact=True).click()


def await_end(tab: Tab) -> None:
    """Waits until the longest video has ended."""
    tab.page.wait_for_function("() => document.querySelector('.play').textContent === 'Play'", timeout=10_000)


def assert_together(plays: list[list[float]]) -> None:
    """Videos are within a frame of each other, by enough looks to tell."""
    apart = [look for play in plays for look in play]
    assert len(apart) > 10
    assert np.median(apart) < 1 / FPS


@pytest.mark.parametrize("sound", ["off", "heard"])
@pytest.mark.parametrize(("page", "hash_", "count"), [("method", "#clip-0", 2), ("compare", OF_TWO, 3)])
def test_all_videos_play_within_a_frame_of_each_other(
    open_tab: Any, page: str, hash_: str, count: int, sound: str
) -> None:
    tab = open_tab(page, hash_)
    ready(tab, count)
    if sound == "off":
        tab.page.get_by_label("Sound").select_option("off")

    def played() -> list[float]:
        play(tab)
        apart: list[float] = tab.page.evaluate(APART)
        await_end(tab)
        return apart

    assert_together([played() for _ in range(PLAYS)])
    # The longer real video goes on to its end, while the others keep their last frame.
    frames = standing(tab)
    assert frames[0] == LONG - 1 and all(SHORT - 2 <= frame <= SHORT - 1 for frame in frames[1:])


def test_a_video_that_falls_behind_is_brought_back(open_tab: Any) -> None:
    tab = open_tab("method", "#clip-0")
    ready(tab)

    def disturbed() -> list[float]:
        play(tab)
        tab.page.wait_for_function("() => document.querySelector('.screen video').currentTime > 0.4")
        tab.page.evaluate("() => { document.querySelectorAll('.screen video')[0].currentTime -= 0.2; }")
        tab.page.wait_for_function("() => document.querySelectorAll('.screen video')[1].currentTime > 1.2")
        apart: list[float] = tab.page.evaluate(APART)
        await_end(tab)
        return apart

    assert_together([disturbed() for _ in range(PLAYS)])


def test_a_scrub_sets_all_videos_on_one_frame(open_tab: Any) -> None:
    tab = open_tab("method", "#clip-1")
    ready(tab)
    slider = tab.page.get_by_role("slider", name="Frame")
    drag = (
        "(s, all) => { for (const f of all) { s.value = f; s.dispatchEvent(new Event('input', { bubbles: true })); } }"
    )
    slider.evaluate(drag, [3, 50, 17, 33])  # faster than the videos can follow
    tab.page.wait_for_function(f"() => {TIMES}.every((t) => Math.floor(t * {FPS}) === 33)")
    assert standing(tab) == [33, 33]
    assert slider.get_attribute("aria-valuetext") == "1.34 s, frame 34 of 75"
    assert tab.page.locator(".transport output").inner_text() == "1.34 s, frame 34 of 75"


def test_the_keyboard_steps_by_frames_and_plays(open_tab: Any) -> None:
    tab = open_tab("method", "#clip-0")
    ready(tab)
    for key, frame in (("ArrowRight", 1), ("Shift+ArrowRight", 11), ("ArrowLeft", 10), ("Home", 0), ("End", LONG - 1)):
        tab.page.keyboard.press(key)
        tab.page.wait_for_function(f"() => Number(document.querySelector('.scrub input').value) === {frame}")
        assert standing(tab)[0] == frame
    tab.page.keyboard.press("Home")
    tab.page.keyboard.press("Space")
    tab.page.wait_for_function("() => document.querySelector('.screen video').currentTime > 0.3")
    tab.page.keyboard.press("Space")
    one, other = standing(tab)
    assert one == other and one == int(tab.page.locator(".scrub input").input_value())
    # On the slider itself an arrow is one frame as well, not two.
    tab.page.locator(".scrub input").focus()
    tab.page.keyboard.press("ArrowRight")
    assert standing(tab) == [one + 1, one + 1]


def test_one_video_is_heard_and_the_pace_holds_for_all(open_tab: Any) -> None:
    tab = open_tab("method", "#clip-0")
    ready(tab)
    muted = "[...document.querySelectorAll('.screen video')].map((v) => v.muted)"
    assert tab.page.evaluate(muted) == [True, False]
    tab.page.get_by_label("Sound").select_option("real")
    assert tab.page.evaluate(muted) == [False, True]
    tab.page.get_by_label("Sound").select_option("off")
    assert tab.page.evaluate(muted) == [True, True]
    tab.page.get_by_label("Speed").select_option("0.5")
    rates = tab.page.evaluate("[...document.querySelectorAll('.screen video')].map((v) => v.playbackRate)")
    assert rates == [0.5, 0.5]


def test_the_cursor_of_curves_and_the_mark_of_frames_follow_the_time(open_tab: Any) -> None:
    tab = open_tab("method", "#clip-0")
    ready(tab)
    tab.page.get_by_role("slider", name="Frame").fill("50")
    box = tab.page.locator(".curve-sync .curve-box").bounding_box()
    cursor = tab.page.locator(".curve-sync .cursor").bounding_box()
    assert (cursor["x"] - box["x"]) / box["width"] == pytest.approx(50.5 / 250, abs=0.01)  # of curves of 250 samples
    mark = tab.page.locator(".tile-mark").first.evaluate("(m) => m.style.left")
    assert mark == "80%"  # the last tile that begins before 2.02 s
    tab.page.locator(".curve-sync .curve-box").click(position={"x": 0.1 * box["width"] + 0.5, "y": 20})
    assert standing(tab) == [25, 25]


def test_best_and_worst_clips_have_pictures_and_lead_to_the_panel(open_tab: Any) -> None:
    tab = open_tab("method")
    cards = tab.page.locator("#by-0 a.card")
    assert cards.count() == 5 and tab.page.locator("#by-1 a.card").first.is_hidden()
    tab.page.locator("#extremes-metric").select_option("1")
    assert tab.page.locator("#by-1 a.card").first.is_visible() and not cards.first.is_visible()
    card = tab.page.locator("#by-1 a.card").first
    card.focus()
    tab.page.keyboard.press("Enter")
    tab.page.locator("#panel").wait_for()
    assert tab.page.locator("#panel-title").inner_text() == card.locator(".card-name").inner_text()
    assert card.get_attribute("aria-current") == "true"
    tab.page.get_by_role("button", name="Next clip").click()
    second = tab.page.locator("#by-1 a.card").nth(1)
    tab.page.wait_for_function("() => document.querySelectorAll('#by-1 a.card')[1].ariaCurrent === 'true'")
    assert tab.page.locator("#panel-title").inner_text() == second.locator(".card-name").inner_text()
    tab.page.keyboard.press("Escape")
    assert tab.page.locator("#panel").is_hidden()
    assert tab.page.evaluate("document.activeElement.dataset.clip") == second.get_attribute("data-clip")


def test_a_clip_without_files_says_why(open_tab: Any) -> None:
    tab = open_tab("method", "#clip-4")
    assert tab.texts(".screen-reason") == ["gone", "no generated file"]
    assert tab.page.locator(".screen video:visible").count() == 0
    assert "no frames: none" in tab.page.locator(".panel-strips").inner_text()
    tab.page.keyboard.press("Space")  # nothing to play, nothing to fail


def test_the_table_sorts_filters_and_keeps_missing_values_last(open_tab: Any) -> None:
    tab = open_tab("method")
    head = tab.page.locator("#clips th", has_text=re.compile("Metric av_sync"))
    for order in ("ascending", "descending"):
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == order
        cells = tab.page.locator("#clips tbody td:nth-child(3)").evaluate_all("(all) => all.map((c) => c.dataset.sort)")
        numbers = [float(cell) for cell in cells[:-1]]
        assert cells[-1] == "" and numbers == sorted(numbers, reverse=order == "descending")
    tab.page.get_by_label("Filter").fill("silent_audio")
    assert tab.page.locator("#clips tbody tr:visible").count() == 1
    assert tab.page.locator("#filter-count").inner_text() == "1 of 6"


def test_two_methods_are_compared_by_clip_and_the_choice_is_an_address(open_tab: Any) -> None:
    tab = open_tab("compare")
    said = tab.page.locator("#verdict").inner_text()
    found = re.fullmatch(r"Of 5 clips .* better on (\d), .* on (\d), (\d) equal, 1 without both values\.", said)
    assert found and sum(map(int, found.groups())) == 5
    differences = [float(text.replace("−", "-")) for text in tab.texts(".bar-difference")]
    assert differences == sorted(differences, reverse=True) and len(differences) == 5
    tab.page.get_by_label("Exchange A and B").click()
    assert [float(text.replace("−", "-")) for text in tab.texts(".bar-difference")] == pytest.approx(
        [-d for d in reversed(differences)]
    )
    assert tab.page.url.split("#")[1].startswith("a=B+%26+co&b=")
    tab.page.get_by_label("first").select_option("a")
    assert [float(text.replace("−", "-")) for text in tab.texts(".bar-difference")] == pytest.approx(
        [-d for d in differences]
    )
    assert "silent_audio" in tab.page.locator("#without").text_content()


def test_the_points_of_the_picture_are_reached_by_keyboard(open_tab: Any) -> None:
    tab = open_tab("compare")
    points = tab.page.locator("#scatter a")
    assert points.count() == 5 and tab.page.locator("#scatter a[tabindex='0']").count() == 1
    points.first.focus()
    tab.page.keyboard.press("ArrowRight")
    assert tab.page.evaluate("[...document.querySelectorAll('#scatter a')].indexOf(document.activeElement)") == 1
    name = points.nth(1).get_attribute("aria-label")
    assert tab.page.locator("#scatter-said").inner_text() == name
    tab.page.keyboard.press("Enter")
    tab.page.locator("#panel").wait_for()
    assert name.startswith(tab.page.locator("#panel-title").inner_text())
    assert tab.texts(".screen .side") == ["real", f"A · {INJECTION}", "B · B & co"]


@pytest.mark.parametrize(("name", "hash_"), [("method", "#clip-1"), ("compare", OF_TWO)])
@pytest.mark.parametrize("width", [320, 390, 760, 1300])
def test_the_pages_never_scroll_sideways(open_tab: Any, name: str, hash_: str, width: int) -> None:
    tab = open_tab(name, hash_, width=width)
    tab.page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert tab.overflow() == 0


def test_without_scripts_the_method_page_is_a_table_of_links(open_tab: Any) -> None:
    tab = open_tab("method", script=False)
    assert tab.page.locator("#clips tbody tr").count() == 6
    assert tab.page.locator("#panel, .tools:visible, button:visible").first.is_hidden()
    assert tab.page.locator("#clips a[href$='.mp4']").count() == 6
    assert tab.page.locator("section.extremes:visible").count() == 2


@pytest.mark.slow
def test_pages_of_fourteen_methods_and_two_hundred_clips_come_up_whole(browser: Any, tmp_path: Path) -> None:
    methods = [demo_method(f"method {k}", count=200, metrics=10, curves=k == 0) for k in range(14)]
    texts = {"method.html": render_method(methods[0]), "compare.html": render_compare(methods)}
    (tmp_path / "strips").mkdir()
    for k in range(200):
        (tmp_path / "strips" / f"{k}-g.jpg").write_bytes(strip([0.5], "#d9a78c", tiles=2))
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        tab = Tab(browser, tmp_path / name)
        seconds = tab.page.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd") / 1000
        nodes = tab.page.locator("*").count()
        print(f"{name}: {len(text)} bytes, {nodes} nodes, interactive after {seconds:.2f} s")
        assert nodes < 12_000 and tab.log == []
        tab.context.close()
