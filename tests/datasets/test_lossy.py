"""Lossy codecs in memory: what they do to pictures and sound, and that nothing is held back."""

from __future__ import annotations

import numpy as np
import pytest
from talkforge.datasets.lossy import MP3_DELAY, LossyPicture, lossy_sound


def psnr(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / ((found.astype(float) - wanted) ** 2).mean()))


def movie(n: int, height: int = 96, width: int = 128) -> np.ndarray:
    """A textured square on a slope that moves to the right."""
    slope = np.linspace(40, 200, width)[None, None, :, None]
    frames = np.broadcast_to(slope, (n, height, width, 3)).astype(np.uint8).copy()
    square = np.random.default_rng(0).integers(0, 256, (5, 5, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    for k in range(n):
        frames[k, 20:60, 2 * k : 2 * k + 40] = square
    return frames


@pytest.mark.parametrize("codec", ["mpeg4", "mjpeg"])
def test_each_frame_comes_back_at_once_and_lossy(codec: str) -> None:
    frames = movie(20)
    through = LossyPicture(codec, 96, 128, quantiser=2)
    found = np.stack([through(frame) for frame in frames])
    quality = [psnr(one, frame) for one, frame in zip(found, frames, strict=True)]
    assert min(quality) > 25 and max(quality) < 50
    late = [psnr(one, frame) for one, frame in zip(found[1:], frames, strict=False)]
    assert min(quality) > max(late), "a frame is itself and not the one before"


@pytest.mark.parametrize("codec", ["mpeg4", "mjpeg"])
def test_a_higher_quantiser_loses_more(codec: str) -> None:
    frame = movie(1)[0]
    quality = [psnr(LossyPicture(codec, 96, 128, quantiser=q)(frame), frame) for q in (2, 8, 31)]
    assert quality[0] > quality[1] + 1 > quality[2] + 2


def test_a_bit_rate_is_kept_on_average() -> None:
    """What FFmpeg does to JPEGs when nobody tells it a quality: 200 kbit/s, 1000 bytes a frame."""
    noise = np.random.default_rng(1).integers(0, 256, (14, 14, 3), dtype=np.uint8).repeat(16, axis=0).repeat(16, axis=1)
    through = LossyPicture("mjpeg", 224, 224)
    sizes = []
    for k in range(60):
        before = through.bytes
        through(np.roll(noise, k, axis=1))
        sizes.append(through.bytes - before)
    assert sizes[-1] < 0.6 * max(sizes[:5])


@pytest.mark.parametrize("size", [(95, 127), (70, 201)])
def test_odd_sizes(size: tuple[int, int]) -> None:
    frame = movie(1, *size)[0]
    for codec in ("mpeg4", "mjpeg"):
        assert LossyPicture(codec, *size, quantiser=2)(frame).shape == (*size, 3)


@pytest.mark.parametrize("n", [32000, 16001])
def test_sound_comes_late_by_the_codecs_delay(n: int) -> None:
    rng = np.random.default_rng(2)
    sound = (0.2 * np.convolve(rng.normal(size=n), np.ones(9) / 3, "same")).clip(-1, 1).astype(np.float32)
    found = lossy_sound(sound)
    assert n + MP3_DELAY <= len(found) < n + MP3_DELAY + 2 * 1152
    match = [float(np.corrcoef(found[d : d + n], sound)[0, 1]) for d in range(MP3_DELAY - 3, MP3_DELAY + 4)]
    assert int(np.argmax(match)) == 3
    assert 0.98 < max(match) < 0.999999


def test_no_sound_stays_none() -> None:
    assert len(lossy_sound(np.zeros(0, np.float32))) <= 3 * 1152
