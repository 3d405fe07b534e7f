"""Deep3D rows: the alignment in closed form and against the plain way, and what happens without a face or weights."""

import numpy as np
import pytest
from PIL import Image
from talkforge.core.counters import Counters
from talkforge.core.errors import NoFace
from talkforge.core.landmarks import landmarks_68
from talkforge.models.deep3d import Deep3D
from talkforge.tasks.extract_deep3d import (
    DEEP3D,
    STANDARD_FACE,
    Coefficients,
    align,
    camera,
    five_points,
    resized_cut,
)
from talkforge.tasks.extractor import Batch, Context
from talkforge.tasks.faces import Face
from talkforge.tasks.head_pose import rotation_of
from talkforge.tests.tasks.one_row import extract, sample


def landmarks_at(points: np.ndarray) -> np.ndarray:
    """68 landmarks whose five points are the given ones; the eyes' corners lie about their centres."""
    landmarks = np.full((68, 2), -1000.0)
    for k, (corner, other) in enumerate(((36, 39), (42, 45))):
        landmarks[corner], landmarks[other] = points[k] - (5, 1), points[k] + (5, 1)
    landmarks[[30, 48, 54]] = points[2:]
    return landmarks


def test_five_points_are_eyes_nose_and_mouth() -> None:
    landmarks = np.arange(136, dtype=float).reshape(68, 2)
    x = five_points(landmarks)[:, 0]
    assert x.tolist() == [2 * (36 + 39) / 2, 2 * (42 + 45) / 2, 60, 96, 108]


@pytest.mark.parametrize("angles", [(0, 0, 0), (30, 0, 0), (-20, 15, 40), (0, 0, 180)])
def test_the_camera_of_a_turned_standard_face_is_found(angles: tuple[float, ...]) -> None:
    """Seen at scale 90 and shift (123, 45) in any rotation, the solution is exact."""
    seen = 90 * (STANDARD_FACE @ rotation_of(np.array(angles, dtype=float)).T)[:, :2] + (123, 45)
    shift, scale = camera(seen)
    assert scale == pytest.approx(90)
    assert shift == pytest.approx((123, 45))


def test_an_aligned_face_lies_where_the_network_wants_it() -> None:
    """The standard face's origin comes to the middle of the crop, one unit of it is 102 pixels long."""
    height, width, scale, middle = 480, 640, 150.0, np.array([300.0, 200.0])  # y up
    seen = scale * STANDARD_FACE[:, :2] + middle
    frame = np.zeros((height, width, 3), np.uint8)
    row, column = height - 1 - int(middle[1]), int(middle[0])
    frame[row - 6 : row + 7, column - 6 : column + 7, 0] = 255  # the origin
    nose = np.rint(seen[2]).astype(int)
    frame[height - 1 - nose[1] - 6 : height - 1 - nose[1] + 7, nose[0] - 6 : nose[0] + 7, 1] = 255
    aligned = align(frame, landmarks_at(seen * (1, -1) + (0, height - 1)))
    assert aligned is not None
    picture, alignment = aligned
    assert alignment == pytest.approx([width, height, 102 / scale, *middle])

    def centre(channel: int) -> np.ndarray:
        y, x = np.nonzero(picture[..., channel] > 127)
        return np.array([x.mean(), y.mean()])

    assert centre(0) == pytest.approx((112, 112), abs=1.5)
    assert centre(1) - centre(0) == pytest.approx(102 * STANDARD_FACE[2, :2] * (1, -1), abs=1.5)


@pytest.mark.parametrize(("left", "top"), [(40, 30), (-50, -20), (300, 200), (-224, 0)])
def test_cutting_is_resizing_the_whole_and_then_cropping(left: int, top: int) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (270, 360, 3), dtype=np.uint8)
    for size in ((431, 322), (250, 187)):
        whole = Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC)
        plain = np.asarray(whole.crop((left, top, left + 224, top + 224))).astype(int)
        assert np.abs(resized_cut(frame, size, left, top) - plain).max() <= 1


def test_points_in_one_place_are_no_face() -> None:
    assert align(np.zeros((100, 100, 3), np.uint8), np.full((68, 2), 50.0)) is None


def test_a_real_face_is_centred_and_upright() -> None:
    from talkforge.datasets.video import open_video

    clip = sample("jwp-intro")
    points = extract("faces-mediapipe", clip).array("points").reshape(-1, 478, 3)
    with open_video(clip) as frames:
        _, frame = next(iter(frames))
    aligned = align(frame, landmarks_68(points[0])[:, :2])
    assert aligned is not None
    picture, (width, height, factor, x, y) = aligned
    assert (width, height) == (640, 480)
    assert 0.5 < factor < 2
    assert points[0, :, 0].min() < x < points[0, :, 0].max()
    assert points[0, :, 1].min() < 479 - y < points[0, :, 1].max()
    assert picture.std() > 20


class TestRow:
    def context(self, monkeypatch: pytest.MonkeyPatch) -> Context:
        """With the network at random weights: the published ones are not at hand everywhere."""
        import torch

        torch.manual_seed(0)
        network = Deep3D().eval()
        monkeypatch.setattr(Context, "network", lambda self, target: network)
        return Context("cpu", Counters())

    def batch(self, faces: list[Face | None]) -> Batch:
        frames = [np.full((200, 200, 3), 90, np.uint8)] * len(faces)
        return Batch(np.arange(len(faces)), frames, faces, [0] * len(faces), [None] * len(faces))

    def face(self) -> Face:
        seen = 60 * STANDARD_FACE[:, :2] * (1, -1) + (100, 100)
        points = np.full((478, 3), -1000.0, np.float32)
        from talkforge.core.landmarks import MEDIAPIPE_68

        points[MEDIAPIPE_68, :2] = landmarks_at(seen)
        return Face(points, np.zeros(52, np.float32), np.eye(4, dtype=np.float32))

    def test_frames_without_a_face_are_null(self, monkeypatch: pytest.MonkeyPatch) -> None:
        context = self.context(monkeypatch)
        extractor = Coefficients(DEEP3D, context)
        extractor.push(self.batch([self.face(), None]))
        extractor.push(self.batch([None]))
        row = extractor.finish()
        assert np.isnan(row["coefficients"]).all(axis=1).tolist() == [False, True, True]
        assert np.isfinite(row["coefficients"][0]).all()
        assert row["alignment"][0] == pytest.approx([200, 200, 102 / 60, 100, 99], abs=1e-3)
        assert (row["n_frames"], row["n_missing"]) == (3, 2)
        assert context.counters.forwards == {"deep3d": 1}

    def test_no_face_at_all_is_an_error_with_its_reason(self, monkeypatch: pytest.MonkeyPatch) -> None:
        extractor = Coefficients(DEEP3D, self.context(monkeypatch))
        extractor.push(self.batch([None, None]))
        with pytest.raises(NoFace):
            extractor.finish()
