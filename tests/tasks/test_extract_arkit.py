"""ARKit rows, head angles, the 68 landmarks and the ICT-FaceKit fit."""

import numpy as np
import pytest
from talkforge.core.counters import Counters
from talkforge.core.landmarks import MEDIAPIPE_68, MIRRORED_68, landmarks_68
from talkforge.datasets.video import open_video
from talkforge.models.ict_facekit import FaceBasis, load_landmark_basis
from talkforge.tasks.extract_arkit import BLENDSHAPE_NAMES
from talkforge.tasks.faces import LANDMARKER, Landmarker
from talkforge.tasks.head_pose import angles_of, nearest_rotation, rotation_of
from talkforge.tasks.ict_fit import Poses, fit_clip, fit_poses
from talkforge.tests.tasks.one_row import extract, extract_counted, need, sample


@pytest.fixture(scope="module")
def basis() -> FaceBasis:
    need("ict-facekit-mesh")
    need("ict-facekit-indices")
    return load_landmark_basis()


class TestAngles:
    @pytest.mark.parametrize(
        ("angles", "nose"),
        [
            ((30, 0, 0), (0.5, 0, np.sqrt(0.75))),  # to the right of the picture
            ((0, 30, 0), (0, -0.5, np.sqrt(0.75))),  # down
            ((0, 0, 30), (0, 0, 1)),
        ],
    )
    def test_signs(self, angles: tuple[float, ...], nose: tuple[float, ...]) -> None:
        assert rotation_of(np.array(angles)) @ (0, 0, 1) == pytest.approx(nose)

    def test_roll_is_counter_clockwise(self) -> None:
        assert rotation_of(np.array([0, 0, 90])) @ (1, 0, 0) == pytest.approx((0, 1, 0))

    def test_there_and_back(self) -> None:
        angles = np.random.default_rng(0).uniform(-1, 1, (200, 3)) * (89, 179, 179)
        assert angles_of(rotation_of(angles)) == pytest.approx(angles, abs=1e-6)

    def test_nearest_rotation_is_proper_and_ignores_scale(self) -> None:
        matrices = np.random.default_rng(1).standard_normal((50, 3, 3))
        near = nearest_rotation(matrices)
        assert np.linalg.det(near) == pytest.approx(np.ones(50))
        assert near @ np.swapaxes(near, 1, 2) == pytest.approx(np.broadcast_to(np.eye(3), (50, 3, 3)))
        turn = rotation_of(np.array([10.0, 20, 30]))
        assert nearest_rotation(3 * turn) == pytest.approx(turn)


class TestLandmarks:
    def test_there_are_68_different_ones(self) -> None:
        assert len(set(MEDIAPIPE_68)) == 68
        points = np.arange(478 * 2).reshape(1, 478, 2)
        assert (landmarks_68(points)[0, :, 0] == 2 * MEDIAPIPE_68).all()

    def test_both_sides_are_the_same_choice(self) -> None:
        """On a nearly frontal face the mirrored scheme lies on the scheme."""
        row = extract("faces-mediapipe", sample("jwp-intro"))
        pose = nearest_rotation(row.array("pose").reshape(-1, 4, 4)[:, :3, :3])
        k = int(np.abs(angles_of(pose)[:, 0]).argmin())
        points = landmarks_68(row.array("points").reshape(-1, 478, 3)[k]) * (1, -1, -1)
        upright = points @ pose[k]
        upright -= upright[27:31].mean(axis=0)
        width = upright[45, 0] - upright[36, 0]
        assert np.abs(upright[MIRRORED_68] * (-1, 1, 1) - upright)[:, :2].max() < 0.12 * width


class TestArkit:
    def test_names_are_mediapipes(self) -> None:
        need(LANDMARKER)
        with open_video(sample("single-face-video")) as frames, Landmarker(Counters()) as landmarker:
            _, frame = next(iter(frames))
            found = landmarker._detector.detect_for_video(landmarker._image(frame), 0)
        assert tuple(shape.category_name for shape in found.face_blendshapes[0]) == BLENDSHAPE_NAMES

    def test_a_row_is_the_stored_faces_reduced(self) -> None:
        clip = sample("jwp-intro")
        row, faces = extract("arkit52", clip), extract("faces-mediapipe", clip)
        assert row.value("n_frames") == faces.value("n_frames") == 144
        assert (row.array("blendshapes") == faces.array("blendshapes")).all()
        matrix = faces.array("pose").reshape(-1, 4, 4)
        assert rotation_of(row.array("rotation")) == pytest.approx(matrix[:, :3, :3], abs=1e-4)
        assert (row.array("translation") == matrix[:, :3, 3]).all()
        assert (row.array("translation")[:, 2] < -10).all()

    def test_faces_are_found_once_and_then_replayed(self, tmp_path) -> None:
        clip = sample("single-face-video")
        first, work = extract_counted("arkit52", clip, fresh=tmp_path)
        assert first.reason is None
        assert work.face_detections == first.value("n_frames") == 60
        second, work = extract_counted("au-blendshape-proxy", clip, fresh=tmp_path)
        assert second.reason is None
        assert work.face_detections == 0

    def test_a_frame_without_a_face_is_null(self) -> None:
        row = extract("arkit52", sample("face-noface"))
        missing = np.isnan(row.array("blendshapes")).all(axis=1)
        assert 0 < missing.sum() == row.value("n_missing") < row.value("n_frames") == len(missing)
        for column in ("rotation", "translation"):
            assert (np.isnan(row.array(column)).all(axis=1) == missing).all()
        assert row._table["rotation"].chunk(0)[0].values.null_count == missing.sum()

    def test_no_face_at_all_is_a_reason(self) -> None:
        for name in ("arkit52", "arkit52-ict", "au-blendshape-proxy"):
            assert extract(name, sample("no-face-video")).reason == "no_face"


class TestIctFit:
    def synthetic(self, basis: FaceBasis, frames: int = 60) -> tuple[np.ndarray, np.ndarray, Poses]:
        rng = np.random.default_rng(4)
        identity = rng.standard_normal(100)
        expression = basis.from_blendshapes(rng.uniform(0, 0.6, (frames, 52)), BLENDSHAPE_NAMES)
        rotation = rotation_of(rng.uniform(-1, 1, (frames, 3)) * (35, 20, 15))
        poses = Poses(rng.uniform(8, 14, frames), rotation, rng.uniform(-300, 300, (frames, 2)))
        return identity, expression, poses

    def test_poses_of_known_shapes_are_recovered(self, basis: FaceBasis) -> None:
        identity, expression, poses = self.synthetic(basis)
        model = basis.shape(identity, expression)
        found = fit_poses(model, poses.project(model))
        assert found.rotation == pytest.approx(poses.rotation, abs=1e-8)
        assert found.scale == pytest.approx(poses.scale, abs=1e-8)
        assert found.shift == pytest.approx(poses.shift, abs=1e-6)

    def test_a_pose_is_the_best_one(self, basis: FaceBasis) -> None:
        """With noise no pose is exact; the bottom of the cost, along each turn and the scale, must then be here."""
        rng = np.random.default_rng(5)
        identity, expression, poses = self.synthetic(basis, 5)
        model = basis.shape(identity, expression)
        seen = poses.project(model) + rng.standard_normal((5, 68, 2)) * 10
        found = fit_poses(model, seen)

        def cost(turn: np.ndarray, growth: float) -> np.ndarray:
            turned = Poses(found.scale * np.exp(growth), rotation_of(turn) @ found.rotation, found.shift)
            centred = turned.project(model) - seen
            return ((centred - centred.mean(axis=1, keepdims=True)) ** 2).sum(axis=(1, 2))

        step, here = 0.1, cost(np.zeros(3), 0.0)
        for axis in range(4):
            turn, growth = np.eye(4)[axis, :3] * step, np.radians(step) * (axis == 3)
            up, down = cost(turn, growth), cost(-turn, -growth)
            assert (np.minimum(up, down) > here).all()
            bottom = step * (down - up) / (2 * (up + down - 2 * here))
            assert np.abs(bottom).max() < 0.005  # degrees

    def test_identity_and_poses_are_recovered_without_noise(self, basis: FaceBasis) -> None:
        identity, expression, poses = self.synthetic(basis)
        seen = poses.project(basis.shape(identity, expression))
        fit = fit_clip(basis, expression, seen, ridge=1e-6)
        assert np.abs(fit.identity - identity).max() < 0.05
        assert np.abs(angles_of(fit.poses.rotation) - angles_of(poses.rotation)).max() < 0.01
        assert fit.error.max() < 1e-4

    def test_the_ridge_shrinks_towards_the_mean_face_and_keeps_the_shape(self, basis: FaceBasis) -> None:
        rng = np.random.default_rng(6)
        identity, expression, poses = self.synthetic(basis)
        seen = poses.project(basis.shape(identity, expression)) + rng.standard_normal((60, 68, 2))
        fit = fit_clip(basis, expression, seen)
        true, found, mean = (basis.shape(one, np.zeros(57)) for one in (identity, fit.identity, 0 * identity))
        # A weak-perspective camera does not see how large a face is, so shapes are compared at one size.
        true, found, mean = (face - face.mean(axis=0) for face in (true, found, mean))
        true, found, mean = (face / np.linalg.norm(face) for face in (true, found, mean))
        assert np.linalg.norm(fit.identity) < np.linalg.norm(identity)
        assert np.linalg.norm(found - true) < 0.75 * np.linalg.norm(mean - true)
        assert np.abs(angles_of(fit.poses.rotation) - angles_of(poses.rotation)).max() < 2

    @pytest.mark.parametrize("name", ["jwp-intro", "wolfgang-langer"])
    def test_real_clips_fit_and_agree_with_the_trackers_pose(self, basis: FaceBasis, name: str) -> None:
        row, pose = extract("arkit52-ict", sample(name)), extract("arkit52", sample(name)).array("rotation")
        assert row.array("identity").shape == (100,)
        assert 0.1 < np.abs(row.array("identity")).max() < 3
        assert np.median(row.array("error")) < 0.06  # of the outer eye distance
        angles = row.array("rotation")
        for k in np.flatnonzero(np.ptp(pose, axis=0) > 10):
            assert np.corrcoef(angles[:, k], pose[:, k])[0, 1] > 0.9

    def test_one_man_in_two_clips_is_more_alike_than_two_people(self, basis: FaceBasis) -> None:
        intro, movie, woman, man = (
            extract("arkit52-ict", sample(name)).array("identity")
            for name in ("jwp-intro", "test-movie", "wolfgang-langer", "single-face-video")
        )

        def alike(a: np.ndarray, b: np.ndarray) -> float:
            return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

        assert alike(intro, movie) > max(alike(intro, woman), alike(intro, man), alike(movie, woman))

    def test_a_frame_without_a_face_is_null(self, basis: FaceBasis) -> None:
        row = extract("arkit52-ict", sample("face-noface"))
        missing = np.isnan(row.array("error"))
        assert 0 < missing.sum() == row.value("n_missing")
        assert (np.isnan(row.array("rotation")).all(axis=1) == missing).all()
        assert (np.isnan(row.array("scale")) == missing).all()
        assert np.isfinite(row.array("identity")).all()
