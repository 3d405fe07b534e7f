"""Rows of picture quality: crops in closed form, which frame a score belongs to, and what happens without a face."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from talkforge.core.counters import Counters
from talkforge.core.errors import NoFace, WeightsMissing
from talkforge.core.landmarks import MESH_LIPS
from talkforge.models.musiq import prepare
from talkforge.tasks import extract_quality_scores as scores
from talkforge.tasks.extract import ClipFile, extract_clip
from talkforge.tasks.extract_quality_scores import (
    EXTRACTORS,
    FACE_TEMPLATE,
    MUSIQ_MOUTH,
    TOPIQ_FACE,
    TOPIQ_IAA,
    MusiqMouth,
    QualityScore,
    TopiqFace,
    TopiqIaa,
    align_face,
    cut_mouth,
)
from talkforge.tasks.extractor import Batch, Context
from talkforge.tasks.faces import LANDMARKER, Face
from talkforge.tasks.features import FeatureStore
from talkforge.tests.models.iqa_weights import drawn, scene
from talkforge.tests.tasks.hand_made import face_box
from talkforge.tests.tasks.one_row import need, sample


def lips_in(left: float, top: float, right: float, bottom: float) -> Face:
    """A face whose lips have that box, and whose other points lie elsewhere."""
    face = face_box(500, 500, 100)
    face.points[MESH_LIPS, :2] = (left, top)
    face.points[MESH_LIPS[-1], :2] = (right, bottom)
    return face


def of_frames(
    spec, made: type[QualityScore], frames: list[np.ndarray], faces: list[Face | None]
) -> tuple[dict, Counters]:
    """The row of frames that come in batches of three."""
    work = Counters()
    one = made(spec, Context("cpu", work))
    for start in range(0, len(frames), 3):
        part = slice(start, start + 3)
        count = len(frames[part])
        one.push(Batch(np.arange(count) + start, frames[part], faces[part], [0] * count, [None] * count))
    return one.finish(), work


@pytest.fixture
def brightness(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network whose score is the mean of what it is given, so that rows have closed forms."""
    monkeypatch.setattr(Context, "network", lambda self, target: lambda x: x.mean(dim=(1, 2, 3)))


def test_the_mouths_crop_is_ten_pixels_wider_and_inside() -> None:
    frame = scene(0, 90, 120)
    for box, (left, top, right, bottom) in (
        ((40.9, 30.2, 80.7, 50.9), (30, 20, 90, 60)),
        ((-7.0, 5.0, 20.0, 85.0), (0, 0, 30, 90)),
        ((100.0, 70.0, 140.0, 88.0), (90, 60, 120, 90)),
    ):
        cut = cut_mouth(frame, lips_in(*box))
        assert cut is not None and np.array_equal(cut, frame[top:bottom, left:right])
    assert cut_mouth(frame, lips_in(200, 30, 240, 50)) is None
    assert cut_mouth(frame, lips_in(-90, 30, -40, 50)) is None


def test_a_face_that_is_on_the_template_stays_where_it_is() -> None:
    frame = scene(1, 512, 512)
    assert np.abs(align_face(frame, FACE_TEMPLATE) - frame).max() < 0.01


def test_a_face_is_turned_and_scaled_onto_the_template() -> None:
    """The template's picture, half as large and turned by 30 degrees, comes back; what is outside is grey."""
    whole = cv2.GaussianBlur(scene(2, 512, 512), (0, 0), 6)
    matrix = cv2.getRotationMatrix2D((256, 256), 30, 0.5)
    small = cv2.warpAffine(whole, matrix, (512, 512), flags=cv2.INTER_AREA)
    found = align_face(small, FACE_TEMPLATE @ matrix[:, :2].T + matrix[:, 2])
    assert found is not None and found.shape == (512, 512, 3) and found.dtype == np.float32
    assert np.abs(found[20:-20, 20:-20] - whole[20:-20, 20:-20]).mean() < 1
    aside = align_face(small, FACE_TEMPLATE - (400, 0))
    assert aside is not None and aside[5, 5].tolist() == [132, 133, 135]


def test_a_face_too_small_is_none() -> None:
    frame = scene(3, 64, 64)
    assert align_face(frame, FACE_TEMPLATE / 100) is None
    assert align_face(frame, FACE_TEMPLATE / 20) is not None
    assert align_face(frame, np.full((5, 2), 7.0)) is None


@pytest.mark.usefixtures("brightness")
def test_each_frame_keeps_its_own_score() -> None:
    """Six frames, brighter and brighter; two show no face. The rows are filled four pictures at a time."""
    frames = [np.full((300, 200, 3), 40 * k, np.uint8) for k in range(6)]
    face = face_box(100, 130, 120)
    row, work = of_frames(TOPIQ_FACE, TopiqFace, frames, [face, None, face, face, None, face])
    assert (row["n_frames"], row["n_missing"]) == (6, 2) and work.forwards == {"topiq-face": 4}
    inside = np.mean(align_face(np.ones((300, 200, 3), np.uint8), landmarks(face)) == 1)
    assert 0.3 < inside <= 1
    assert row["score"][1] is None and row["score"][4] is None
    steps = np.diff([row["score"][k] for k in (0, 2, 3, 5)])
    assert steps / (40 / 255) == pytest.approx([2 * inside, inside, 2 * inside], rel=0.02)
    whole, work = of_frames(TOPIQ_IAA, TopiqIaa, frames, [None] * 6)
    assert whole["score"] == pytest.approx([40 * k / 255 for k in range(6)], abs=1e-5)
    assert (whole["n_missing"], work.forwards) == (0, {"topiq-iaa": 6})


def landmarks(face: Face) -> np.ndarray:
    return scores.five_points(scores.landmarks_68(face.points)[:, :2])


@pytest.mark.usefixtures("brightness")
def test_without_any_face_there_is_no_row() -> None:
    frames = [scene(k, 40, 40) for k in range(2)]
    for spec, made in ((MUSIQ_MOUTH, MusiqMouth), (TOPIQ_FACE, TopiqFace)):
        with pytest.raises(NoFace, match="2 frames"):
            of_frames(spec, made, frames, [None, None])


def test_a_row_of_mouths_is_the_networks_answer_to_the_crops(monkeypatch: pytest.MonkeyPatch) -> None:
    """With drawn weights; mouths of different sizes."""
    network = drawn("musiq")
    monkeypatch.setattr(Context, "network", lambda self, target: network)
    frames = [scene(k, 80, 100) for k in range(3)]
    boxes = ((30, 30, 60, 50), (35, 30, 70, 45), (20, 40, 60, 60))
    row, work = of_frames(MUSIQ_MOUTH, MusiqMouth, frames, [lips_in(*boxes[0]), None, lips_in(*boxes[2])])
    with torch.inference_mode():
        wanted = [
            network(prepare([frames[k][b - 10 : d + 10, a - 10 : c + 10]])).item()
            for k, (a, b, c, d) in enumerate(boxes)
        ]
    assert row["score"][1] is None and work.forwards == {"musiq-mouth": 2}
    assert row["score"][::2] == pytest.approx(wanted[::2], abs=1e-4)


@pytest.mark.usefixtures("brightness")
def test_rows_of_a_real_clip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One pass over a clip where a face goes: null frames are the same in both rows, none in the frame's own."""
    need(LANDMARKER)
    monkeypatch.setattr(MusiqMouth, "prepare", lambda self, pictures: torch.tensor([[[[p.mean()]]] for p in pictures]))
    monkeypatch.setattr(FeatureStore, "key", lambda self, spec, content: f"{spec.id}-0")
    clip, store, work = (
        ClipFile(sample("face-noface"), sample("face-noface")),
        FeatureStore(tmp_path, "none"),
        Counters(),
    )
    extract_clip(clip, clip.content(), EXTRACTORS, store, work)
    mouth, face, whole = (store.find(spec, clip.content()) for spec in EXTRACTORS)
    assert mouth is not None and face is not None and whole is not None
    gone = np.isnan(mouth.array("score"))
    assert 0 < gone.sum() == mouth.value("n_missing") < len(gone)
    assert np.array_equal(np.isnan(face.array("score")), gone)
    assert not np.isnan(whole.array("score")).any() and whole.value("n_missing") == 0
    assert work.forwards == {"musiq-mouth": (~gone).sum(), "topiq-face": (~gone).sum(), "topiq-iaa": len(gone)}


def test_each_row_names_the_weights_that_its_network_loads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TALKFORGE_WEIGHTS", str(tmp_path))
    for spec, made in ((MUSIQ_MOUTH, MusiqMouth), (TOPIQ_FACE, TopiqFace), (TOPIQ_IAA, TopiqIaa)):
        with pytest.raises(WeightsMissing, match=spec.weights[-1]):
            Context("cpu", Counters()).network(made.network)
