"""Programs that this process has started and that must not outlive it: an interruption ends them first."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

_ends: dict[int, Callable[[], None]] = {}
_lock = Lock()


@contextmanager
def kept(end: Callable[[], None]) -> Iterator[None]:
    """Inside the block `end_all`, and the end of this process, call `end`."""
    key = id(end)
    with _lock:
        _ends[key] = end
    try:
        yield
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
