"""Mouth against loudness: closed forms of each step, and of the correlation at a lag."""

from __future__ import annotations

import numpy as np
import pytest
from talkforge.core import mouth_sync
from talkforge.core.errors import TooShort, Undetermined
from talkforge.core.mouth_sync import (
    JITTER,
    MAX_LAG,
    MIN_FRAMES,
    RANGE_DB,
    activity,
    best_correlation,
    correlation_at,
    correlations,
    loudness,
    mouth_opening,
    moving_correlations,
    offset,
    smooth,
)
from talkforge.tests.metrics.rows import faces_with

NAN = np.nan
LAGS = np.arange(-MAX_LAG, MAX_LAG + 1)


# --- the steps -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eyes", [1.0, 87.5])
def test_the_opening_is_measured_in_eye_distances_and_in_three_dimensions(eyes: float) -> None:
    wanted = np.array([0.0, 0.1, NAN, 0.25])
    np.testing.assert_allclose(mouth_opening(faces_with(wanted, eyes=eyes).array("points")), wanted, atol=1e-5)


def test_the_opening_is_the_mean_over_three_pairs() -> None:
    row = faces_with(np.full(2, 0.1))
    points = row.columns["points"].reshape(2, 478, 3)
    points[0, 13] = points[0, 14]  # the middle pair is shut
    assert mouth_opening(row.array("points")) == pytest.approx([0.2 / 3, 0.1], abs=1e-5)


def test_a_steady_opening_is_a_steady_activity() -> None:
    np.testing.assert_allclose(activity(0.03 * np.arange(12)), 0.03, atol=1e-12)
    np.testing.assert_allclose(activity(0.5 - 0.03 * np.arange(12)), 0.03, atol=1e-12, err_msg="closing counts too")
    assert activity(np.full(9, 0.2)).tolist() == [0.0] * 9


def test_a_single_twitch_is_spread_by_the_two_means() -> None:
    """|o_(k+1) - o_(k-1)| / 2 is 1/2 on both sides of it; two means over 3 weigh 1 2 3 2 1 ninths."""
    opening = np.zeros(15)
    opening[7] = 1.0
    np.testing.assert_allclose(activity(opening)[3:12] * 18, [0, 1, 2, 4, 4, 4, 2, 1, 0], atol=1e-12)


def test_the_mean_over_three_knows_its_ends_and_its_gaps() -> None:
    np.testing.assert_allclose(smooth(np.array([0.0, 3.0, 6.0, 9.0])), [1.5, 3, 6, 7.5])
    np.testing.assert_allclose(smooth(np.array([1.0, NAN, 5.0])), [1, 3, 5])
    np.testing.assert_allclose(smooth(np.array([2.0, NAN, NAN, NAN, 4.0])), [2, 2, NAN, 4, 4])
    assert np.isnan(smooth(np.full(4, NAN))).all()


def test_loudness_is_cut_below_its_range() -> None:
    levels = loudness(np.array([-20.0, -20 - RANGE_DB / 2, -20 - RANGE_DB, -80.0], np.float32))
    assert levels.tolist() == [RANGE_DB, RANGE_DB / 2, 0.0, 0.0]


# --- r(d) ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("late", [0, 1, 6, 15, -1, -6, -15])
def test_a_shifted_copy_peaks_at_its_shift(late: int) -> None:
    """x_k = e_(k - late): the mouth comes after the sound when `late` is positive."""
    level = np.convolve(np.random.default_rng(1).normal(size=240), np.ones(5), mode="same")
    moving = np.roll(level, late)
    curve = np.array([correlation_at(moving[20:-20], level[20:-20], int(lag)) for lag in LAGS])
    assert LAGS[curve.argmax()] == late and curve.max() == pytest.approx(1, abs=1e-4)
    assert np.delete(curve, curve.argmax()).max() < 0.9


@pytest.mark.parametrize("lag", [-20, -3, 0, 1, 17])
def test_without_the_floor_it_is_pearsons_correlation(lag: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against numpy on the overlap, with unknown frames on both sides."""
    monkeypatch.setattr(mouth_sync, "JITTER", 0.0)
    rng = np.random.default_rng(5)
    moving, level = rng.normal(size=80), rng.normal(size=80)
    moving[[3, 40, 41]] = NAN
    level[[10, 79]] = NAN
    frames = [k for k in range(80) if 0 <= k - lag < 80 and not np.isnan(moving[k] + level[k - lag])]
    wanted = np.corrcoef(moving[frames], level[[k - lag for k in frames]])[0, 1]
    assert correlation_at(moving, level, lag) == pytest.approx(wanted, abs=1e-12)


def test_the_floor_shrinks_what_moves_no_more_than_jitter() -> None:
    """x = s times a unit-variance signal: n s^2 is added to n s^2, so r falls to 1 / sqrt 2."""
    level = np.random.default_rng(2).normal(size=5000)
    level = (level - level.mean()) / level.std()
    assert correlation_at(JITTER * level, level, 0) == pytest.approx(1 / np.sqrt(2), rel=1e-9)
    assert correlation_at(100 * JITTER * level, level, 0) == pytest.approx(1, abs=1e-4)
    assert correlation_at(JITTER / 100 * level, level, 0) == pytest.approx(0.01, abs=1e-4)
    assert correlation_at(-100 * JITTER * level, level, 0) == pytest.approx(-1, abs=1e-4)


def test_what_is_constant_does_not_correlate() -> None:
    level = np.random.default_rng(3).normal(size=60)
    assert correlation_at(np.full(60, 0.3), level, 0) == pytest.approx(0, abs=1e-12)
    assert correlation_at(level, np.full(60, -20.0), 4) == 0


def test_independent_noise_correlates_little() -> None:
    rng = np.random.default_rng(4)
    found = [correlation_at(rng.normal(size=2000), rng.normal(size=2000), int(lag)) for lag in LAGS]
    assert np.abs(found).max() < 5 / np.sqrt(2000)


@pytest.mark.parametrize("lag", [9, 10, 11, 40, -9, -10, -11])
def test_no_overlap_no_correlation(lag: int) -> None:
    values = np.arange(10.0)
    assert np.isnan(correlation_at(values, values, lag))


# --- the curve -------------------------------------------------------------------------------------------------------


def test_the_curve_is_r_at_every_lag_of_activity_and_smoothed_loudness() -> None:
    rng = np.random.default_rng(7)
    points = faces_with(rng.random(90)).array("points")
    level = rng.uniform(-60, -10, 100)
    moving, loud = activity(mouth_opening(points)), smooth(loudness(level)[:90])
    curve = correlations(points.reshape(90, 478, 3), level)
    assert curve.tolist() == [correlation_at(moving, loud, int(lag)) for lag in LAGS]
    assert best_correlation(curve) == curve[offset(curve) + MAX_LAG]


def test_a_gap_leaves_lags_without_a_value_out_of_the_best() -> None:
    curve = np.full(2 * MAX_LAG + 1, NAN)
    curve[[3, 20]] = -0.5, -0.2
    assert (best_correlation(curve), offset(curve)) == (-0.2, 5)


def test_a_peak_at_the_end_of_the_search_is_no_offset() -> None:
    """A mouth that is 17 frames late fits best where the search ends, and nothing tells that from 15."""
    rng = np.random.default_rng(8)
    turns = np.where(np.arange(300) // 8 % 2, -1, 1)
    loud = np.minimum(np.convolve(rng.random(300) < 0.15, np.hanning(9), mode="same"), 1)
    points = faces_with(np.cumsum(np.roll(loud, MAX_LAG + 2) * turns) / 10).array("points")
    assert offset(correlations(points, 40 * loud - 60)) == MAX_LAG
    with pytest.raises(Undetermined, match="search's end, 15 frames"):
        moving_correlations(points, 40 * loud - 60)


def test_too_few_frames_are_an_error() -> None:
    points = faces_with(np.zeros(MIN_FRAMES - 1)).array("points")
    with pytest.raises(TooShort, match="39 frames"):
        correlations(points, np.zeros(100))
