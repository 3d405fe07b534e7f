"""3DDFA_V2 rows: the crop, the rotation, and agreement with the tracker's own pose on real clips."""

import numpy as np
import pytest
from talkforge.tasks.extract_tddfa import crop_box, cut, rotation_of_pose
from talkforge.tasks.head_pose import angles_of, rotation_of
from talkforge.tests.tasks.one_row import extract, extract_counted, sample

TDDFA = "tddfa-v2"


def test_the_crop_is_the_square_of_the_landmarks_grown_by_the_root_of_two() -> None:
    points = np.array([[100.0, 200], [300, 200], [200, 260], [150, 300]])  # 200 wide, 100 high, centre (200, 250)
    half = 100 * np.sqrt(2)
    assert crop_box(points).tolist() == [round(200 - half), round(250 - half), round(200 + half), round(250 + half)]
    assert crop_box(points - 150).tolist() == [-91, -41, 191, 241]


def test_outside_the_picture_it_is_black() -> None:
    frame = np.full((100, 80, 3), 200, np.uint8)
    whole = cut(frame, np.array([-60, -60, 60, 60]))
    assert whole.shape == (120, 120, 3)
    assert (whole[:60] == 0).all()
    assert (whole[:, :60] == 0).all()
    assert (whole[60:, 60:] == 200).all()
    assert (cut(frame, np.array([500, 500, 620, 620])) == 0).all()


def test_a_rotation_comes_back_out_of_its_pose() -> None:
    angles = np.random.default_rng(0).uniform(-60, 60, (20, 3))
    pose = np.concatenate([5e-4 * rotation_of(angles), np.full((20, 3, 1), 60.0)], axis=2)
    assert angles_of(rotation_of_pose(pose.reshape(20, 12))) == pytest.approx(angles)


@pytest.mark.parametrize("name", ["jwp-intro", "wolfgang-langer"])
def test_rotation_agrees_with_the_trackers(name: str) -> None:
    """Two networks and two conventions of what is straight: means differ by degrees, movements go together."""
    row, pose = extract(TDDFA, sample(name)), extract("arkit52", sample(name)).array("rotation")
    angles = row.array("rotation")
    assert np.abs(np.median(angles - pose, axis=0)).max() < 10
    moving = np.ptp(pose, axis=0) > 10
    assert moving.any()
    for k in np.flatnonzero(moving):
        assert np.corrcoef(angles[:, k], pose[:, k])[0, 1] > 0.8


def test_the_pose_is_nearly_a_scaled_rotation() -> None:
    pose = extract(TDDFA, sample("jwp-intro")).array("coefficients")[:, :12].reshape(-1, 3, 4)[:, :, :3]
    lengths = np.linalg.norm(pose, axis=2)
    rows = pose / lengths[:, :, None]
    products = rows @ np.swapaxes(rows, 1, 2) - np.eye(3)
    assert np.abs(products).max() < 0.05
    assert np.abs(lengths / lengths[:, :1] - 1).max() < 0.05
    assert np.linalg.det(rows).min() > 0.9


def test_shape_is_the_persons_and_expression_is_not() -> None:
    """Shape coefficients stay, over the clip, closer to one man's mean than to another person's."""
    man, woman = (extract(TDDFA, sample(name)).array("coefficients") for name in ("jwp-intro", "wolfgang-langer"))
    shape, other = man[:, 12:52], woman[:, 12:52]
    scale = np.concatenate([shape, other]).std(axis=0)
    own = np.linalg.norm((shape - shape.mean(axis=0)) / scale, axis=1)
    foreign = np.linalg.norm((shape - other.mean(axis=0)) / scale, axis=1)
    assert (own < foreign).mean() > 0.95


def test_only_faces_are_forwarded_and_the_rest_is_null() -> None:
    row, work = extract_counted(TDDFA, sample("face-noface"))
    missing = np.isnan(row.array("coefficients")).all(axis=1)
    assert 0 < missing.sum() == row.value("n_missing") < row.value("n_frames")
    assert work.forwards[TDDFA] == (~missing).sum()
    for column in ("rotation", "box"):
        assert (np.isnan(row.array(column)).all(axis=1) == missing).all()


def test_no_face_at_all_is_a_reason() -> None:
    assert extract(TDDFA, sample("no-face-video")).reason == "no_face"
