"""Method `warp`: closed forms of the envelope, and the portrait's mouth as the landmarker sees it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from talkforge.core.counters import Counters
from talkforge.core.errors import NoFace, WeightsError
from talkforge.core.weights import weights_store
from talkforge.datasets.audio import SAMPLES_PER_FRAME, read_audio, write_wav
from talkforge.datasets.video import open_video
from talkforge.tasks.faces import EYE_CORNERS, INNER_LIP_PAIRS, LANDMARKER, Face, Landmarker
from talkforge.tasks.methods import TestItem, read_portrait
from talkforge.tasks.warp import RANGE_DB, Mouth, find_face, opening_curve, warp
from talkforge.tests.media_factory import numbered, tone


@pytest.fixture(scope="module", autouse=True)
def landmarker() -> None:
    try:
        weights_store().path(LANDMARKER)
    except WeightsError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def portrait(sample_clips: Path) -> np.ndarray:
    return read_portrait(sample_clips / "jwp-intro-0.mp4")


@pytest.fixture(scope="module")
def face(portrait: np.ndarray) -> Face:
    return find_face(portrait, "portrait")


@pytest.fixture(scope="module")
def mouth(portrait: np.ndarray, face: Face) -> Mouth:
    return Mouth.of(portrait, face)


def steps(*decibels: float) -> np.ndarray:
    """One frame of a sine for each level relative to a full-scale sine."""
    one = tone(SAMPLES_PER_FRAME / 16000, hertz=500, level=1.0)
    return np.concatenate([one * 10 ** (level / 20) for level in decibels])


def opening(face: Face) -> float:
    """Gap of the inner lips over the distance of the outer eye corners."""
    gap = np.mean([np.linalg.norm(face.points[up] - face.points[low]) for up, low in INNER_LIP_PAIRS])
    return float(gap / np.linalg.norm(face.points[EYE_CORNERS[0]] - face.points[EYE_CORNERS[1]]))


def smoothed(shares: list[float]) -> np.ndarray:
    padded = [shares[0], *shares, shares[-1]]
    return np.array([(a + 2 * b + c) / 4 for a, b, c in zip(padded, padded[1:], padded[2:], strict=False)])


def test_the_opening_is_the_squared_share_of_the_upper_30_db() -> None:
    levels = [0.0, -15.0, -30.0, -60.0, -7.5, -3.0]
    shares = [max(0.0, (level + RANGE_DB) / RANGE_DB) ** 2 for level in levels]
    np.testing.assert_allclose(opening_curve(steps(*levels), 6), smoothed(shares), atol=1e-6)


def test_the_opening_does_not_depend_on_the_recordings_level() -> None:
    levels = np.array([-4.0, -20.0, -9.0, -26.0])
    np.testing.assert_allclose(opening_curve(steps(*levels), 4), opening_curve(steps(*(levels - 12)), 4), atol=1e-6)


def test_a_steady_sound_keeps_the_mouth_fully_open_and_silence_shut() -> None:
    assert opening_curve(tone(1), 25).tolist() == pytest.approx([1.0] * 25, abs=0.02)
    assert opening_curve(np.zeros(16000, np.float32), 25).tolist() == [0.0] * 25
    assert opening_curve(tone(1, level=1e-4), 25).tolist() == [0.0] * 25, "hiss at -83 dB is no speech"


def test_the_curve_has_the_frames_asked_for_and_stays_in_bounds() -> None:
    rng = np.random.default_rng(1)
    curve = opening_curve((rng.normal(0, 0.2, 32000) * np.hanning(32000)).astype(np.float32), 31)
    assert curve.shape == (31,) and 0 <= curve.min() <= curve.max() <= 1


def test_a_closed_mouth_is_the_portrait_itself(mouth: Mouth, portrait: np.ndarray) -> None:
    np.testing.assert_array_equal(mouth.opened(0.0), portrait)


def test_the_mouth_opens_steadily_with_the_amount(mouth: Mouth) -> None:
    """As the landmarker measures it, each picture on its own."""
    measured = [opening(find_face(mouth.opened(amount), "warped")) for amount in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert np.diff(measured).min() > 0.005, measured
    assert measured[-1] - measured[0] > 0.1, "0.18 eye distances are asked for"


def test_eyes_and_border_stay(mouth: Mouth, face: Face, portrait: np.ndarray) -> None:
    opened = mouth.opened(1.0).astype(int)
    change = np.abs(opened - portrait.astype(int)).mean(axis=2)
    eyes = face.points[[33, 133, 362, 263, 159, 145, 386, 374], :2]
    (left, top), (right, bottom) = eyes.min(axis=0).astype(int) - 4, eyes.max(axis=0).astype(int) + 5
    assert change[top:bottom, left:right].mean() < 2 and change[top:bottom, left:right].max() < 40
    for edge in (change[0], change[-1], change[:, 0], change[:, -1]):
        assert edge.mean() < 3
    x, y = face.points[14, :2].astype(int)
    assert change[y : y + 12, x - 10 : x + 10].mean() > 20, "the mouth itself has changed"


def test_the_gap_is_darker_than_the_lips_were(mouth: Mouth, face: Face, portrait: np.ndarray) -> None:
    points = mouth.points + mouth.shares[:, None] * mouth.down
    x, y = points[mouth.ring].mean(axis=0).astype(int)
    here = slice(y - 3, y + 4), slice(x - 6, x + 7)
    lips = face.points[[13, 14], :2].mean(axis=0).astype(int)
    assert mouth.opened(1.0)[here].mean() < 0.7 * portrait[lips[1] - 3 : lips[1] + 4, lips[0] - 6 : lips[0] + 7].mean()


def test_a_video_as_long_as_its_sound(sample_clips: Path, portrait: np.ndarray, tmp_path: Path) -> None:
    """Half a second of tone between two pauses: the mouth is open where the tone is."""
    samples = np.concatenate([np.zeros(6400), tone(0.4), np.zeros(6400)]).astype(np.float32)
    write_wav(tmp_path / "a.wav", samples)
    Image.fromarray(portrait).save(tmp_path / "portrait.png")
    warp(TestItem("a", tmp_path / "portrait.png", tmp_path / "a.wav"), tmp_path / "a.mp4")
    with open_video(tmp_path / "a.mp4") as stream:
        frames = [frame for _, frame in stream]
    assert len(frames) == 30 and frames[0].shape == portrait.shape
    assert np.abs(read_audio(tmp_path / "a.mp4")[8000:12000]).max() > 0.3
    with Landmarker(Counters()) as seen:
        openings = [opening(seen.detect(frames[k], n)[0]) for n, k in enumerate((2, 15, 27))]
    assert openings[1] - max(openings[0], openings[2]) > 0.06, openings


def test_a_portrait_without_a_face(tmp_path: Path) -> None:
    Image.fromarray(numbered(1234)).save(tmp_path / "stripes.png")
    write_wav(tmp_path / "a.wav", tone(1))
    with pytest.raises(NoFace, match=r"no face in the portrait stripes\.png"):
        warp(TestItem("a", tmp_path / "stripes.png", tmp_path / "a.wav"), tmp_path / "a.mp4")
    assert not (tmp_path / "a.mp4").exists()
