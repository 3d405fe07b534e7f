"""Counters add up, whoever counted, and survive JSON."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import fields

from talkforge.core.counters import Counters


def filled(step: int) -> Counters:
    """Each counter with a value of its own."""
    values = {field.name: (number + 1) * step for number, field in enumerate(fields(Counters))}
    return Counters(**values | {"forwards": Counter({"i3d": step, f"net-{step}": 2 * step})})


def test_merging_adds_every_counter() -> None:
    one, two = filled(1), filled(10)
    merged = one.merge(two)
    assert merged is one
    for number, field in enumerate(fields(Counters)):
        if field.name != "forwards":
            assert getattr(merged, field.name) == (number + 1) * 11, field.name
    assert merged.forwards == {"i3d": 11, "net-1": 2, "net-10": 20}
    assert two == filled(10), "the other side stays as it was"


def test_the_order_of_merging_does_not_matter() -> None:
    orders = [(1, 2, 3), (3, 1, 2), (2, 3, 1)]
    dicts = []
    for order in orders:
        total = Counters()
        for step in order:
            total.merge(filled(step))
        dicts.append(json.dumps(total.as_dict()))
    assert len(set(dicts)) == 1


def test_counters_come_back_from_json() -> None:
    made = filled(3)
    again = Counters.from_dict(json.loads(json.dumps(made.as_dict())))
    assert again == made
    again.forwards["new"] += 1  # still a Counter


def test_every_counter_is_written() -> None:
    assert set(Counters().as_dict()) == {field.name for field in fields(Counters)}


def test_counters_do_not_share_their_networks() -> None:
    one, two = Counters(), Counters()
    one.forwards["i3d"] += 1
    assert two.forwards == {}
