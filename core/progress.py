"""Progress on stderr: a bar on a terminal, a line now and then elsewhere, nothing for work that is over at once."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")
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
    last = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - last > LINE_SECONDS:
            print(f"{what}: {done} of {len(items)}", file=sys.stderr, flush=True)
            last = now
        yield item


def _bar(items: Sequence[T], what: str) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import track as rich_track

    yield from rich_track(items, description=what, console=Console(stderr=True), transient=True)
