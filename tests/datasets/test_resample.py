"""Resampling to 25 fps: the source frame of each slot against ffmpeg's own filter, and closed forms."""

from __future__ import annotations

import random
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from talkforge.datasets.video import open_video, resample
from talkforge.tests.media_factory import numbered, read_number, write_clip

FILTER = "setpts=PTS-STARTPTS,fps=25:round=near"


def ours(path, fps=25):
    with open_video(path) as stream:
        slots = list(resample(stream, fps))
    assert [index for index, _, _ in slots] == list(range(len(slots)))
    assert [t for _, t, _ in slots] == [float(Fraction(index) / Fraction(fps)) for index in range(len(slots))]
    return [read_number(frame) for _, _, frame in slots]


@pytest.mark.parametrize("rate", ["30000/1001", "30", "24000/1001", "24", "15", "12.5", "50", "60", "100", "2500/83"])
def test_source_frame_of_each_slot_is_ffmpegs(rate, tmp_path, ffmpeg_frames):
    path = write_clip(tmp_path / "a.mp4", 83, rate=Fraction(rate))
    expected = [read_number(frame) for frame in ffmpeg_frames(path, 96, 64, FILTER)]
    assert ours(path) == expected
    assert len(set(expected)) > 20


@pytest.mark.parametrize("seed", [0, 1, 2, 6])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_uneven_sources_too(seed, suffix, tmp_path, ffmpeg_frames):
    """Seed 6 ends with a frame of a single tick, which stands for an unknown length."""
    rng = random.Random(seed)
    ticks = [0]
    while len(ticks) < 60:
        ticks.append(ticks[-1] + rng.choice([1, 300, 600, 601, 1000, 1500, 3000, 7777]))
    path = write_clip(tmp_path / f"a.{suffix}", 60, ticks=ticks, time_base=Fraction(1, 15000))
    assert ours(path) == [read_number(frame) for frame in ffmpeg_frames(path, 96, 64, FILTER)]


def test_same_rate_is_the_identity(tmp_path):
    path = write_clip(tmp_path / "a.mp4", 60)
    assert ours(path) == list(range(60))


def test_other_target_rates(tmp_path, ffmpeg_frames):
    path = write_clip(tmp_path / "a.mp4", 40, rate=30)
    for fps in (Fraction(25, 2), 30, Fraction(30000, 1001)):
        reference = ffmpeg_frames(path, 96, 64, f"fps={fps}:round=near")
        assert ours(path, fps) == [read_number(frame) for frame in reference]


def test_one_frame_lasts_as_long_as_it_says(tmp_path):
    assert ours(write_clip(tmp_path / "a.mp4", 1)) == [0]
    assert ours(write_clip(tmp_path / "b.mp4", 1, rate=5)) == [0] * 5


def test_half_a_slot_rounds_up():
    frame = np.zeros((2, 2, 3), np.uint8)
    pictures = [(i / 50, frame + i) for i in range(8)]  # 0, .5, 1, 1.5 ... slots
    assert [int(f[0, 0, 0]) for _, _, f in resample(pictures)] == [0, 2, 4, 6]


def test_an_hour_does_not_drift():
    """29.97 fps up to one hour: slot k must show the last frame i with 2 i / rate < (2 k + 1) / 25."""
    rate = Fraction(30000, 1001)
    start, count = 100_000, 107_892  # one frame at 0, then those of the last minutes
    numbers = [0, *range(start, count)]
    shown = [int(f[0]) for _, _, f in resample((float(i / rate), np.array([i])) for i in numbers)]
    assert len(shown) == round(count / rate * 25)
    for k in range(len(shown) - 6000, len(shown)):
        bound = -((-(2 * k + 1) * rate.numerator) // (50 * rate.denominator)) - 1
        assert shown[k] == min(bound, count - 1)


def test_nothing_gives_nothing():
    assert list(resample([])) == []


def test_memory_does_not_grow_with_the_clip():
    def frames(count):
        return ((i / 30, np.zeros((256, 256, 3), np.uint8)) for i in range(count))

    def peak(count):
        tracemalloc.start()
        for _ in resample(frames(count)):
            pass
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    assert peak(400) < peak(20) + 2 * 256 * 256 * 3


def test_a_repeated_slot_is_the_same_array():
    slots = list(resample([(0.0, numbered(0)), (0.12, numbered(1))]))
    assert [read_number(frame) for _, _, frame in slots] == [0, 0, 0, 1, 1, 1]
    assert slots[0][2] is slots[1][2]
