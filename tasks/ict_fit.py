"""Fitting the ICT-FaceKit model to landmarks of a clip: one identity, a pose for each frame.

Frame k sees landmark i at p_ki = s_k R2_k v_i(a, c_k) + t_k, a weak-perspective camera: R2 is the rotation's first two
rows, v the model's point for identity a and that frame's expression c. Expressions are given (the tracker's
blendshapes). Identity and poses minimise the cost

    mean over frames of sum_i |p_ki - s_k R2_k v_i - t_k|^2 / s_k^2  +  ridge |a|^2        (square centimetres)

The residual is divided by s_k so that a frame does not count more because the face is larger in it. The ridge
stands for what landmarks are worth: identity coefficients have unit variance over people, and a correspondence by place
is off by some millimetres that no pose averages out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..core.landmarks import LEFT_EYE, RIGHT_EYE
from .head_pose import nearest_rotation

RIDGE = 0.1  # square centimetres
ROUNDS = 6
IDENTITY_FRAMES = 100  # at most, evenly spaced over the clip
POSE_STEPS = 5
OUTER_EYES = (RIGHT_EYE.start, LEFT_EYE.start + 3)


class Basis(Protocol):
    """What of the face model is used, over the landmarks: `models.ict_facekit.FaceBasis`."""

    @property
    def identity(self) -> np.ndarray: ...

    def shape(self, identity: np.ndarray, expression: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class Poses:
    """Weak-perspective cameras of K frames.

    Attributes:
        scale: (K,) pixels a centimetre.
        rotation: (K, 3, 3), axes as in `head_pose`.
        shift: (K, 2) pixels, y up.
    """

    scale: np.ndarray
    rotation: np.ndarray
    shift: np.ndarray

    def project(self, model: np.ndarray) -> np.ndarray:
        """(K, V, 3) points to (K, V, 2) pixels, y up."""
        seen = model @ np.swapaxes(self.rotation[:, :2], 1, 2)
        return self.scale[:, None, None] * seen + self.shift[:, None]


@dataclass(frozen=True)
class IctFit:
    """One clip's fit.

    Attributes:
        identity: (100,).
        poses: K cameras.
        error: (K,) root mean square distance of the 68 landmarks, in units of the fitted outer eye distance.
    """

    identity: np.ndarray
    poses: Poses
    error: np.ndarray


def fit_poses(model: np.ndarray, seen: np.ndarray) -> Poses:
    """Weak-perspective cameras that minimise the distance of the projected points.

    Starts from the affine camera made orthonormal, then Gauss-Newton over rotation and log scale.

    Args:
        model: (K, V, 3) points; x to the right, y up, z to the viewer.
        seen: (K, V, 2) pixels, y up.
    """
    centre_m, centre_s = model.mean(axis=1, keepdims=True), seen.mean(axis=1, keepdims=True)
    m, s = model - centre_m, seen - centre_s
    scale, rotation = _affine_start(m, s)
    for _ in range(POSE_STEPS):
        scale, rotation = _pose_step(m, s, scale, rotation)
    shift = centre_s[:, 0] - scale[:, None] * (rotation[:, :2] @ centre_m[:, 0, :, None])[..., 0]
    return Poses(scale, rotation, shift)


def _affine_start(m: np.ndarray, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale and rotation from the least-squares affine camera of centred points."""
    camera = np.swapaxes(np.linalg.solve(np.swapaxes(m, 1, 2) @ m, np.swapaxes(m, 1, 2) @ s), 1, 2)  # (K, 2, 3)
    u, values, vt = np.linalg.svd(camera, full_matrices=False)
    rows = u @ vt
    return values.mean(axis=1), np.concatenate([rows, np.cross(rows[:, 0], rows[:, 1])[:, None]], axis=1)


def _pose_step(m: np.ndarray, s: np.ndarray, scale: np.ndarray, rotation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One Gauss-Newton step; unknowns are a small turn (left of the rotation) and the logarithm of the scale."""
    turned = scale[:, None, None] * (m @ np.swapaxes(rotation, 1, 2))
    jacobian = _pose_jacobian(turned)
    transposed = np.swapaxes(jacobian, 1, 2)
    wanted = (s - turned[..., :2]).reshape(len(s), -1, 1)
    step = np.linalg.solve(transposed @ jacobian, transposed @ wanted)[..., 0]
    return scale * np.exp(step[:, 3]), nearest_rotation(_small_turn(step[:, :3]) @ rotation)


def _pose_jacobian(turned: np.ndarray) -> np.ndarray:
    """How projected points move with a small turn and the logarithm of the scale.

    Args:
        turned: (K, V, 3) rotated and scaled points.

    Returns:
        (K, 2 V, 4), x and y of a point in consecutive rows.
    """
    x, y, z = np.moveaxis(turned, 2, 0)
    nothing = np.zeros_like(x)
    rows = np.stack([nothing, z, -y, x, -z, nothing, x, y], axis=2)
    return rows.reshape(len(x), -1, 4)


def _small_turn(vector: np.ndarray) -> np.ndarray:
    """I + [v]x, (K, 3, 3); made a rotation by whoever uses it."""
    a, b, c = vector.T
    zero = np.zeros_like(a)
    skew = np.stack([zero, -c, b, c, zero, -a, -b, a, zero], axis=1).reshape(-1, 3, 3)
    return np.eye(3) + skew


def fit_clip(basis: Basis, expression: np.ndarray, seen: np.ndarray, *, ridge: float = RIDGE) -> IctFit:
    """One identity for the clip and a pose for each frame.

    Args:
        basis: the model over the 68 landmarks.
        expression: (K, 57) coefficients of each frame.
        seen: (K, 68, 2) pixels, y up.
        ridge: weight of |a|^2, square centimetres.
    """
    identity = np.zeros(len(basis.identity))
    used = np.unique(np.linspace(0, len(seen) - 1, IDENTITY_FRAMES).round().astype(int))
    for _ in range(ROUNDS):
        poses = fit_poses(basis.shape(identity, expression[used]), seen[used])
        identity = _fit_identity(basis, identity, expression[used], seen[used], poses, ridge)
    model = basis.shape(identity, expression)
    poses = fit_poses(model, seen)
    distance = np.linalg.norm(poses.project(model) - seen, axis=2) / poses.scale[:, None]
    eyes = np.linalg.norm(model[:, OUTER_EYES[0]] - model[:, OUTER_EYES[1]], axis=1)
    return IctFit(identity, poses, np.sqrt((distance**2).mean(axis=1)) / eyes)


def _fit_identity(
    basis: Basis, identity: np.ndarray, expression: np.ndarray, seen: np.ndarray, poses: Poses, ridge: float
) -> np.ndarray:
    """The ridge solution in which every frame's pose is free to give way (variable projection).

    What a small change of pose can explain is taken out of residuals and shapes alike; else identity and pose, which
    both can make a face larger or tilt it, would hand over to each other for hundreds of rounds.
    """
    frames, size = len(seen), len(basis.identity)
    rest = poses.project(basis.shape(np.zeros(size), expression))
    residual = ((seen - rest) / poses.scale[:, None, None]).reshape(frames, -1, 1)
    shapes = np.einsum("jvd,kcd->kvcj", basis.identity, poses.rotation[:, :2]).reshape(frames, -1, size)
    turned = basis.shape(identity, expression) @ np.swapaxes(poses.rotation, 1, 2)
    shifts = np.broadcast_to(np.tile(np.eye(2), (seen.shape[1], 1)), (frames, 2 * seen.shape[1], 2))
    span = np.linalg.qr(np.concatenate([_pose_jacobian(turned), shifts], axis=2))[0]
    shapes, residual = (part - span @ (np.swapaxes(span, 1, 2) @ part) for part in (shapes, residual))
    stacked = shapes.reshape(-1, size)
    normal = stacked.T @ stacked / frames + ridge * np.eye(size)
    return np.linalg.solve(normal, stacked.T @ residual.ravel() / frames)
