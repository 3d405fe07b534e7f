"""Programs that this process has started and that must not outlive it: an interruption ends them first."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import RLock
from typing import TypeVar

T = TypeVar("T")
_ends: dict[object, Callable[[], None]] = {}
_lock = RLock()


@contextmanager
def kept(start: Callable[[], T], end: Callable[[T], None]) -> Iterator[T]:
    """Starts a program; inside the block `end_all`, and the end of this process, call `end` with it.

    An interruption comes before the start or after it is noted, never between.
    """
    key = object()
    with _lock:
        started = start()
        _ends[key] = partial(end, started)
    try:
        yield started
    finally:
        with _lock:
            _ends.pop(key, None)


def end_all() -> None:
    """Ends every program that is still kept. Harmless when repeated."""
    with _lock:
        ends = list(_ends.values())
        _ends.clear()
    for end in ends:
        end()


atexit.register(end_all)
