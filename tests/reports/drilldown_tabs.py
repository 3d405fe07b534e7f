"""Pages of invented methods with videos that play, and tabs of headless Chromium that hold them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from talkforge.datasets.encode import VideoWriter
from talkforge.reports.drilldown import File, Method, Strip
from talkforge.reports.drilldown_links import relative_href
from talkforge.reports.drilldown_page import render_compare, render_method
from talkforge.tests.reports.demo import INJECTION, strip
from talkforge.tests.reports.drilldown_demo import demo_method
from talkforge.tests.reports.test_browser import FLAGS, Tab, chromium, kept

__all__ = ["browser", "chromium", "open_tab", "pages"]
FPS = 25
NAMES = ["plain.mp4", "a b #1 100% 'q' \"d\"?.mp4", "ü名&x.mp4"]
LONG, SHORT = 75, 60  # frames of the real and of generated videos
CODECS = 'video/mp4; codecs="avc1.64001f,mp4a.40.2"'
OF_TWO = "#clip=mead%2FM003%2Ffront%2Flevel_3%2F000"
TIMES = "[...document.querySelectorAll('.screen video:not([hidden])')].map((v) => v.currentTime)"


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    """A running browser that plays without a gesture and without a sound device."""
    api = pytest.importorskip("playwright.sync_api", reason="the Python package playwright is not installed")
    with api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=[*FLAGS, "--mute-audio"])
        page = running.new_page()
        plays = page.evaluate(
            "document.createElement('video').canPlayType('video/mp4; codecs=\"avc1.64001f,mp4a.40.2\"')"
        )
        page.close()
        if not plays:
            pytest.skip("this build of Chromium plays no H.264")
        yield running
        running.close()


def video(path: Path, frames: int) -> None:
    """A clip whose picture lightens, with a tone."""
    tone = 0.05 * np.sin(2 * np.pi * 300 * np.arange(frames * 640) / 16000)
    with VideoWriter(path, 64, 64, audio=tone) as out:
        for k in range(frames):
            out.write(np.full((64, 64, 3), 40 + 2 * k, dtype=np.uint8))


def with_files(method: Method, root: Path, side: str, page: Path) -> Method:
    """The method whose first clips have videos and frames that are there."""
    clips = list(method.clips)
    for k, name in enumerate(NAMES):
        shutil.copy(root / "short.mp4", root / side / name)
        (root / f"{k}.jpg").write_bytes(strip([0.1 * j for j in range(10)], "#d9a78c"))
        frames = Strip(File(relative_href(root / f"{k}.jpg", page), name=name), tuple(0.24 * j for j in range(10)))
        clips[k] = replace(
            clips[k],
            real=File(relative_href(root / "real" / name, page), name=name),
            generated=File(relative_href(root / side / name, page), name=name),
            strip_real=frames,
            strip_generated=frames,
        )
    return replace(method, clips=clips)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A method's page and one of two, in a folder whose name wants encoding; one clip is named like markup."""
    root = tmp_path_factory.mktemp("pages") / "odd #%20 folder"
    for folder in ("real", "one", "two"):
        (root / folder).mkdir(parents=True)
    for name, frames in (("long", LONG), ("short", SHORT)):
        video(root / f"{name}.mp4", frames)
    for name in NAMES:
        shutil.copy(root / "long.mp4", root / "real" / name)
    texts: dict[str, str] = {}
    made: list[Method] = []
    for side, method in (("one", INJECTION), ("two", "B & co")):
        own = replace(demo_method(method), folder=f"method-{side}")
        clips = [replace(clip, generated=File(reason="no generated file"), real=File(reason="gone"),
                         strip_real=Strip(File(reason="none")), strip_generated=Strip(File(reason="none")))
                 for clip in own.clips]  # fmt: skip
        clips[1] = replace(clips[1], name=INJECTION)
        made.append(replace(own, clips=clips))
    one = with_files(made[0], root, "one", root / "method-one")
    texts["method-one/index.html"] = render_method(one, index="../index.html", compare="../compare.html")
    pair = [with_files(method, root, side, root) for method, side in zip(made, ("one", "two"), strict=True)]
    texts["compare.html"] = render_compare(pair, index="index.html")
    (root / "method-one").mkdir(exist_ok=True)
    for name, text in texts.items():
        (root / name).write_text(text, encoding="utf-8")
    return {"method": root / "method-one" / "index.html", "compare": root / "compare.html"}


@dataclass(frozen=True)
class Place:
    """A page, and where in it to begin."""

    page: Path
    hash: str

    def as_uri(self) -> str:
        """Its address."""
        return self.page.as_uri() + self.hash


@pytest.fixture
def open_tab(browser: Any, pages: dict[str, Path]) -> Iterator[Any]:
    """Opens a page by name at a hash."""

    def made(name: str, hash_: str = "", **options: Any) -> Tab:
        return Tab(browser, Place(pages[name], hash_), **options)  # type: ignore[arg-type]

    yield from kept(made)


def ready(tab: Tab, count: int = 2) -> None:
    """Waits until all videos stand on a frame."""
    tab.page.wait_for_function(
        "(n) => { const v = [...document.querySelectorAll('.screen video:not([hidden])')];"
        " return v.length === n && v.every((one) => one.readyState >= 3 && !one.seeking && one.currentTime > 0); }",
        arg=count,
    )


def standing(tab: Tab) -> list[int]:
    """The frame that each video stands on, once all have come to rest."""
    tab.page.wait_for_function(
        "() => [...document.querySelectorAll('.screen video:not([hidden])')].every((v) => v.paused && !v.seeking)"
    )
    return [int(time * FPS) for time in tab.page.evaluate(TIMES)]
