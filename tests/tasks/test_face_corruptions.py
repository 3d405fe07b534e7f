"""What the corruptions of the face do, measured on a real face by its landmarks, and their geometry in closed form."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from talkforge.core.errors import InputError, NoFace
from talkforge.datasets.encode import reencode_clip
from talkforge.datasets.video import open_video, resample
from talkforge.tasks.corruptions import Job, Source, copy, corrupt, corruptions
from talkforge.tasks.face_corruptions import BROWS, CORRUPTIONS, LIPS, RIGID, faces_of, moved, similarity, warped
from talkforge.tests.media_factory import tone, write_clip

INNER = ((82, 87), (13, 14), (312, 317))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faces")


@pytest.fixture(scope="module")
def speaker(sample_clips: Path, place: Path) -> Source:
    """Twenty frames of a talking man."""
    path = place / "speaker.mp4"
    reencode_clip(sample_clips / "jwp-intro-1.mp4", path, crf=16, end_s=0.8)
    return Source(path, path)


@pytest.fixture(scope="module")
def other(sample_clips: Path, place: Path) -> Source:
    path = place / "other.mp4"
    reencode_clip(sample_clips / "test-movie-1.mp4", path, crf=16, end_s=0.2)
    return Source(path, path)


@pytest.fixture(scope="module")
def copied(speaker: Source, place: Path) -> Source:
    copy(speaker, place / "copy.mp4")
    return Source(place / "copy.mp4", place / "copy.mp4")


def made(name: str, clip: Source, level: float, place: Path, second: Source | None = None) -> Source:
    path = place / f"{name}-{level}.mp4"
    if not path.exists():
        corrupt(corruptions.get(name), Job(clip, level, second, place / "cache"), path)
    return Source(path, path)


def meshes(clip: Source, place: Path) -> np.ndarray:
    """(frames, 478, 3), each brought onto the first by the points that expression leaves alone."""
    points = [face.points.astype(float) for face in faces_of(clip, place / "cache") if face is not None]
    return np.stack([moved(mesh, similarity(mesh[RIGID], points[0][RIGID])) for mesh in points])


def opening(clip: Source, place: Path) -> np.ndarray:
    mesh = meshes(clip, place)
    return np.mean([np.linalg.norm(mesh[:, a] - mesh[:, b], axis=1) for a, b in INNER], axis=0)


def pictures(clip: Source) -> np.ndarray:
    with open_video(clip.video) as stream:
        return np.stack([frame for _, _, frame in resample(stream)]).astype(float)


def test_a_similarity_is_found_again() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(9, 3))
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    rotation *= np.sign(np.linalg.det(rotation))
    scale, found, shift = similarity(points, 2.5 * points @ rotation.T + [1, -2, 3])
    assert scale == pytest.approx(2.5)
    np.testing.assert_allclose(found, rotation, atol=1e-9)
    np.testing.assert_allclose(shift, [1, -2, 3], atol=1e-9)


def test_a_mirror_image_is_not_made() -> None:
    points = np.array([[0.0, 0], [1, 0], [0, 2], [3, 1]])
    assert np.linalg.det(similarity(points, points * [-1, 1])[1]) == pytest.approx(1)


def test_a_warp_that_shifts_all_points_shifts_the_picture() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    points = np.array([[0.0, 0], [95, 0], [0, 63], [95, 63], [40, 30], [20, 50]])
    shifted = warped(picture, points, points + [8, 0], (64, 96))
    np.testing.assert_array_equal(shifted[:, 8:], picture[:, :-8])


def test_the_frozen_mouth_departs_from_the_real_one_and_stands_still(
    speaker: Source, copied: Source, place: Path
) -> None:
    real = opening(copied, place)
    half, whole = (opening(made("mouth-frozen", speaker, level, place), place) for level in (0.5, 1.0))
    assert 0 < np.abs(half - real).mean() < np.abs(whole - real).mean()
    np.testing.assert_allclose(half[:10], real[:10], atol=1.5)
    assert whole.std() < 0.3 * real.std()


def test_all_but_the_lower_face_stays_as_it_is(speaker: Source, copied: Source, place: Path) -> None:
    """The picture outside the mouth's surroundings is the copy's, up to the codec."""
    gap = np.abs(pictures(made("mouth-frozen", speaker, 1.0, place)) - pictures(copied)).mean(axis=3).max(axis=0)
    face = next(face for face in faces_of(copied, place / "cache") if face is not None)
    low, high = face.points[LIPS, :2].min(axis=0), face.points[LIPS, :2].max(axis=0)
    rows, columns = np.mgrid[: gap.shape[0], : gap.shape[1]]
    reach = high - low
    far = (columns < low[0] - reach[0]) | (columns > high[0] + reach[0]) | (rows < low[1] - 2 * reach[1])
    assert gap[far].mean() < 1
    assert gap[~far].max() > 20


def test_damped_brows_move_less_and_the_mouth_as_before(speaker: Source, copied: Source, place: Path) -> None:
    clips = [copied, *(made("expression-damped", speaker, level, place) for level in (0.5, 1.0))]
    brows = [meshes(clip, place)[:, BROWS, :2].std(axis=0).mean() for clip in clips]
    assert all(later < earlier for earlier, later in pairwise(brows))
    assert np.corrcoef(opening(clips[0], place), opening(clips[-1], place))[0, 1] > 0.9


def test_the_other_face_is_blended_in_and_the_mouth_still_speaks(
    speaker: Source, copied: Source, other: Source, place: Path
) -> None:
    real = pictures(copied)
    clips = [made("identity-swap", speaker, level, place, other) for level in (0.5, 1.0)]
    gaps = [np.abs(pictures(clip) - real).mean() for clip in clips]
    assert 0.1 < gaps[0] < gaps[1]
    assert np.corrcoef(opening(copied, place), opening(clips[-1], place))[0, 1] > 0.8


@pytest.mark.parametrize("name", [one.name for one in CORRUPTIONS])
def test_a_clip_without_a_face_is_refused(name: str, speaker: Source, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "stripes.mp4", 5, audio=tone(0.2))
    with pytest.raises(NoFace, match="no face"):
        made(name, Source(path, path), 1.0, tmp_path, speaker)


def test_an_identity_needs_a_second_clip(speaker: Source, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="second clip"):
        made("identity-swap", speaker, 1.0, tmp_path)
