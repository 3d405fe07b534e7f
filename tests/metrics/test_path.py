"""Lines between vectors: closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from talkforge.core.errors import InputError
from talkforge.metrics.path import points_between, position_on, steadiness

START, END = np.array([1.0, 0.0, 2.0]), np.array([3.0, 4.0, 2.0])


def test_points_and_their_places_are_inverse() -> None:
    points = points_between(START, END, 5)
    assert np.array_equal(points[0], START) and np.array_equal(points[-1], END)
    np.testing.assert_allclose(position_on(points, START, END), [0, 0.25, 0.5, 0.75, 1])
    beside = points + np.array([0.0, 0.0, 9.0])  # at right angles to the line
    np.testing.assert_allclose(position_on(beside, START, END), [0, 0.25, 0.5, 0.75, 1])
    assert position_on(2 * END[None] - START, START, END) == pytest.approx(2.0)


def test_a_line_needs_two_ends() -> None:
    with pytest.raises(InputError):
        position_on(START[None], START, START)
    with pytest.raises(InputError):
        points_between(START, END, 1)


def test_steadiness() -> None:
    even = steadiness([0.0, 1.0, 2.0, 3.0, 4.0])
    assert (even.rho, even.rising, even.largest) == (pytest.approx(1.0), 1.0, 0.25)
    jump = steadiness([0.0, 0.0, 0.0, 5.0])
    assert jump.largest == 1.0 and jump.rising == pytest.approx(1 / 3)
    assert steadiness([3.0, 2.0, 1.0]).rho == pytest.approx(-1.0)
    # Ranks 0 1 2 3 against 1 3 2 4: 1 - 6 * (1 + 1) / (4 * 15)
    assert steadiness([1.0, 3.0, 2.0, 4.0]).rho == pytest.approx(0.8)
    flat = steadiness([2.0, 2.0, 2.0])
    assert flat.rho is None and flat.largest is None and flat.rising == 0.0
    for bad in ([1.0, 2.0], [1.0, np.nan, 2.0]):
        with pytest.raises(InputError):
            steadiness(bad)
