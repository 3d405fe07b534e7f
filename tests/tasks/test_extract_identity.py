"""Identity rows: which frames are embedded, dlib's own result on the same shape, people told apart on real clips."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from talkforge.core.counters import Counters
from talkforge.core.errors import NoFace
from talkforge.core.landmarks import landmarks_68
from talkforge.datasets.video import open_video, resample
from talkforge.models.arcface import ArcFace, prepare
from talkforge.tasks.extract_identity import (
    ARCFACE,
    DLIB,
    EVERY,
    EXTRACTORS,
    NOSE_TIP,
    TEMPLATE_112,
    ArcFaceIdentity,
    DlibIdentity,
    aligned_112,
    five_points,
)
from talkforge.tasks.extractor import Batch, Context
from talkforge.tasks.faces import LANDMARKER, LEFT_EYE_RING, MOUTH_CORNERS, RIGHT_EYE_RING, Face, Landmarker
from talkforge.tests.tasks.one_row import extract, extract_counted, need, sample


def face_at(five: np.ndarray) -> Face:
    """A face whose five points are these; the rest of the mesh is far away."""
    points = np.full((478, 3), -500, np.float32)
    points[list(RIGHT_EYE_RING), :2], points[list(LEFT_EYE_RING), :2] = five[0], five[1]
    points[[NOSE_TIP, *MOUTH_CORNERS], :2] = five[2:]
    return Face(points, np.zeros(52, np.float32), np.eye(4, dtype=np.float32))


def embeddings(clip: Path) -> np.ndarray:
    """(K, 128) of a clip."""
    rows = extract(DLIB.id, clip).array("embedding")
    return rows[~np.isnan(rows).all(axis=1)]


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.linalg.norm(a[:, None] - b[None], axis=2)


class TestFrames:
    """Which frames are embedded, with a network that answers each picture's mean."""

    def row(self, seen: list[bool], sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> dict:
        monkeypatch.setattr(ArcFaceIdentity, "forward", lambda self, x: np.tile(x.mean(axis=(1, 2, 3))[:, None], 512))
        one = ArcFaceIdentity(ARCFACE, Context("cpu", Counters()))
        face, start = face_at(TEMPLATE_112), 0
        for size in sizes:
            index = np.arange(start, start + size)
            frames = [np.full((112, 112, 3), k, np.uint8) for k in index]
            faces = [face if seen[k] else None for k in index]
            one.push(Batch(index, frames, faces, [0] * size, [None] * size))
            start += size
        return one.finish()

    @pytest.mark.parametrize("sizes", [[20], [7, 13], [1] * 20])
    def test_every_fifth_with_a_face(self, sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
        seen = [k not in (0, 1, 7, 8, 9) for k in range(20)]
        row = self.row(seen, sizes, monkeypatch)
        found = np.flatnonzero(~np.isnan(row["embedding"]).any(axis=1))
        assert found.tolist() == [2, 10, 15]  # 7 is due and not seen, 10 is the next with a face
        assert row["embedding"][found, 0].tolist() == [2, 10, 15]
        assert (row["n_frames"], row["n_missing"], row["n_embedded"]) == (20, 5, 3)

    def test_no_face_is_no_row(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(NoFace):
            self.row([False] * 4, [4], monkeypatch)

    def test_the_rule_is_part_of_the_rows_identity(self) -> None:
        assert EVERY == 5
        for spec in EXTRACTORS:
            assert "every 5th" in spec.params["frames"]


class TestDlib:
    def test_it_is_dlibs_own_descriptor_of_the_same_shape(self) -> None:
        dlib = pytest.importorskip("dlib", reason="dlib is not installed")
        clip = sample("jwp-intro")
        row, faces = extract(DLIB.id, clip), extract("faces-mediapipe", clip)
        plain = dlib.face_recognition_model_v1(str(need("dlib-face-resnet")))
        found, compared = row.array("embedding"), 0
        with open_video(clip) as frames:
            for index, _, frame in resample(frames):
                if index not in (0, 25, 140):
                    continue
                points = landmarks_68(faces.array("points").reshape(-1, 478, 3)[index])[:, :2]
                parts = [dlib.point(round(float(x)), round(float(y))) for x, y in points]
                shape = dlib.full_object_detection(dlib.rectangle(0, 0, 9, 9), parts)
                wanted = np.array(plain.compute_face_descriptor(np.ascontiguousarray(frame), shape))
                assert np.abs(found[index] - wanted).max() < 1e-6
                compared += 1
        assert compared == 3

    def test_one_man_in_two_clips_is_one_person(self) -> None:
        """dlib's own bound is 0.6; the clips differ in place, light and size."""
        a, b = embeddings(sample("jwp-intro")), embeddings(sample("test-movie"))
        assert np.quantile(distances(a, b), 0.99) < 0.6
        assert max(np.median(distances(a, a)), np.median(distances(b, b))) < np.median(distances(a, b))

    def test_different_people_are_farther(self) -> None:
        man, other = embeddings(sample("jwp-intro")), embeddings(sample("single-face-video"))
        assert distances(man, other).min() > 0.6
        assert max(distances(man, man).max(), distances(other, other).max()) < 0.6

    def test_a_woman_is_neither_of_them(self, media: Path) -> None:
        need("dlib-face-resnet")
        need(LANDMARKER)
        with Image.open(media / "pkg_skimage" / "astronaut.png") as picture:
            frame = np.asarray(picture.convert("RGB"))
        with Landmarker(Counters()) as landmarker:
            (face, *_) = landmarker.detect(frame, 0)
        one = DlibIdentity(DLIB, Context("cpu", Counters()))
        one.push(Batch(np.arange(1), [frame], [face], [0], [None]))
        woman = one.finish()["embedding"]
        for name in ("jwp-intro", "single-face-video"):
            assert distances(woman, embeddings(sample(name))).min() > 0.6

    def test_what_is_not_embedded_is_null(self) -> None:
        row, work = extract_counted(DLIB.id, sample("face-noface"))
        missing = np.isnan(row.array("embedding")).all(axis=1)
        embedded = int((~missing).sum())
        assert row.value("n_embedded") == embedded == work.forwards[DLIB.id]
        assert 0 < row.value("n_missing") < row.value("n_frames")
        seen = row.value("n_frames") - row.value("n_missing")
        assert seen / EVERY <= embedded < seen / EVERY + 3
        assert np.diff(np.flatnonzero(~missing)).min() >= EVERY

    def test_no_face_at_all_is_a_reason(self) -> None:
        assert extract(DLIB.id, sample("no-face-video")).reason == "no_face"


class TestArcFace:
    def test_five_points_are_eyes_nose_and_mouth(self) -> None:
        assert five_points(face_at(TEMPLATE_112 * 3 + 40)) == pytest.approx(TEMPLATE_112 * 3 + 40, abs=1e-4)

    @pytest.mark.parametrize(("angle", "scale"), [(0, 1.0), (25, 2.0), (-140, 1.5)])
    def test_a_turned_face_comes_upright_onto_the_template(self, angle: float, scale: float) -> None:
        """Five marks in a turned and scaled picture land on the template's places."""
        turn = np.deg2rad(angle)
        rotation = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        five = (TEMPLATE_112 - 56) @ rotation.T + 200
        y, x = np.mgrid[0:400, 0:400]
        for k in range(5):
            mark = 255 * np.exp(-((x - five[k, 0]) ** 2 + (y - five[k, 1]) ** 2) / (2 * (3 * scale) ** 2))
            picture = aligned_112(np.repeat(mark.astype(np.uint8)[..., None], 3, axis=2), face_at(five))
            weights = picture[..., 0].astype(float)
            rows, columns = np.mgrid[0:112, 0:112]
            centre = [(weights * columns).sum() / weights.sum(), (weights * rows).sum() / weights.sum()]
            assert centre == pytest.approx(TEMPLATE_112[k].tolist(), abs=0.3)

    def test_outside_the_picture_it_is_black(self) -> None:
        frame = np.full((112, 112, 3), 200, np.uint8)
        picture = aligned_112(frame, face_at(TEMPLATE_112 + (-60, 0)))
        assert (picture[:, :58] == 0).all()
        assert (picture[:, 62:] == 200).all()

    def test_a_row_is_the_networks_answer_to_the_aligned_face(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """With random weights, as the real ones are placed by hand."""
        torch.manual_seed(0)
        network = ArcFace().eval()
        monkeypatch.setattr(Context, "network", lambda self, target: network)
        frames = list(np.random.default_rng(1).integers(0, 256, (6, 150, 150, 3), dtype=np.uint8))
        face = face_at(TEMPLATE_112)
        one = ArcFaceIdentity(ARCFACE, Context("cpu", Counters()))
        one.push(Batch(np.arange(6), frames, [face] * 6, [0] * 6, [None] * 6))
        row = one.finish()["embedding"]
        assert np.isnan(row[1:5]).all()
        with torch.inference_mode():
            wanted = network(prepare(np.stack([frames[k][:112, :112] for k in (0, 5)]))).numpy()
        assert np.abs(row[[0, 5]] - wanted).max() < 2e-3 * np.abs(wanted).max()


def test_a_cut_face_has_no_place() -> None:
    """Both extractors store embeddings alone."""
    assert DlibIdentity.place_width == ArcFaceIdentity.place_width == 0
    assert all(set(spec.columns) == {"embedding", "n_frames", "n_missing", "n_embedded"} for spec in EXTRACTORS)
