"""The white box over the face that DICE-Talk's denoiser reads: the same geometry in training and in generation."""

from __future__ import annotations

import numpy as np

from ..core.errors import InputError

Boxes = np.ndarray  # float64 (T, 4): left, top, right, bottom


def face_mask(points: np.ndarray, height: int, width: int, size: int, box_scale: float = 1.1) -> np.ndarray:
    """Masks of the face's bounding box, grown about its centre.

    Pictures of `height` x `width` pixels are resized to squares of `size`, and the mask with them: a pixel of it is 1
    where its centre lies in the box, else 0. Give all points of a clip as one row, `points.reshape(1, -1, 2)`, for one
    box around all places that the face takes.

    Args:
        points: (T, N, 2) x and y in pixels of the picture, or boxes (T, 4): left, top, right, bottom. NaN points do not
            count; a row of NaN only, a frame without a face, gets the box around those of all rows.
        height, width: of the picture that the points are of.
        size: side of the masks.
        box_scale: factor on both sides of the box.

    Returns:
        float32 (T, 1, size, size) of 0 and 1.

    Raises:
        InputError: points of another shape, no face in any row, or a face outside of the picture.
    """
    boxes = _grown(_filled(_boxes(np.asarray(points, np.float64))), box_scale)
    centres = (np.arange(size) + 0.5) / size
    across = _between(centres * width, boxes[:, 0], boxes[:, 2])
    down = _between(centres * height, boxes[:, 1], boxes[:, 3])
    masks = down[:, None, :, None] & across[:, None, None, :]
    if not masks.any(axis=(1, 2, 3)).all():
        raise InputError(f"a face lies outside of its picture of {width} x {height} pixels")
    return masks.astype(np.float32)


def boxes_in_crop(points: np.ndarray, transforms: np.ndarray) -> Boxes:
    """The face's bounding box in the crop video of a build, from the columns that the build has.

    Args:
        points: (T, 3 N) `faces_mediapipe_points`: x, y, z one after the other, pixels of the source from its corner.
        transforms: (T, 6) `crop_transform`: source to crop, 2 x 3 row by row, both from the first pixel's centre.

    Returns:
        float64 (T, 4) left, top, right, bottom in pixels of the crop from its corner; NaN without a face or a crop.
    """
    flat = points.astype(np.float64).reshape(len(points), -1, 3)[..., :2] - 0.5
    matrices = transforms.astype(np.float64).reshape(-1, 2, 3)
    moved = np.einsum("tij,tnj->tni", matrices[..., :2], flat) + matrices[:, None, :, 2] + 0.5
    return _boxes(moved)


def _boxes(points: np.ndarray) -> Boxes:
    """The box of each row; NaN where it has no point."""
    if points.ndim == 2 and points.shape[1] == 4:
        return points
    if points.ndim != 3 or points.shape[2] != 2 or not points.shape[1]:
        raise InputError(f"a face is (T, N, 2) points or (T, 4) boxes, not {points.shape}")
    seen = np.logical_and.reduce(np.isfinite(points), axis=2, keepdims=True)
    low = np.where(seen, points, np.inf).min(axis=1)
    high = np.where(seen, points, -np.inf).max(axis=1)
    return np.where(seen.any(axis=1), np.concatenate([low, high], axis=1), np.nan)


def _filled(boxes: Boxes) -> Boxes:
    """Rows without a box get the one around all others."""
    seen: np.ndarray = np.logical_and.reduce(np.isfinite(boxes), axis=1)
    if not seen.any():
        raise InputError("no frame shows a face, so there is no face mask")
    whole = np.concatenate([boxes[seen, :2].min(axis=0), boxes[seen, 2:].max(axis=0)])
    return np.where(seen[:, None], boxes, whole)


def _grown(boxes: Boxes, scale: float) -> Boxes:
    low, high = boxes[:, :2], boxes[:, 2:]
    centre, half = (low + high) / 2, (high - low) / 2 * scale
    return np.concatenate([centre - half, centre + half], axis=1)


def _between(at: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """bool (T, size): which of the places lie within each row's bounds."""
    return (at >= low[:, None]) & (at <= high[:, None])
