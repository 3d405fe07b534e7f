"""The gate: together or alone, never both, and nobody waits for ever."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Lock

import pytest
from talkforge.core.gate import Gate


def test_users_are_inside_together() -> None:
    gate, meeting = Gate(), Barrier(4, timeout=20)

    def use() -> None:
        with gate.shared():
            meeting.wait()  # passes only when all four are inside at once

    with ThreadPoolExecutor(4) as pool:
        assert [one.result() for one in [pool.submit(use) for _ in range(4)]] == [None] * 4


def test_one_who_is_alone_is_alone() -> None:
    gate, lock = Gate(), Lock()
    inside: list[str] = []
    faults: list[list[str]] = []

    def enter(kind: str) -> None:
        for _ in range(50):
            with gate.alone() if kind == "alone" else gate.shared():
                with lock:
                    inside.append(kind)
                    if "alone" in inside and len(inside) > 1:
                        faults.append(list(inside))
                time.sleep(0.0002)
                with lock:
                    inside.remove(kind)

    with ThreadPoolExecutor(6) as pool:
        for one in [pool.submit(enter, kind) for kind in ("alone", "alone", *["shared"] * 4)]:
            one.result()
    assert faults == [] and inside == []


@pytest.mark.parametrize("kind", ["shared", "alone"])
def test_an_error_opens_the_gate_again(kind: str) -> None:
    gate = Gate()
    with pytest.raises(ValueError), getattr(gate, kind)():
        raise ValueError
    with gate.alone():
        pass
    with gate.shared():
        pass
