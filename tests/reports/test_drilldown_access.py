"""The drill-down pages by other means: names of controls, contrast, order of headings and of the keyboard.

The checks are of this house: what they hold the pages to is WCAG 2.2, 1.4.3 (contrast 4.5), 2.4.3, 2.4.7 and 4.1.2.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from talkforge.tests.reports.drilldown_tabs import (
    OF_TWO,
    browser,
    chromium,
    open_tab,
    pages,
    ready,
)

pytestmark = pytest.mark.browser

__all__ = ["browser", "chromium", "open_tab", "pages"]  # fixtures


CONTRAST = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const over = (top, under) => top.slice(0, 3).map((c, k) => c * (top[3] ?? 1) + under[k] * (1 - (top[3] ?? 1)));
  const light = (rgb) => {
    const [r, g, b] = rgb.map((c) => (c / 255 <= 0.03928 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (node) => {
    const layers = [];
    for (let at = node; at; at = at.parentElement) layers.unshift(parse(getComputedStyle(at).backgroundColor));
    return layers.reduce((under, top) => over(top, under), [255, 255, 255]);
  };
  const bad = [];
  for (const node of document.querySelectorAll('body *')) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || !node.offsetParent || node.closest('.sr, .screen-box, option')) continue;
    const [a, b] = [light(over(parse(getComputedStyle(node).color), ground(node))), light(ground(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const words = node.textContent.trim().slice(0, 30);
    if (ratio < 4.5) bad.push(`${node.tagName}.${node.className} "${words}" ${ratio.toFixed(2)}`);
  }
  return bad;
}"""

CONTROLS = 'a[href], button, input, select, video, summary, [tabindex="0"], svg[role], img'
NAMELESS = """(controls) => [...document.querySelectorAll(controls)]
  .filter((node) => node.checkVisibility() && !(node.alt === '' && node.closest('a')))
  .filter((node) => !(node.getAttribute('aria-label') || node.getAttribute('aria-labelledby') || node.alt
    || (node.labels && node.labels.length && node.labels[0].textContent.trim()) || node.textContent.trim()))
  .map((node) => node.outerHTML.slice(0, 120))"""

TWICE = """() => { const ids = [...document.querySelectorAll('[id]')].map((node) => node.id);
  return ids.filter((id, k) => ids.indexOf(id) !== k); }"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("name", "hash_"), [("method", "#clip-1"), ("compare", OF_TWO)])
def test_text_is_readable_and_every_control_has_a_name(open_tab: Any, name: str, hash_: str, scheme: str) -> None:
    tab = open_tab(name, hash_, scheme=scheme)
    ready(tab, 2 if name == "method" else 3)
    tab.page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert tab.page.evaluate(CONTRAST) == []
    assert tab.page.evaluate(NAMELESS, CONTROLS) == []
    assert tab.page.evaluate(TWICE) == []
    assert tab.page.locator("main, header.page, footer").count() == 3 and tab.page.locator("h1").count() == 1
    levels = tab.page.locator("h1, h2, h3, h4").evaluate_all(
        "(all) => all.filter((h) => h.checkVisibility()).map((h) => +h.tagName[1])"
    )
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_the_tab_key_reaches_every_control_in_order_and_shows_where_it_is(open_tab: Any) -> None:
    tab = open_tab("method", "#clip-0")
    ready(tab)
    wanted = ["previous", "next", "close", "play", "back", "", "forth", "speed", "sound", "loop"]
    for expected in wanted:
        tab.page.keyboard.press("Tab")
        name, outline = tab.page.evaluate(
            "[document.activeElement.dataset.do ?? document.activeElement.dataset.set ?? '',"
            " getComputedStyle(document.activeElement).outlineStyle]"
        )
        assert (name, outline) == (expected, "solid")
