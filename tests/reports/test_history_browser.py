"""The history's page in headless Chromium: silent, off the network, inside the window, letters apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from talkforge.reports.history_page import history_model, render_history_html
from talkforge.tests.reports.demo import INJECTION
from talkforge.tests.reports.test_browser import Tab, browser, chromium
from talkforge.tests.reports.test_history import entry

pytestmark = pytest.mark.browser

__all__ = ["browser", "chromium"]  # fixtures

# Pairs of labels below one axis that lie on each other, and dots outside their picture.
OVERLAPS = """() => [...document.querySelectorAll('svg.over')].flatMap((svg) => {
  const boxes = [...svg.querySelectorAll('.name')].map((text) => text.getBoundingClientRect());
  return boxes.slice(1).filter((box, k) => box.left < boxes[k].right).map((box) => box.left);
}).length"""
OUTSIDE = """() => [...document.querySelectorAll('svg.over .mark')].filter((dot) => {
  const [a, b] = [dot.getBoundingClientRect(), dot.closest('svg').getBoundingClientRect()];
  return a.left < b.left || a.right > b.right || a.top < b.top || a.bottom > b.bottom;
}).length"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty entries of two methods, one named like markup; the definition changes half-way."""
    entries = [
        entry(f"{k:040x}", method=method, dirty=k == 39, value=400.0 - k, ci95=[390.0 - k, 410.0 - k],
              settings={"seed": int(k > 19)})
        for k in range(40)
        for method in ("mine", INJECTION)
    ]  # fmt: skip
    file = tmp_path_factory.mktemp("history") / "index.html"
    file.write_text(render_history_html(history_model(entries)), encoding="utf-8")
    return file


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1400])
def test_the_page_fits_and_is_silent(browser: Any, page: Path, width: int, scheme: str) -> None:
    tab = Tab(browser, page, width=width, scheme=scheme)
    try:
        assert tab.overflow() == 0
        assert tab.page.evaluate(OVERLAPS) == 0 and tab.page.evaluate(OUTSIDE) == 0
        tab.page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        assert tab.overflow() == 0
        assert tab.log == [] and all(url.startswith(("file:", "data:")) for url in tab.requests)
        color = "(node) => getComputedStyle(node).stroke"
        assert (
            tab.page.locator("svg.over .path").first.evaluate(color)
            == {
                "light": "rgb(27, 90, 134)",
                "dark": "rgb(132, 189, 230)",
            }[scheme]
        ), "the pinned styles are in force"
    finally:
        tab.context.close()


def test_the_page_needs_no_script(browser: Any, page: Path) -> None:
    tab = Tab(browser, page, script=False)
    assert tab.page.locator("svg.over .mark").count() == 2 * 3 * 40  # methods, metrics with a value, entries
    assert "not comparable across 0000000: seed: 0 → 1" in tab.texts(".parts li")
    tab.context.close()
