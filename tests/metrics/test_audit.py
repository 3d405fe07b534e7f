"""Verdicts over scores whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr
from talkforge.metrics.audit import Finding, LevelScore, half_width, judge, spearman
from talkforge.metrics.base import metrics
from talkforge.tasks.corruptions import HARMS, corruptions


def scores(values: list[float | None], half: float = 1.0) -> list[LevelScore]:
    return [
        LevelScore(level, value, None if value is None else (value - half, value + half), 7, "no_face")
        for level, value in enumerate(values)
    ]


def verdict(
    values: list[float | None], *, expected: bool | None = True, higher: bool = False, half: float = 1.0
) -> str:
    return judge(scores(values, half), higher_is_better=higher, expected=expected).verdict


def test_rank_correlation_has_its_closed_forms() -> None:
    """1 - 6 sum d^2 / n (n^2 - 1) without ties: here d = 0, 1, 1, 0, 0."""
    assert spearman([0, 1, 2, 3, 4], [5, 7, 6, 8, 9]) == pytest.approx(1 - 6 * 2 / (5 * 24))
    assert spearman([0, 1, 2], [3, 2, 1]) == pytest.approx(-1)
    assert spearman([0, 1, 2], [4, 4, 4]) is None
    assert spearman([0], [1]) is None


def test_rank_correlation_with_ties_agrees_with_scipy() -> None:
    drawn = np.random.default_rng(0).integers(0, 4, (20, 2, 9)).astype(float)
    for x, y in drawn:
        assert spearman(list(x), list(y)) == pytest.approx(spearmanr(x, y).statistic)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([10, 11, 12, 13, 14], "notices"),
        ([10, 10.1, 10.2, 10.3, 10.4], "weak"),  # in order, within the interval
        ([10, 14, 9, 8, 12], "weak"),  # far, not in order
        ([10, 10.2, 9.9, 10.1, 10], "blind"),
        ([10, 10, 10, 10, 10], "blind"),
        ([10, 9, 8, 7, 6], "wrong way"),
        ([10, 9.9, 9.8, 9.7, 9.6], "blind"),  # the wrong way, within the interval
        ([10, None, 12, 13, 14], "no value"),
    ],
)
def test_verdicts_of_a_metric_that_should_notice(values: list[float | None], expected: str) -> None:
    assert verdict(values) == expected


def test_a_metric_that_need_not_notice() -> None:
    assert verdict([10, 10, 10], expected=False) == "unaffected"
    assert verdict([10, 12, 14], expected=False) == "reacts too"
    assert verdict([10, 8, 6], expected=False) == "wrong way"
    assert verdict([10, 12, 14], expected=None) == "reacts too"


def test_the_direction_is_the_metrics_own() -> None:
    assert verdict([0.9, 0.6, 0.3], higher=True, half=0.1) == "notices"
    assert verdict([0.3, 0.6, 0.9], higher=True, half=0.1) == "wrong way"
    found = judge(scores([0.9, 0.6, 0.3], 0.1), higher_is_better=True, expected=True)
    assert found.worsening == pytest.approx(0.6)
    assert found.effect == pytest.approx(6.0)
    assert found.rho == pytest.approx(1.0)


def test_the_yardstick_is_level_0_unless_that_is_a_point() -> None:
    assert half_width([LevelScore(1, 5, (1, 9)), LevelScore(0, 3, (2, 4))]) == 1.0
    assert half_width([LevelScore(0, 3, (3, 3)), LevelScore(1, 5, (1, 9))]) == 4.0
    assert half_width([LevelScore(0, 3, None), LevelScore(1, 5, (5, 5))]) is None


def test_movement_without_any_interval_has_no_size() -> None:
    found = judge([LevelScore(0, 1.0), LevelScore(1, 2.0)], higher_is_better=False, expected=True)
    assert found == Finding(True, 1.0, 1.0, None, None, "no value", "no interval to measure the movement by")


def test_arithmetic_noise_is_no_movement() -> None:
    found = judge(scores([3.0, 3.0 + 1e-12, 3.0 - 1e-12], half=1e-13), higher_is_better=False, expected=False)
    assert (found.worsening, found.effect, found.verdict) == (0.0, 0.0, "unaffected")


def test_scores_without_level_0_are_refused() -> None:
    with pytest.raises(ValueError, match="level 0"):
        judge(scores([1, 2])[1:], higher_is_better=False, expected=True)


def test_for_a_metric_whose_best_is_real_every_movement_is_for_the_worse() -> None:
    for values in ([10.0, 12.0, 14.0], [10.0, 8.0, 6.0]):
        found = judge(scores(values), higher_is_better=True, expected=True, best_is_real=True)
        assert (found.worsening, found.rho, found.verdict) == (4.0, pytest.approx(1.0), "notices")


def test_every_metric_says_what_it_measures_in_the_words_of_the_corruptions() -> None:
    assert {name for one in corruptions.all() for name in one.harms} <= set(HARMS)
    assert {word for m in metrics.all() for word in m.spec.measures} <= set(HARMS)
    assert [m.spec.id for m in metrics.all() if not m.spec.measures] == []
