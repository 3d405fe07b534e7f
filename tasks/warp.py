"""Method `warp`: a portrait whose mouth opens with the loudness of the sound, by a smooth landmark-driven warp.

No network beyond the landmarker and nothing learned. The inner lips part by an amount that follows the speech
envelope; lips, chin and jaw go along by fixed shares, eyes, nose and the frame's border stay. A thin-plate spline
through these points is the backward map, so the picture stays smooth everywhere; the gap shows the stretched lip line,
darkened. Head and eyes do not move.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from scipy.interpolate import RBFInterpolator

from ..core.counters import Counters
from ..core.errors import NoFace
from ..datasets.encode import VideoWriter
from .extract_speech import frame_levels
from .faces import EYE_CORNERS, Face, Landmarker
from .methods import Method, TestItem, read_portrait, read_sound

RANGE_DB = 30.0  # loudness range that opens the mouth from closed to full
FULL_OPENING = 0.18  # of the outer eye distance
GRID = 8  # pixels between points where the spline is evaluated
DARKENING = 0.55  # how much of the light the open mouth loses

# Mesh indices, and the share of the opening by which each group moves down the face (negative: up).
UPPER_LIP = (0, 37, 39, 267, 269, 13, 82, 81, 312, 311)
LOWER_INNER_LIP = (14, 87, 178, 317, 402)
LOWER_LIP = (17, 84, 181, 314, 405)
CHIN = (152, 148, 377, 176, 400, 200, 199, 175)
JAW = (149, 378, 150, 379, 136, 365)
FIXED = (10, 67, 297, 54, 284, 127, 356, 234, 454, 33, 133, 263, 362, 159, 386, 145, 374, 70, 300, 1, 4, 168, 98, 327)
CHEEKS = (50, 280, 205, 425, 61, 291, 93, 323, 132, 361)
SHARES = {UPPER_LIP: -0.12, LOWER_INNER_LIP: 0.88, LOWER_LIP: 0.85, CHIN: 0.75, JAW: 0.5, FIXED: 0.0, CHEEKS: 0.0}
INNER_RING = (78, 81, 13, 311, 308, 402, 14, 178)

METHODS = (
    Method("warp", 1, "a portrait whose mouth opens with the loudness, no network", "talkforge.tasks.warp:warp"),
)


def opening_curve(samples: np.ndarray, frames: int) -> np.ndarray:
    """How far the mouth is open in each frame, 0..1, float64 (frames,): level over the upper 30 dB, squared, smoothed.

    Args:
        samples: float32 (S,) at 16 kHz.
        frames: number of frames, at most S // 640.
    """
    levels = frame_levels(samples)[:frames].astype(np.float64)
    if levels.max() <= -60.0:  # silence keeps the mouth shut
        return np.zeros(frames)
    share = np.clip((levels - levels.max() + RANGE_DB) / RANGE_DB, 0.0, 1.0)
    return np.convolve(np.pad(share**2, 1, mode="edge"), [0.25, 0.5, 0.25], mode="valid")


@dataclass(frozen=True)
class Mouth:
    """A portrait with the control points of its warp."""

    frame: np.ndarray
    points: np.ndarray  # (K, 2) pixels
    shares: np.ndarray  # (K,)
    ring: np.ndarray  # (8,) indices into `points` of the inner lips, in order around the mouth
    down: np.ndarray  # (2,) full opening, pixels

    @classmethod
    def of(cls, frame: np.ndarray, face: Face) -> Mouth:
        """Control points from the landmarks, with the frame's border held fixed."""
        indices = [index for group in SHARES for index in group] + [78, 308]
        shares = [share for group, share in SHARES.items() for _ in group] + [0.1, 0.1]
        border = _border(frame.shape[1], frame.shape[0])
        points = np.concatenate([face.points[indices, :2].astype(np.float64), border])
        axis = (face.points[152, :2] - face.points[10, :2]).astype(np.float64)
        eyes = np.linalg.norm(face.points[EYE_CORNERS[0], :2] - face.points[EYE_CORNERS[1], :2])
        return cls(
            frame,
            points,
            np.array([*shares, *np.zeros(len(border))]),
            np.array([indices.index(index) for index in INNER_RING]),
            axis / np.linalg.norm(axis) * eyes * FULL_OPENING,
        )

    def opened(self, amount: float) -> np.ndarray:
        """The frame with the mouth open by `amount` (0..1), uint8 of the same shape."""
        if amount < 0.01:
            return self.frame
        moved = self.points + amount * self.shares[:, None] * self.down
        spline = RBFInterpolator(moved, self.points - moved, kernel="thin_plate_spline", smoothing=1e-3)
        height, width = self.frame.shape[:2]
        x, y = np.arange(0, width + GRID, GRID), np.arange(0, height + GRID, GRID)
        coarse = spline(np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)).reshape(len(y), len(x), 2)
        place = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)
        shift = cv2.remap(coarse.astype(np.float32), place[..., 0] / GRID, place[..., 1] / GRID, cv2.INTER_LINEAR)
        source = place + shift
        warped = cv2.remap(
            self.frame, source[..., 0], source[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        return self._darken(warped, moved[self.ring], amount)

    def _darken(self, frame: np.ndarray, ring: np.ndarray, amount: float) -> np.ndarray:
        """Takes light from inside the inner lips, soft at the edge."""
        mask = np.zeros(frame.shape[:2], dtype=np.float32)
        cv2.fillPoly(mask, [ring.round().astype(np.int32)], 1.0)
        mask = cv2.GaussianBlur(mask, (0, 0), max(1.0, float(np.linalg.norm(self.down)) * 0.06))
        return (frame * (1.0 - DARKENING * min(1.0, 2 * amount) * mask[..., None])).round().astype(np.uint8)


def _border(width: int, height: int) -> np.ndarray:
    x, y = np.linspace(0, width - 1, 5), np.linspace(0, height - 1, 5)
    top, left = np.stack([x, 0 * x], axis=1), np.stack([0 * y, y], axis=1)[1:-1]
    return np.concatenate([top, top + [0, height - 1], left, left + [width - 1, 0]])


def find_face(frame: np.ndarray, name: str) -> Face:
    """The largest face of a portrait. Raises NoFace.

    It is looked for again in a square around itself: in a group photograph the first mesh can lie beside the face.
    """
    with Landmarker(Counters()) as landmarker:
        faces = landmarker.detect(frame, 0)
    if not faces:
        raise NoFace(f"no face in the portrait {name}")
    left, top, right, bottom = faces[0].box
    reach = 1.25 * max(right - left, bottom - top)
    x, y = max(0, round((left + right) / 2 - reach)), max(0, round((top + bottom) / 2 - reach))
    with Landmarker(Counters()) as landmarker:
        nearer = landmarker.detect(frame[y : y + round(2 * reach), x : x + round(2 * reach)], 0)
    if not nearer:
        return faces[0]
    return replace(nearer[0], points=nearer[0].points + np.array([x, y, 0], dtype=np.float32))


def warp(item: TestItem, out: Path) -> None:
    """Writes the talking portrait. Raises NoFace, NoAudioTrack and what reading the inputs raises."""
    frame = read_portrait(item.portrait)
    samples, count = read_sound(item)
    mouth = Mouth.of(frame, find_face(frame, item.portrait.name))
    with VideoWriter(out, frame.shape[1], frame.shape[0], audio=samples) as writer:
        for amount in opening_curve(samples, count):
            writer.write(mouth.opened(float(amount)))
