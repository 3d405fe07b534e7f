"""What each corruption of sound, picture and time does, measured on what it wrote."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from talkforge.core.errors import InputError, NoAudioTrack
from talkforge.datasets.audio import SAMPLES_PER_FRAME, read_audio
from talkforge.datasets.video import open_video, resample
from talkforge.tasks.corruptions import CORRUPTIONS, Job, Source, copy, corrupt, corruptions, keep, rewrite
from talkforge.tests.media_factory import numbered, read_number, tone, write_clip

FRAMES = 24


def textured(number: int) -> np.ndarray:
    """uint8 (256, 128, 3): colours and detail, moving a pixel a frame."""
    picture = np.random.default_rng(1).integers(0, 256, (64, 32, 3)).astype(np.uint8)
    return np.roll(cv2.resize(picture, (128, 256), interpolation=cv2.INTER_CUBIC), number, axis=1)


@pytest.fixture(scope="module")
def textures(tmp_path_factory: pytest.TempPathFactory) -> Source:
    path = tmp_path_factory.mktemp("textures") / "clip.mp4"
    write_clip(path, [textured(k) for k in range(FRAMES)], audio=tone(FRAMES / 25), options={"crf": "8"})
    return Source(path, path)


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """Numbered frames under noise that is like itself at no other time."""
    path = tmp_path_factory.mktemp("numbers") / "clip.mp4"
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, FRAMES * SAMPLES_PER_FRAME).astype(np.float32)
    sound = np.convolve(sound, np.ones(16) / 8, mode="same").astype(np.float32)  # the codec keeps low frequencies
    write_clip(path, [numbered(k, 128, 64) for k in range(FRAMES)], audio=sound)
    return Source(path, path)


def frames_of(path: Path) -> np.ndarray:
    with open_video(path) as stream:
        return np.stack([frame for _, _, frame in resample(stream)])


def made(name: str, clip: Source, level: float, out: Path, other: Source | None = None) -> Path:
    path = out / f"{name}-{level}.mp4"
    corrupt(corruptions.get(name), Job(clip, level, other), path)
    return path


def copied(clip: Source, out: Path) -> Path:
    copy(clip, out / "copy.mp4")
    return out / "copy.mp4"


def lag(a: np.ndarray, b: np.ndarray) -> int:
    """By how many samples `b` is later than `a`, round the corner."""
    length = min(len(a), len(b))
    spectrum = np.fft.rfft(b[:length]) * np.conj(np.fft.rfft(a[:length]))
    return int(np.argmax(np.fft.irfft(spectrum, length)))


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b.astype(float)) ** 2)))


def is_falling(values: list[float]) -> bool:
    return all(later < earlier for earlier, later in pairwise(values))


def test_level_0_is_the_copy_byte_for_byte(textures: Source, tmp_path: Path) -> None:
    """The settings of every level are those of the copy, so that the codec alone moves no score."""
    rewrite(textures, tmp_path / "kept.mp4", keep)
    assert (tmp_path / "kept.mp4").read_bytes() == copied(textures, tmp_path).read_bytes()


@pytest.mark.parametrize("name", [one.name for one in CORRUPTIONS])
def test_the_same_clip_gives_the_same_bytes_and_the_length_stays(
    name: str, textures: Source, numbers: Source, tmp_path: Path
) -> None:
    level = corruptions.get(name).levels[1]
    (tmp_path / "again").mkdir()
    first = made(name, textures, level, tmp_path, numbers)
    assert first.read_bytes() == made(name, textures, level, tmp_path / "again", numbers).read_bytes()
    assert frames_of(first).shape == frames_of(textures.video).shape
    assert len(read_audio(first)) == pytest.approx(FRAMES * SAMPLES_PER_FRAME, abs=1024)


@pytest.mark.parametrize("late", [2, 4, 7, 12])
def test_the_sound_is_late_by_that_many_frames(late: int, numbers: Source, tmp_path: Path) -> None:
    path = made("sound-shift", numbers, late, tmp_path)
    assert lag(read_audio(copied(numbers, tmp_path)), read_audio(path)) == late * SAMPLES_PER_FRAME
    assert [read_number(frame) for frame in frames_of(path)] == list(range(FRAMES))


def test_the_sound_becomes_the_other_clips_from_the_end(numbers: Source, textures: Source, tmp_path: Path) -> None:
    half = FRAMES * SAMPLES_PER_FRAME // 2
    own, other = read_audio(numbers.video), read_audio(textures.video)
    mixed = read_audio(made("sound-swap", numbers, 0.5, tmp_path, textures))
    assert np.corrcoef(mixed[2000 : half - 2000], own[2000 : half - 2000])[0, 1] > 0.9
    assert np.corrcoef(mixed[half + 2000 : -2000], other[half + 2000 : len(mixed) - 2000])[0, 1] > 0.9


def test_blur_takes_detail_away_level_by_level(textures: Source, tmp_path: Path) -> None:
    paths = [copied(textures, tmp_path), *(made("blur", textures, s, tmp_path) for s in corruptions.get("blur").levels)]
    assert is_falling([cv2.Laplacian(frames_of(path)[5], cv2.CV_64F).var() for path in paths])


@pytest.mark.parametrize("name", ["blur", "noise", "jpeg", "colour-cast"])
def test_the_picture_gets_worse_level_by_level(name: str, textures: Source, tmp_path: Path) -> None:
    real = frames_of(textures.video)
    paths = [copied(textures, tmp_path)]
    paths += [made(name, textures, level, tmp_path) for level in corruptions.get(name).levels]
    assert is_falling([psnr(frames_of(path), real) for path in paths])


def test_noise_is_as_strong_as_it_says(tmp_path: Path) -> None:
    grey = write_clip(tmp_path / "grey.mp4", [np.full((128, 96, 3), 128, np.uint8)] * 5)
    noisy = frames_of(made("noise", Source(grey, grey), 16, tmp_path)).astype(float)
    luma = noisy @ np.array([0.2126, 0.7152, 0.0722])
    expected = 16 * np.sqrt(0.2126**2 + 0.7152**2 + 0.0722**2)
    assert luma.std() == pytest.approx(expected, rel=0.1)
    assert not np.array_equal(noisy[0], noisy[1])


def test_a_colour_cast_keeps_brightness(tmp_path: Path) -> None:
    grey = write_clip(tmp_path / "grey.mp4", [np.full((64, 96, 3), 120, np.uint8)] * 5)
    red, green, blue = frames_of(made("colour-cast", Source(grey, grey), 0.2, tmp_path)).mean(axis=(0, 1, 2))
    before = frames_of(grey).mean()
    assert red - blue == pytest.approx(0.4 * before, abs=4)
    assert 0.299 * red + 0.587 * green + 0.114 * blue == pytest.approx(before, abs=2)


def test_the_end_stands_still(numbers: Source, tmp_path: Path) -> None:
    shown = [read_number(frame) for frame in frames_of(made("freeze", numbers, 0.25, tmp_path))]
    assert shown == [*range(18), *[17] * 6]
    assert {read_number(frame) for frame in frames_of(made("freeze", numbers, 1.0, tmp_path))} == {0}


def test_one_frame_of_n_is_shown(numbers: Source, tmp_path: Path) -> None:
    shown = [read_number(frame) for frame in frames_of(made("frame-drop", numbers, 5, tmp_path))]
    assert shown == [k // 5 * 5 for k in range(FRAMES)]


def test_what_a_corruption_cannot_be_made_of_is_said(tmp_path: Path) -> None:
    silent = write_clip(tmp_path / "silent.mp4", 5)
    clip = Source(silent, silent)
    with pytest.raises(NoAudioTrack):
        made("sound-shift", clip, 2, tmp_path)
    with pytest.raises(InputError, match="second clip"):
        made("sound-swap", clip, 1, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["silent.mp4"]
