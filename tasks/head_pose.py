"""Head rotation as three angles, for every extractor that has one.

Axes: x to the right of the picture, y up, z towards the camera. R = Rz(roll) Ry(yaw) Rx(pitch) turns a face that looks
at the camera (+z) into the one that is seen. So yaw > 0 looks to the right of the picture, pitch > 0 looks down,
roll > 0 leans counter-clockwise as seen in the picture.
"""

from __future__ import annotations

import numpy as np


def nearest_rotation(matrix: np.ndarray) -> np.ndarray:
    """The proper rotation closest to each matrix (Frobenius norm), (..., 3, 3) float64."""
    u, _, vt = np.linalg.svd(np.asarray(matrix, dtype=np.float64))
    u[..., :, 2] *= np.linalg.det(u @ vt)[..., None]
    return u @ vt


def angles_of(rotation: np.ndarray) -> np.ndarray:
    """Yaw, pitch and roll in degrees.

    Args:
        rotation: (..., 3, 3) proper rotations.

    Returns:
        (..., 3) float64; yaw within -90..90, the others within -180..180.
    """
    yaw = np.arcsin(np.clip(-rotation[..., 2, 0], -1.0, 1.0))
    pitch = np.arctan2(rotation[..., 2, 1], rotation[..., 2, 2])
    roll = np.arctan2(rotation[..., 1, 0], rotation[..., 0, 0])
    return np.degrees(np.stack([yaw, pitch, roll], axis=-1))


def rotation_of(angles: np.ndarray) -> np.ndarray:
    """Inverse of `angles_of`: (..., 3) degrees to (..., 3, 3)."""
    yaw, pitch, roll = np.moveaxis(np.radians(np.asarray(angles, dtype=np.float64)), -1, 0)
    return _turn(roll, 0, 1) @ _turn(yaw, 2, 0) @ _turn(pitch, 1, 2)


def _turn(angle: np.ndarray, a: int, b: int) -> np.ndarray:
    """Rotation that carries axis a towards axis b."""
    matrix = np.zeros((*angle.shape, 3, 3))
    matrix[...] = np.eye(3)
    matrix[..., a, a] = matrix[..., b, b] = np.cos(angle)
    matrix[..., b, a], matrix[..., a, b] = np.sin(angle), -np.sin(angle)
    return matrix
