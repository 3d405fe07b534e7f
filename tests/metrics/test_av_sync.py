"""Mouth against loudness: closed forms of each step, the sign of the lag, and real sound that is shifted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from talkforge.core.errors import TooShort, Undetermined
from talkforge.metrics import av_sync
from talkforge.metrics.av_sync import (
    FACES,
    JITTER,
    MAX_LAG,
    METRICS,
    MIN_FRAMES,
    RANGE_DB,
    SPEECH,
    activity,
    correlation_at,
    correlations,
    loudness,
    mouth_opening,
    moving_correlations,
    offset,
    smooth,
)
from talkforge.metrics.base import Pair, Settings
from talkforge.tests.metrics.rows import HeldRow, faces_with, speech_with
from talkforge.tests.tasks.one_row import extract

NAN = np.nan
LAGS = np.arange(-MAX_LAG, MAX_LAG + 1)


def bursts(count: int, seed: int = 0) -> np.ndarray:
    """Levels in dB of something like syllables: smooth bumps at random places over a floor."""
    rng = np.random.default_rng(seed)
    bumps = np.convolve(rng.random(count) < 0.15, np.hanning(9), mode="same")
    return -60.0 + 40.0 * np.minimum(bumps, 1.0)


def opening_like(levels: np.ndarray, late: int) -> np.ndarray:
    """A mouth that moves while the sound is loud, `late` frames after it: up and down by turns."""
    speed = np.roll(levels - levels.min(), late) / 400
    turns = np.where(np.arange(len(levels)) // 8 % 2, -1, 1)
    return np.cumsum(speed * turns) - np.cumsum(speed * turns).min()


# --- the steps -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eyes", [1.0, 87.5])
def test_the_opening_is_measured_in_eye_distances_and_in_three_dimensions(eyes: float) -> None:
    wanted = np.array([0.0, 0.1, NAN, 0.25])
    np.testing.assert_allclose(mouth_opening(faces_with(wanted, eyes=eyes)), wanted, atol=1e-5)


def test_the_opening_is_the_mean_over_three_pairs() -> None:
    row = faces_with(np.full(2, 0.1))
    points = row.columns["points"].reshape(2, 478, 3)
    points[0, 13] = points[0, 14]  # the middle pair is shut
    assert mouth_opening(row) == pytest.approx([0.2 / 3, 0.1], abs=1e-5)


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
    levels = loudness(speech_with([-20.0, -20 - RANGE_DB / 2, -20 - RANGE_DB, -80.0]))
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
    monkeypatch.setattr(av_sync, "JITTER", 0.0)
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


# --- rows ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("late", [0, 4, 9, -4, -9])
def test_the_lag_of_a_mouth_that_follows_the_sound(late: int) -> None:
    levels = bursts(300)
    faces, speech = faces_with(opening_like(levels, late)), speech_with(levels)
    curve = correlations(faces, speech)
    assert curve.shape == (2 * MAX_LAG + 1,) and curve.max() > 0.8
    assert abs(offset(curve) - late) <= 1
    np.testing.assert_array_equal(moving_correlations(faces, speech), curve)


def clip_pair(name: str, late: int, seed: int) -> Pair:
    levels = bursts(300, seed)
    features = {FACES: faces_with(opening_like(levels, late)), SPEECH: speech_with(levels)}
    return Pair(name, features, features)


def test_the_offset_of_a_set_is_that_of_its_mean_curve() -> None:
    """One clip out of step does not move the peak that the others share; a mean of its peaks would."""
    pairs = [clip_pair(f"c{k}", 4, k) for k in range(5)] + [clip_pair("odd", -12, 9)]
    still = {FACES: faces_with(np.full(300, 0.1)), SPEECH: speech_with(bursts(300))}
    pairs.append(Pair("still", still, still))
    sync, offset_metric = METRICS
    score = offset_metric.score(pairs, Settings(bootstrap=200))
    assert abs(score.value - 4) <= 1 and score.real_vs_real == score.value
    assert score.ci95[0] <= score.value <= score.ci95[1]
    assert [clip.reason for clip in score.clips] == [None] * 6 + ["undetermined"]
    assert abs(score.clips[5].value + 12) <= 1, "a clip's own value keeps its sign"
    best = correlations(pairs[0].generated[FACES], pairs[0].generated[SPEECH]).max()
    assert sync.score(pairs[:1], Settings()).value == best
    nothing = offset_metric.score([Pair("a", None, None, "unmatched_real", "gone")], Settings())
    assert (nothing.value, nothing.reason) == (None, "unmatched_real")


def test_another_clips_sound_scores_lower() -> None:
    faces = faces_with(opening_like(bursts(300), 2))
    own, other = (correlations(faces, speech_with(bursts(300, seed))).max() for seed in (0, 8))
    assert own > 0.8 and other < 0.4


def test_a_gap_in_the_faces_is_left_out() -> None:
    levels = bursts(300)
    opening = opening_like(levels, 3)
    whole = correlations(faces_with(opening), speech_with(levels))
    opening[100:140] = NAN
    with_gap = correlations(faces_with(opening), speech_with(levels))
    assert np.isfinite(with_gap).all()
    assert abs(int(with_gap.argmax()) - int(whole.argmax())) <= 1 and with_gap.max() > 0.8


def test_the_longer_of_the_two_is_cut() -> None:
    levels = bursts(200)
    opening = opening_like(levels, 0)
    cut = correlations(faces_with(opening[:150]), speech_with(levels[:150]))
    assert levels[:150].max() == levels.max()
    np.testing.assert_array_equal(correlations(faces_with(opening[:150]), speech_with(levels)), cut)
    np.testing.assert_array_equal(correlations(faces_with(opening), speech_with(levels[:150])), cut)


def test_too_few_frames_are_an_error_and_no_value() -> None:
    levels = bursts(60)
    opening = opening_like(levels, 0)
    correlations(faces_with(opening[:MIN_FRAMES]), speech_with(levels))
    with pytest.raises(TooShort, match="39 frames"):
        correlations(faces_with(opening[: MIN_FRAMES - 1]), speech_with(levels))
    with pytest.raises(TooShort, match="10 frames"):
        correlations(faces_with(opening), speech_with(levels[:10]))
    opening[15:] = NAN
    with pytest.raises(TooShort):
        correlations(faces_with(opening), speech_with(levels))


@pytest.mark.parametrize("noise", [0.0, 3e-4])
def test_a_still_mouth_scores_about_zero_and_has_no_offset(noise: float) -> None:
    """The largest of 31 values that mean nothing would be an offset of some 8 frames, made of jitter alone."""
    opening = 0.1 + np.random.default_rng(6).normal(0, noise, 300)
    faces, speech = faces_with(opening), speech_with(bursts(300))
    assert np.abs(correlations(faces, speech)).max() < 0.05
    with pytest.raises(Undetermined, match="no offset"):
        moving_correlations(faces, speech)


def test_a_steady_sound_has_no_offset() -> None:
    faces = faces_with(opening_like(bursts(300), 0))
    with pytest.raises(Undetermined):
        moving_correlations(faces, speech_with(np.full(300, -20.0)))


# --- a real man ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def talking(sample_clips: Path) -> tuple[HeldRow, np.ndarray]:
    """Faces and levels of 144 frames: three clips that were cut from one another's ends."""
    clips = [sample_clips / f"jwp-intro-{k}.mp4" for k in range(3)]
    points = np.concatenate([extract(FACES, clip).array("points") for clip in clips])
    return HeldRow({"points": points}), np.concatenate([extract(SPEECH, clip).array("level_db")[:48] for clip in clips])


@pytest.mark.parametrize("shift", [10, 5, -5, -10])
def test_shifted_sound_shifts_the_lag(talking: tuple[HeldRow, np.ndarray], shift: int) -> None:
    """Sound that comes `shift` frames later makes the mouth as much earlier."""
    faces, levels = talking
    pause = np.full(abs(shift), -80.0, np.float32)
    moved = np.concatenate([pause, levels[:-shift]] if shift > 0 else [levels[-shift:], pause])
    before, after = (offset(moving_correlations(faces, speech_with(sound))) for sound in (levels, moved))
    assert abs((before - after) - shift) <= 2
    assert abs(before) <= 3, "a man who is filmed moves his mouth with his voice"


def test_real_activity_is_well_above_the_jitter(talking: tuple[HeldRow, np.ndarray]) -> None:
    assert np.nanstd(activity(mouth_opening(talking[0]))) > 3 * JITTER
