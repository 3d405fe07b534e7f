"""Loudness at 25 fps: closed forms, and the ways of having none."""

from __future__ import annotations

import math

import numpy as np
import pytest
from talkforge.core.counters import Counters
from talkforge.core.errors import CorruptMedia, MediaError, NoAudioTrack, SilentAudio, TooShort
from talkforge.tasks.extract_speech import FLOOR_DB, SPEECH, SpeechEnvelope, frame_levels
from talkforge.tasks.extractor import Context
from talkforge.tests.media_factory import tone


def row(audio: np.ndarray | MediaError) -> dict:
    return SpeechEnvelope(SPEECH, Context("cpu", Counters(), audio)).finish()


@pytest.mark.parametrize("amplitude", [1.0, 0.5, 0.1, 0.003])
def test_the_level_of_a_sine(amplitude: float) -> None:
    """RMS a / sqrt 2; 500 Hz has 20 whole periods in a frame of 640 samples."""
    levels = frame_levels(tone(2, hertz=500, level=amplitude))
    assert levels.shape == (50,) and levels.dtype == np.float32
    np.testing.assert_allclose(levels, 20 * math.log10(amplitude / math.sqrt(2)), atol=1e-4)


def test_the_level_of_a_constant_and_of_one_click() -> None:
    samples = np.zeros(3 * 640, np.float32)
    samples[:640] = -1.0
    samples[640] = 1.0
    np.testing.assert_allclose(frame_levels(samples), [0.0, -10 * math.log10(640), FLOOR_DB], atol=1e-5)


def test_a_frame_hears_only_its_own_samples() -> None:
    rng = np.random.default_rng(0)
    samples = rng.normal(0, 0.1, 10 * 640).astype(np.float32)
    changed = samples.copy()
    changed[4 * 640 : 5 * 640] *= 3
    differs = frame_levels(samples) != frame_levels(changed)
    assert np.flatnonzero(differs).tolist() == [4]
    np.testing.assert_allclose(frame_levels(changed)[4] - frame_levels(samples)[4], 20 * math.log10(3), atol=1e-4)


def test_samples_that_fill_no_frame_are_left_out() -> None:
    samples = tone(1, level=0.5)
    np.testing.assert_array_equal(frame_levels(samples[: 24 * 640 + 639]), frame_levels(samples)[:24])
    assert frame_levels(samples[:639]).shape == (0,)


def test_digital_silence_is_at_the_floor_and_finite() -> None:
    assert frame_levels(np.zeros(1280, np.float32)).tolist() == [FLOOR_DB, FLOOR_DB]
    assert frame_levels(np.full(640, 1e-9, np.float32)).tolist() == [FLOOR_DB]


def test_the_row() -> None:
    made = row(tone(1, hertz=500, level=0.25))
    assert (len(made["level_db"]), made["n_samples"]) == (25, 16000)
    assert made["peak"] == pytest.approx(0.25, abs=1e-3)


def test_silent_missing_damaged_and_short_are_four_things() -> None:
    with pytest.raises(SilentAudio):
        row(np.zeros(16000, np.float32))
    with pytest.raises(TooShort):
        row(tone(0.039))
    for error in (NoAudioTrack("a.mp4 has no sound"), CorruptMedia("damaged")):
        with pytest.raises(type(error)) as caught:
            row(error)
        assert caught.value is error


def test_a_word_in_a_long_pause_is_no_silence() -> None:
    samples = np.zeros(10 * 16000, np.float32)
    samples[80000:84000] = tone(0.25)
    assert row(samples)["level_db"].max() > -10
