"""Ranks with their uncertainty, held against every draw there is; corrected p-values against published ones."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from talkforge.core.errors import InputError
from talkforge.metrics.frechet import frechet_distance
from talkforge.metrics.intervals import frechet_bootstrap
from talkforge.metrics.paired import paired_frechet, stretch
from talkforge.metrics.ranking import Rank, holm, joint_frechet, joint_means, ranks_of_draws, ranks_of_intervals

VALUES = np.array([[1.0, 2.0, 6.0, 3.0, 4.0], [2.0, 2.5, 3.0, 4.0, 5.5], [9.0, 1.0, 5.0, 7.0, 3.0]])


def every_draw(values: np.ndarray) -> np.ndarray:
    """The stretched means of all K^K draws, one by one."""
    clips = values.shape[1]
    factor, centre = stretch([clips]), [sum(row) / clips for row in values]
    return np.array(
        [
            [c + factor * (sum(row[k] for k in draw) / clips - c) for row, c in zip(values, centre, strict=True)]
            for draw in product(range(clips), repeat=clips)
        ]
    )


def test_shares_and_ranks_are_those_of_all_draws() -> None:
    exact, drawn = every_draw(VALUES), joint_means(VALUES, n=20_000, seed=1)
    assert drawn.mean(axis=0) == pytest.approx(exact.mean(axis=0), abs=0.03)
    assert np.cov(drawn.T) == pytest.approx(np.cov(exact.T), rel=0.05, abs=0.02)  # the same clips for all methods
    ranks = ranks_of_draws(drawn)
    best = [float(np.mean([row[k] == min(row) for row in exact])) for k in range(3)]
    ties = float(np.mean([sorted(row)[0] == sorted(row)[1] for row in exact]))
    assert [rank.best for rank in ranks] == pytest.approx(best, abs=0.01 + ties)
    for k, rank in enumerate(ranks):
        places = [1 + sum(other < row[k] for other in row) for row in exact]
        assert np.mean([place < rank.low for place in places]) <= 0.03
        assert np.mean([place > rank.high for place in places]) <= 0.03
    assert ranks[2].high == 3 and ranks[0].low == 1


def test_alike_methods_share_all_ranks_and_an_ahead_one_has_its_own() -> None:
    assert ranks_of_draws(joint_means(VALUES[[0, 0, 0]])) == [Rank(1, 3, pytest.approx(1 / 3))] * 3
    ahead = np.stack([VALUES[0], VALUES[0] + 0.01, VALUES[0] + 0.02])  # the clips differ far more than the methods
    assert ranks_of_draws(joint_means(ahead)) == [Rank(1, 1, 1.0), Rank(2, 2, 0.0), Rank(3, 3, 0.0)]


def test_ranks_of_given_draws() -> None:
    """Two of four draws each way, and a tie in the third."""
    draws = np.array([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0], [0.0, 3.0]])
    assert ranks_of_draws(draws) == [Rank(1, 2, 0.625), Rank(1, 2, 0.375)]


@pytest.mark.parametrize("values", [np.zeros(3), np.zeros((2, 1)), np.array([[1.0, np.nan]])])
def test_what_cannot_be_drawn_is_refused(values: np.ndarray) -> None:
    with pytest.raises(InputError, match="finite, methods by two clips"):
        joint_means(values)


def test_joint_distances_are_those_of_single_methods_over_the_same_draws() -> None:
    """A column is the method's own bootstrap, stretched; and the difference of two is that of `paired_frechet`."""
    rng = np.random.default_rng(3)
    real, a, b = ([rng.normal(shift, 1, (4, 3)) for _ in range(8)] for shift in (0.0, 0.3, 0.6))
    draws = joint_frechet(real, [a, b], n=100, seed=5)
    assert draws.shape == (100, 2)
    low, high = frechet_bootstrap(real, a, n=100, seed=5) or (0, 0)
    value, factor = frechet_distance(np.concatenate(a), np.concatenate(real)), stretch([8])
    own = value + (np.quantile(draws[:, 0], [0.025, 0.975]) - value) / factor
    assert [max(0.0, own[0]), own[1]] == pytest.approx([low, high], abs=1e-9)
    gaps = draws[:, 0] - draws[:, 1]
    paired = paired_frechet(real, a, b, 100, 5)
    assert paired.ci95 is not None
    assert np.ptp(np.quantile(gaps, [0.025, 0.975])) == pytest.approx(paired.ci95[1] - paired.ci95[0])
    with pytest.raises(InputError, match="8 real clips for \\[7\\]"):
        joint_frechet(real, [a[:7]])


def ends(ranks: list[Rank]) -> list[tuple[int, int]]:
    return [(rank.low, rank.high) for rank in ranks]


def test_ranks_by_intervals() -> None:
    assert ends(ranks_of_intervals([(0, 1), (2, 3), (2.5, 4), (5, 6)])) == [(1, 1), (2, 3), (2, 3), (4, 4)]
    assert ends(ranks_of_intervals([(0, 9), (1, 8), (2, 7)])) == [(1, 3)] * 3
    assert ends(ranks_of_intervals([(0, 1), None, (2, 3)])) == [(1, 2), (1, 3), (2, 3)]
    assert ends(ranks_of_intervals([(0, 1), (1, 2)])) == [(1, 2)] * 2  # they touch


def test_a_paired_test_outweighs_intervals() -> None:
    overlapping, apart = [(0, 9), (1, 8), (2, 7)], [(0, 1), (2, 3), (4, 5)]
    assert ends(ranks_of_intervals(overlapping, [True, None])) == [(1, 2), (2, 3), (1, 3)]
    assert ends(ranks_of_intervals(overlapping, [True, True])) == [(1, 1), (2, 2), (3, 3)]  # and so the first the last
    assert ends(ranks_of_intervals(apart, [False, None])) == [(1, 2), (1, 2), (3, 3)]


def test_holm_is_what_r_prints() -> None:
    """p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm") of R."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.01, None, 0.04]) == [pytest.approx(0.02), None, pytest.approx(0.04)]
    assert holm([0.7, 0.8]) == [1.0, 1.0]
    assert holm([]) == [] and holm([None]) == [None]
