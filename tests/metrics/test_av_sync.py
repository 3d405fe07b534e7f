"""Mouth against loudness on rows: the sign of the lag, still mouths and gaps, and real sound that is shifted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from talkforge.core.errors import TooShort, Undetermined
from talkforge.core.mouth_sync import JITTER, MAX_LAG, MIN_FRAMES, activity, offset
from talkforge.metrics.av_sync import FACES, METRICS, SPEECH, correlations, mouth_opening, moving_correlations
from talkforge.metrics.base import Pair, Settings
from talkforge.tests.metrics.rows import HeldRow, faces_with, speech_with
from talkforge.tests.tasks.one_row import extract

NAN = np.nan


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
