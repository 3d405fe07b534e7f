"""Stage clocks: what is booked where, and when CPU seconds are not known. Time is told by the test."""

from __future__ import annotations

import pytest
from talkforge.core import clock as module
from talkforge.core.clock import StageClock, add_stages


class Timer:
    """Stands for the module `time`: it advances when the test says so."""

    def __init__(self) -> None:
        self.wall = self.cpu = 100.0

    def perf_counter(self) -> float:
        return self.wall

    def process_time(self) -> float:
        return self.cpu

    def work(self, seconds: float) -> None:
        self.wall += seconds
        self.cpu += seconds

    def wait(self, seconds: float) -> None:
        self.wall += seconds


@pytest.fixture
def timer(monkeypatch: pytest.MonkeyPatch) -> Timer:
    fake = Timer()
    monkeypatch.setattr(module, "time", fake)
    return fake


def test_time_goes_to_the_innermost_stage(timer: Timer) -> None:
    with StageClock() as clock, clock.stage("outer"):
        timer.work(1)
        with clock.stage("inner"):
            timer.work(3)
            timer.wait(2)
        timer.work(0.5)
    assert clock.as_dict() == {"inner": {"wall_s": 5, "cpu_s": 3}, "outer": {"wall_s": 1.5, "cpu_s": 1.5}}


def test_an_iterator_is_charged_for_its_items_and_not_for_what_is_done_with_them(timer: Timer) -> None:
    def slow():
        for k in range(3):
            timer.work(1)
            yield k

    with StageClock() as clock:
        seen = []
        for item in clock.each("decode", slow()):
            timer.work(10)  # between stages: nobody's
            seen.append(item)
    assert seen == [0, 1, 2]
    assert clock.as_dict() == {"decode": {"wall_s": 3, "cpu_s": 3}}


def test_an_error_closes_its_stage(timer: Timer) -> None:
    with StageClock() as clock:
        with pytest.raises(ValueError), clock.stage("broken"):
            timer.work(1)
            raise ValueError
        timer.work(4)
        with clock.stage("next"):
            timer.work(2)
    assert {name: part["cpu_s"] for name, part in clock.as_dict().items()} == {"broken": 1, "next": 2}


def test_cpu_seconds_are_null_for_all_that_ran_side_by_side(timer: Timer) -> None:
    with StageClock() as first, first.stage("a"), StageClock() as second, second.stage("a"):
        timer.work(1)
    with StageClock() as third, third.stage("a"):
        timer.work(2)
    assert first.as_dict()["a"] == {"wall_s": 1, "cpu_s": None} == second.as_dict()["a"]
    assert third.as_dict()["a"] == {"wall_s": 2, "cpu_s": 2}
    assert add_stages([first.as_dict(), third.as_dict()]) == {"a": {"wall_s": 3, "cpu_s": None}}
    assert add_stages([third.as_dict(), third.as_dict()]) == {"a": {"wall_s": 4, "cpu_s": 4}}


def test_real_time_passes() -> None:
    with StageClock() as clock, clock.stage("sum"):
        sum(range(200_000))
    found = clock.as_dict()["sum"]
    assert found["wall_s"] is not None and found["wall_s"] > 0 and found["cpu_s"] is not None and found["cpu_s"] > 0
