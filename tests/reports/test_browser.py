"""The pages in headless Chromium: they render, they react, they stay inside the window and off the network."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from talkforge.reports.comparison import comparison_model, comparison_page
from talkforge.reports.comparison_layout import ComparisonModel
from talkforge.reports.html import render_html
from talkforge.reports.latex import parse_latex
from talkforge.reports.leaderboard_latex import overview_tables
from talkforge.reports.leaderboard_published import corresponding
from talkforge.reports.published import load_published
from talkforge.tests.reports.demo import INJECTION, demo_comparison, demo_run, html_of
from talkforge.tests.reports.made_runs import hard_clips, made

pytestmark = pytest.mark.browser

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]


@pytest.fixture(scope="module")
def chromium() -> str:
    """Path of the installed browser."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not found:
        pytest.skip("no Chromium is installed")
    return found


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    """A running browser under Playwright's control."""
    api = pytest.importorskip("playwright.sync_api", reason="the Python package playwright is not installed")
    with api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield running
        running.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Rendered pages by name; one clip and one method are named like markup."""
    folder = tmp_path_factory.mktemp("pages")
    runs, links = demo_comparison(split=True)
    runs[3]["method"] = INJECTION
    texts = {
        "report": render_html(demo_run(hostile=True)),
        "comparison": html_of(runs, links),
        "leaderboard": leaderboard_page(),
    }
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in texts}


def leaderboard_page() -> str:
    return comparison_page(leaderboard_model(), corresponding(load_published(), {"fvd"}))


def leaderboard_model() -> ComparisonModel:
    """Four methods under five metrics, 30 clips drawn jointly for one of them, published numbers below."""
    runs, _ = demo_comparison()
    ordered, facts = made(hard_clips(4, 30))
    for run, more in zip(runs, ordered, strict=True):
        run["results"] |= more["results"]
    runs[3]["method"] = INJECTION
    known = {run["method"]: facts[more["method"]] for run, more in zip(runs, ordered, strict=True)}
    return comparison_model(runs, {}, known)


class Tab:
    """A page under watch: what it logged, what it asked for, what it alerted."""

    def __init__(
        self, browser: Any, path: Path, *, width: int = 1400, script: bool = True, scheme: str = "light"
    ) -> None:
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, java_script_enabled=script, color_scheme=scheme
        )
        self.page = self.context.new_page()
        self.log: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.log.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.log.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.log.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())

    def texts(self, selector: str) -> list[str]:
        """Visible texts of all matches, white space folded."""
        return [" ".join(text.split()) for text in self.page.locator(selector).all_inner_texts()]

    def overflow(self) -> int:
        """Pixels by which the page is wider than the window."""
        return self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


def kept(make: Callable[..., Tab]) -> Iterator[Any]:
    """Opens tabs; all of them are closed and must have been silent and off the network."""
    tabs: list[Tab] = []

    def open_page(*given: Any, **options: Any) -> Tab:
        tabs.append(make(*given, **options))
        return tabs[-1]

    yield open_page
    for tab in tabs:
        external = [url for url in tab.requests if not url.startswith(("file:", "data:"))]
        tab.context.close()
        assert external == []
        assert tab.log == []


@pytest.fixture
def open_tab(browser: Any, pages: dict[str, Path]) -> Iterator[Any]:
    """Opens a page by name."""
    yield from kept(lambda name, **options: Tab(browser, pages[name], **options))


@pytest.mark.parametrize("name", ["report", "comparison"])
def test_a_bare_browser_runs_the_page(chromium: str, pages: dict[str, Path], tmp_path: Path, name: str) -> None:
    command = [chromium, "--headless", *FLAGS, f"--user-data-dir={tmp_path}", "--dump-dom", pages[name].as_uri()]
    dom = subprocess.run(command, capture_output=True, timeout=120, check=True).stdout.decode()
    assert 'aria-sort="none"><button' in dom  # the pinned script ran
    assert INJECTION not in dom and INJECTION.replace("<", "&lt;").replace(">", "&gt;") in dom


@pytest.mark.parametrize("name", ["report", "comparison", "leaderboard"])
@pytest.mark.parametrize("width", [320, 390, 760, 1400])
def test_the_page_never_scrolls_sideways(open_tab: Any, name: str, width: int) -> None:
    tab = open_tab(name, width=width)
    tab.page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert tab.overflow() == 0


def test_sorting_by_a_number_keeps_missing_values_last(open_tab: Any) -> None:
    tab = open_tab("report")
    header = tab.page.locator("#clip-table th", has_text="Mouth-speech correlation")
    shown = "#clip-table tbody td:nth-child(4) > :first-child, #clip-table tbody td:nth-child(4):not(:has(*))"
    for order, reverse in (("ascending", False), ("descending", True)):
        header.locator("button").click()
        assert header.get_attribute("aria-sort") == order
        values = tab.texts(shown)
        numbers = [float(value) for value in values if value != "—"]
        assert len(numbers) == 8 and numbers == sorted(numbers, reverse=reverse)
        assert values[8:] == ["—"] * 4
    assert tab.texts("#clip-table tbody th") == tab.texts("details.clip .clip-name")
    assert tab.page.locator("#clip-table th[aria-sort=none]").count() == 3


def test_sorting_by_name_works_from_the_keyboard(open_tab: Any) -> None:
    tab = open_tab("report")
    before = tab.texts("#clip-table tbody th")
    tab.page.locator("#clip-table th", has_text="Clip").first.locator("button").focus()
    tab.page.keyboard.press("Enter")
    after = tab.texts("#clip-table tbody th")
    assert after != before and sorted(after) == sorted(before)
    assert after[0] == INJECTION and after[1].startswith("hdtf/")


def test_a_drilldown_opens_by_keyboard_and_shows_its_pictures(open_tab: Any) -> None:
    tab = open_tab("report")
    details = tab.page.locator("details.clip").nth(1)
    assert not details.locator("img").first.is_visible()
    details.locator("summary").focus()
    tab.page.keyboard.press("Enter")
    tab.page.locator("#clip-1[open]").wait_for()
    for picture in details.locator("img").all():
        picture.wait_for(state="visible")  # it is loaded only now
        assert picture.evaluate("(i) => i.decode().then(() => i.naturalWidth)") == 960
    boxes = [picture.bounding_box() for picture in details.locator("img").all()]
    assert boxes[0]["x"] == boxes[1]["x"] and boxes[0]["width"] == boxes[1]["width"]
    tab.page.keyboard.press("Space")
    tab.page.locator("#clip-1:not([open])").wait_for()


def test_a_link_opens_its_clip_and_hands_over_the_focus(open_tab: Any) -> None:
    tab = open_tab("report")
    tab.page.locator("#clip-table a").nth(5).focus()
    tab.page.keyboard.press("Enter")
    tab.page.wait_for_function("() => document.activeElement.tagName === 'SUMMARY'")
    assert tab.page.evaluate("document.activeElement.parentElement.id") == "clip-5"
    assert tab.page.locator("#clip-5").get_attribute("open") is not None


def test_the_filter_narrows_table_and_drilldowns(open_tab: Any) -> None:
    tab = open_tab("report")
    tab.page.get_by_label("Filter").fill("no_face")
    assert tab.page.locator("#clip-table tbody tr:visible").count() == 1
    assert tab.page.locator("details.clip:visible").count() == 1
    assert tab.page.locator("output").inner_text() == "1 of 12"


def test_an_injected_name_stays_text(open_tab: Any) -> None:
    for name in ("report", "comparison", "leaderboard"):
        tab = open_tab(name)
        tab.page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        assert tab.page.locator("img:not([src^='data:image/jpeg;base64,'])").count() == 0
        assert INJECTION in tab.page.locator("main").inner_text()


def test_without_scripts_it_is_a_plain_page(open_tab: Any) -> None:
    tab = open_tab("report", script=False)
    assert tab.page.locator("#clip-table tbody tr").count() == 12
    assert tab.page.locator("button, .tools:visible").count() == 0
    tab.page.locator("#clip-table a").nth(2).click()
    assert tab.page.locator("#clip-2-body").is_visible()  # the browser itself opens what a link points into


def test_digests_are_short_on_screen_and_whole_in_the_text(open_tab: Any) -> None:
    tab = open_tab("report")
    digest = tab.page.locator("code.hash").first
    assert len(digest.inner_text()) == 64 == len(digest.get_attribute("title"))
    assert digest.bounding_box()["width"] < 120
    tab.page.emulate_media(media="print")
    assert digest.bounding_box()["width"] > 300


def test_dark_and_light_differ_and_print_is_light(open_tab: Any) -> None:
    tab = open_tab("report", scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    assert tab.page.evaluate(ground) == "rgb(20, 23, 26)"
    tab.page.emulate_media(color_scheme="light")
    assert tab.page.evaluate(ground) == "rgb(252, 252, 250)"
    tab.page.emulate_media(media="print", color_scheme="dark")
    assert tab.page.evaluate(ground) == "rgb(255, 255, 255)"


def test_the_overview_of_a_comparison_sorts_and_keeps_its_reference_row_below(open_tab: Any) -> None:
    tab = open_tab("comparison")
    tab.page.locator(".matrix th", has_text="Mouth-speech").locator("button").click()
    assert tab.texts(".matrix tbody th") == ["SadTalker", "EDTalk", "StyleTalk", INJECTION]
    assert tab.texts(".matrix tr th[scope=row]")[-1] == "real vs real"


def test_methods_are_filtered_by_name_in_all_tables(open_tab: Any) -> None:
    """And what is said between two rows goes with either of them."""
    tab = open_tab("leaderboard")
    steps = tab.page.locator("article[data-family=m] tr.step:visible")
    assert steps.count() == 3
    tab.page.get_by_role("searchbox", name="Methods").fill("talk")
    assert tab.texts(".matrix[data-sortable] tbody tr[data-method]:visible th") == ["EDTalk", "SadTalker", "StyleTalk"]
    assert tab.page.locator("output[data-count-methods]").inner_text() == "3 of 4"
    # In the order of the made metric: EDTalk, SadTalker, StyleTalk, and the one that is gone.
    assert tab.texts("article[data-family=m] tr[data-method]:visible th") == ["EDTalk", "SadTalker", "StyleTalk"]
    assert steps.count() == 2
    tab.page.get_by_role("searchbox", name="Methods").fill("sad")
    assert steps.count() == 0 and tab.page.locator("article[data-family=m] tr[data-method]:visible").count() == 1
    tab.page.get_by_role("searchbox", name="Methods").fill("")
    assert steps.count() == 3 and tab.page.locator("output[data-count-methods]").inner_text() == ""


def test_metrics_are_chosen_from_the_keyboard_and_columns_still_sort(open_tab: Any) -> None:
    tab = open_tab("leaderboard")
    shown = ".matrix[data-sortable] >> nth=0 >> thead th:visible"
    before = tab.page.locator(shown).count()
    tab.page.get_by_role("checkbox", name="fvd").focus()
    tab.page.keyboard.press("Space")
    assert tab.page.locator(shown).count() == before - 2  # both variants
    assert tab.page.locator("article[data-family=fvd]:visible").count() == 0
    tab.page.locator(".matrix th", has_text="Mouth-speech").first.locator("button").click()
    names = tab.texts(".matrix[data-sortable] >> nth=0 >> tbody th")
    assert names == ["SadTalker", "EDTalk", "StyleTalk", INJECTION]
    tab.page.get_by_role("checkbox", name="fvd").press("Space")
    assert tab.page.locator(shown).count() == before


def test_ranks_and_what_parts_the_rows_are_shown(open_tab: Any) -> None:
    tab = open_tab("leaderboard")
    assert tab.texts("article[data-family=m] tr[data-method] td:nth-child(4)") == ["1", "2", "3", "4"]
    steps = tab.texts("article[data-family=m] tr.step")
    assert len(steps) == 3 and all(step.startswith("established: p ") for step in steps)
    assert "intervals overlap" in tab.texts("article[data-family=fvd] tr.step")[0]


def labels_of_the_overview() -> list[str]:
    return [table.label for table in overview_tables(leaderboard_model().boards[0])]


def test_a_table_is_copied_as_latex(open_tab: Any) -> None:
    tab = open_tab("leaderboard")
    tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    button = tab.page.get_by_role("button", name="copy the overview as LaTeX")
    button.focus()
    tab.page.keyboard.press("Enter")
    tab.page.wait_for_function("() => document.activeElement.textContent === 'copied'")
    tables = parse_latex(tab.page.evaluate("navigator.clipboard.readText()"))
    assert [table.label for table in tables] == labels_of_the_overview()
    for table in tables:
        assert len(table.rows) == 4 and INJECTION in [row.labels[0].text for row in table.rows]


@pytest.mark.parametrize("refusal", ["undefined", "{ writeText: () => Promise.reject(new Error('not allowed')) }"])
def test_where_nothing_may_be_copied_the_table_is_selected(open_tab: Any, refusal: str) -> None:
    tab = open_tab("leaderboard")
    tab.page.evaluate(f"Object.defineProperty(navigator, 'clipboard', {{ value: {refusal} }})")
    tab.page.get_by_role("button", name="copy the overview as LaTeX").click()
    tab.page.get_by_text("selected", exact=True).wait_for()
    tables = parse_latex(tab.page.evaluate("getSelection().toString()").rstrip("\n") + "\n")
    assert [table.label for table in tables] == labels_of_the_overview()


def test_published_numbers_are_folded_and_open_from_the_keyboard(open_tab: Any) -> None:
    tab = open_tab("leaderboard")
    details = tab.page.locator("details.published")
    assert details.count() > 1 and not details.locator("table").first.is_visible()
    details.first.locator("summary").first.focus()
    tab.page.keyboard.press("Enter")
    details.first.locator("table").wait_for(state="visible")
    # Choosing metrics and methods is about what was measured.
    tab.page.get_by_role("searchbox", name="Methods").fill("nobody")
    assert details.first.locator("tbody tr:visible").count() > 3


def test_colours_are_chosen_on_the_page_and_stay(open_tab: Any) -> None:
    tab = open_tab("leaderboard", scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    tab.page.get_by_role("button", name="light colours").press("Enter")
    assert tab.page.evaluate(ground) == "rgb(252, 252, 250)"
    tab.page.reload()
    assert tab.page.evaluate(ground) == "rgb(252, 252, 250)"
    tab.page.get_by_role("button", name="dark colours").click()
    assert tab.page.evaluate(ground) == "rgb(20, 23, 26)"
    tab.page.emulate_media(media="print", color_scheme="light")
    assert tab.page.evaluate(ground) == "rgb(255, 255, 255)"


def test_without_scripts_the_leaderboard_keeps_its_numbers_and_latex(open_tab: Any) -> None:
    tab = open_tab("leaderboard", script=False)
    assert tab.page.locator("button, .tools:visible").count() == 0
    tab.page.locator(".latex summary").first.click()
    assert tab.page.locator(".latex pre").first.is_visible()
