"""Who is the subject: identities over time, on made-up boxes, and the landmarker itself on photographs."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from talkforge.core.counters import Counters
from talkforge.core.errors import WeightsError
from talkforge.core.weights import samples_store, weights_store
from talkforge.tasks.faces import LANDMARKER, PATIENCE, Face, Landmarker, Subject, overlap
from talkforge.tests.tasks.hand_made import face_box

GREY = np.full((120, 160, 3), 128, dtype=np.uint8)
WHITE = np.full((120, 160, 3), 255, dtype=np.uint8)
LEFT, RIGHT = (40, 60), (120, 60)


def by_size(*faces: Face) -> list[Face]:
    """As the landmarker gives them."""
    return sorted(faces, key=lambda face: face.box[2] - face.box[0], reverse=True)


def x_of(face: Face | None) -> float | None:
    return None if face is None else round((face.box[0] + face.box[2]) / 2, 3)


def test_overlap_is_intersection_over_union() -> None:
    square = (0.0, 0.0, 10.0, 10.0)
    assert overlap(square, square) == 1.0
    assert overlap(square, (5.0, 0.0, 15.0, 10.0)) == pytest.approx(50 / 150)
    assert overlap(square, (2.0, 2.0, 4.0, 4.0)) == pytest.approx(4 / 100)
    assert overlap(square, (10.0, 0.0, 20.0, 10.0)) == 0.0
    assert overlap(square, (20.0, 20.0, 30.0, 30.0)) == 0.0, "both sides negative is no overlap"


def test_the_largest_face_is_the_subject() -> None:
    chosen = Subject().choose(GREY, by_size(face_box(*LEFT, 40), face_box(*RIGHT, 60)), 0)
    assert x_of(chosen) == RIGHT[0] and chosen is not None and (chosen.n_faces, chosen.scene) == (2, 0)


def test_identity_survives_a_change_of_order() -> None:
    """The two faces take turns at being larger, so the list's order flips in every frame."""
    subject = Subject()
    for index in range(20):
        big, small = (60, 50) if index % 2 == 0 else (50, 60)
        chosen = subject.choose(GREY, by_size(face_box(*LEFT, big), face_box(*RIGHT, small)), index)
        assert x_of(chosen) == LEFT[0] and chosen is not None and chosen.track == 0


def test_the_subject_stays_though_a_larger_face_comes() -> None:
    subject = Subject()
    subject.choose(GREY, [face_box(*LEFT, 40)], 0)
    chosen = subject.choose(GREY, by_size(face_box(*LEFT, 40), face_box(*RIGHT, 75)), 1)
    assert x_of(chosen) == LEFT[0]


def test_two_crossing_faces_keep_their_identities() -> None:
    """They pass each other in opposite directions, one above the other by less than a face."""
    subject = Subject()
    for index in range(31):
        one, other = face_box(20 + 4 * index, 40, 50), face_box(140 - 4 * index, 80, 44)
        chosen = subject.choose(GREY, by_size(one, other), index)
        assert x_of(chosen) == 20 + 4 * index and chosen is not None and chosen.track == 0


def test_a_face_that_comes_close_takes_no_identity() -> None:
    """Both overlap the subject's last box; the subject then leaves and the newcomer is not taken for it."""
    subject = Subject()
    one, newcomer = face_box(60, 60, 50), face_box(75, 60, 45)
    subject.choose(GREY, [one], 0)
    assert x_of(subject.choose(GREY, by_size(one, newcomer), 1)) == 60
    assert subject.choose(GREY, [newcomer], 2) is None


@pytest.mark.parametrize(("away", "same"), [(1, True), (PATIENCE - 1, True), (PATIENCE, False)])
def test_a_face_that_comes_back_in_time_is_the_same_one(away: int, same: bool) -> None:
    """It is away for `away` frames; another face is there all the time."""
    subject = Subject()
    other = face_box(*RIGHT, 30)
    subject.choose(GREY, by_size(face_box(*LEFT, 60), other), 0)
    for index in range(1, away + 1):
        assert subject.choose(GREY, [other], index) is None, "nobody else stands in while it may come back"
    chosen = subject.choose(GREY, by_size(face_box(*LEFT, 60), other), away + 1)
    assert chosen is not None and (chosen.track == 0) is same
    assert x_of(chosen) == LEFT[0], "after the pause the largest face is chosen, whoever it is"


def test_after_the_patience_the_other_face_is_the_subject() -> None:
    subject = Subject()
    other = face_box(*RIGHT, 30)
    subject.choose(GREY, by_size(face_box(*LEFT, 60), other), 0)
    seen = [x_of(subject.choose(GREY, [other], index)) for index in range(1, PATIENCE + 3)]
    assert seen == [None] * PATIENCE + [RIGHT[0]] * 2
    back = subject.choose(GREY, by_size(face_box(*LEFT, 60), other), PATIENCE + 3)
    assert x_of(back) == RIGHT[0], "the new subject stays when the old one returns"


def test_a_face_elsewhere_is_another_one() -> None:
    subject = Subject()
    first = subject.choose(GREY, [face_box(*LEFT, 40)], 0)
    assert subject.choose(GREY, [face_box(*RIGHT, 40)], 1) is None
    late = subject.choose(GREY, [face_box(*RIGHT, 40)], PATIENCE + 1)
    assert first is not None and late is not None and (first.track, late.track) == (0, 1)


def test_a_scene_cut_begins_anew() -> None:
    subject = Subject()
    subject.choose(GREY, by_size(face_box(*LEFT, 60), face_box(*RIGHT, 40)), 0)
    after = subject.choose(WHITE, by_size(face_box(*LEFT, 40), face_box(*RIGHT, 60)), 1)
    assert x_of(after) == RIGHT[0], "the largest face of the new scene"
    assert after is not None and after.scene == 1 and after.track > 1, "the same place is another identity after a cut"
    assert subject.choose(WHITE, [], 2) is None and subject.scene == 1


def test_slow_changes_are_no_cut() -> None:
    subject = Subject()
    for index in range(25):
        subject.choose(np.full_like(GREY, 10 * index), [face_box(*LEFT, 60)], index)
    assert subject.scene == 0


def test_no_face_is_none() -> None:
    subject = Subject()
    assert subject.choose(GREY, [], 0) is None
    assert subject.choose(GREY, [face_box(*LEFT, 40)], 1) is not None, "the first face counts at once"


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    """uint8 RGB photograph of several faces."""
    try:
        weights_store().path(LANDMARKER)
        return np.asarray(Image.open(samples_store().path("multi-face")).convert("RGB"))
    except WeightsError as error:
        pytest.skip(str(error))


def detect(frame: np.ndarray) -> list[Face]:
    counters = Counters()
    with Landmarker(counters) as landmarker:
        faces = landmarker.detect(frame, 0)
    assert counters.face_detections == 1
    return faces


def test_the_landmarker_finds_several_faces_largest_first(photograph: np.ndarray) -> None:
    faces = detect(photograph)
    assert len(faces) >= 2 and all(face.n_faces == len(faces) for face in faces)
    areas = [(face.box[2] - face.box[0]) * (face.box[3] - face.box[1]) for face in faces]
    assert areas == sorted(areas, reverse=True)
    height, width = photograph.shape[:2]
    for face in faces:
        assert face.points.shape == (478, 3) and face.points.dtype == np.float32
        assert 0 < face.box[0] < face.box[2] < width and 0 < face.box[1] < face.box[3] < height, "pixels, not shares"
        assert face.blendshapes.shape == (52,) and 0 <= face.blendshapes.min() <= face.blendshapes.max() <= 1
        assert np.linalg.det(face.pose[:3, :3]) == pytest.approx(1, abs=0.02), "a rotation"
    assert all(overlap(a.box, b.box) == 0 for k, a in enumerate(faces) for b in faces[:k])


def test_a_strided_view_is_seen_as_the_picture_it_shows(photograph: np.ndarray) -> None:
    wide = np.zeros((photograph.shape[0], photograph.shape[1] + 7, 3), np.uint8)
    wide[:, : photograph.shape[1]] = photograph
    for view in (wide[:, : photograph.shape[1]], photograph[:, ::-1].copy()[:, ::-1]):
        for found, wanted in zip(detect(view), detect(photograph), strict=True):
            np.testing.assert_array_equal(found.points, wanted.points)


def test_a_picture_without_faces(photograph: np.ndarray) -> None:
    assert detect(np.full_like(photograph, 90)) == []
