"""Progress on stderr: a bar on a terminal, a line now and then elsewhere, nothing for work that is over at once."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import TaskID

T = TypeVar("T")
QUIET_SECONDS = 2.0
LINE_SECONDS = 20.0


def track(items: Sequence[T], what: str) -> Iterator[T]:
    """Gives the items and shows how many are done.

    Args:
        items: what is worked through.
        what: shown before the count.
    """
    if sys.stderr.isatty():
        yield from _bar(items, what)
        return
    begun = last = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - begun > QUIET_SECONDS and now - last > LINE_SECONDS:
            print(f"{what}: {done} of {len(items)}", file=sys.stderr, flush=True)
            last = now
        yield item


def _bar(items: Sequence[T], what: str) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import track as rich_track

    yield from rich_track(items, description=what, console=Console(stderr=True), transient=True)


@contextmanager
def downloads() -> Iterator[Callable[[str, int, int | None], None]]:
    """A callback (label, bytes so far, total) that draws a bar a file on a terminal and prints a line a file elsewhere.

    Everything goes to stderr.
    """
    if not sys.stderr.isatty():
        seen: set[str] = set()

        def line(label: str, done: int, total: int | None) -> None:
            if label not in seen:
                seen.add(label)
                size = f", {total / 1e6:.1f} MB" if total else ""
                print(f"getting {label}{size}", file=sys.stderr, flush=True)

        yield line
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def bar(label: str, done: int, total: int | None) -> None:
            if label not in tasks:
                tasks[label] = bars.add_task(label, total=total)
            bars.update(tasks[label], completed=done, total=total)

        yield bar
