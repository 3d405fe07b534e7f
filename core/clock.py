"""How long each stage of a piece of work took: wall seconds always, CPU seconds where they can be told apart.

CPU seconds are those of the whole process, because libraries compute on threads of their own. So they belong to one
piece of work only while it is alone in its process; as soon as two run side by side, both say null.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from threading import Lock
from typing import Any, Self, TypeVar

T = TypeVar("T")

_LOCK = Lock()
_RUNNING: list[StageClock] = []


class StageClock:
    """Times of one piece of work by stage. A context manager around the whole of it.

    Stages do not nest: what runs inside a stage counts to the innermost one alone.
    """

    def __init__(self) -> None:
        self._wall: defaultdict[str, float] = defaultdict(float)
        self._cpu: defaultdict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._since = (0.0, 0.0)
        self.alone = True

    def __enter__(self) -> Self:
        with _LOCK:
            _RUNNING.append(self)
            if len(_RUNNING) > 1:
                for clock in _RUNNING:
                    clock.alone = False
        return self

    def __exit__(self, *exception: object) -> None:
        with _LOCK:
            _RUNNING.remove(self)

    def _switch(self) -> None:
        """Books the time since the last switch to the innermost open stage."""
        now = (time.perf_counter(), time.process_time())
        if self._open:
            self._wall[self._open[-1]] += now[0] - self._since[0]
            self._cpu[self._open[-1]] += now[1] - self._since[1]
        self._since = now

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Books what happens inside to `name`."""
        self._switch()
        self._open.append(name)
        try:
            yield
        finally:
            self._switch()
            self._open.pop()

    def each(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """The items, with the time that each takes to come booked to `name`."""
        iterator = iter(items)
        while True:
            with self.stage(name):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def as_dict(self) -> dict[str, dict[str, float | None]]:
        """Stage -> {"wall_s", "cpu_s"}, seconds; `cpu_s` is null where other work ran in the process."""
        return {
            name: {"wall_s": round(wall, 3), "cpu_s": round(self._cpu[name], 3) if self.alone else None}
            for name, wall in sorted(self._wall.items())
        }


def add_stages(parts: Iterable[Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, float | None]]:
    """Sums of several clocks' figures; `cpu_s` is null where any of them does not know it."""
    total: dict[str, dict[str, float | None]] = {}
    for part in parts:
        for name, seconds in part.items():
            known = total.setdefault(name, {"wall_s": 0.0, "cpu_s": 0.0})
            for kind in ("wall_s", "cpu_s"):
                known[kind] = _sum(known[kind], seconds[kind])
    return total


def _sum(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else round(a + b, 3)
