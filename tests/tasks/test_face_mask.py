"""The face mask's geometry."""

from __future__ import annotations

import numpy as np
import pytest
from talkforge.core.errors import InputError
from talkforge.tasks.face_mask import face_mask


def test_a_box_in_closed_form() -> None:
    # 100 x 200 pixels onto 10 x 10: a cell is 20 wide and 10 high. Twice the box 80..120 x 40..60 is 60..140 x 30..70.
    mask = face_mask(np.array([[80.0, 40, 120, 60]]), 100, 200, 10, 2.0)
    wanted = np.zeros((10, 10), np.float32)
    wanted[3:7, 3:7] = 1
    assert mask.shape == (1, 1, 10, 10) and mask.dtype == np.float32
    assert np.array_equal(mask[0, 0], wanted)


def test_points_lie_in_their_mask_and_boxes_are_the_same_thing() -> None:
    points = np.random.default_rng(0).uniform([30, 60], [90, 110], (5, 40, 2))
    masks = face_mask(points, 128, 128, 64, 1.1)
    boxes = np.concatenate([points.min(1), points.max(1)], 1)
    assert np.array_equal(masks, face_mask(boxes, 128, 128, 64, 1.1))
    for mask, frame in zip(masks[:, 0], points, strict=True):
        columns, rows = (frame // 2).astype(int).T
        assert mask[rows, columns].all()
        assert 0 < mask.mean() < 0.25
    one = face_mask(points.reshape(1, -1, 2), 128, 128, 64, 1.1)
    assert np.array_equal(one[0] >= masks.max(0), np.ones((1, 64, 64), bool))


def test_a_face_reaches_over_the_edge() -> None:
    mask = face_mask(np.array([[-50.0, -50, 25, 25]]), 100, 100, 4, 1.0)[0, 0]
    assert mask.sum() == 1 and mask[0, 0] == 1


def test_frames_without_a_face_get_the_box_of_the_others() -> None:
    points = np.full((3, 2, 2), np.nan)
    points[0], points[2] = [[0, 0], [9.9, 9.9]], [[20, 20], [29.9, 29.9]]
    masks = face_mask(points, 40, 40, 4, 1.0)[:, 0]
    assert masks.sum(axis=(1, 2)).tolist() == [1, 9, 1]
    assert masks[1, :3, :3].all()


def test_what_is_no_face_is_refused() -> None:
    with pytest.raises(InputError, match=r"not \(3, 5\)"):
        face_mask(np.zeros((3, 5)), 8, 8, 4)
    with pytest.raises(InputError, match="no frame shows a face"):
        face_mask(np.full((2, 3, 2), np.nan), 8, 8, 4)
    with pytest.raises(InputError, match="outside of its picture"):
        face_mask(np.array([[20.0, 20, 30, 30]]), 8, 8, 4)
