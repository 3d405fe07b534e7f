"""Feature rows held in memory, and faces whose mouths open as a test says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from talkforge.core.mouth_sync import EYE_CORNERS, LIP_PAIRS, POINTS


@dataclass(frozen=True)
class HeldRow:
    """A row as metrics see it."""

    columns: Mapping[str, Any] = field(default_factory=dict)
    reason: str | None = None
    message: str = ""

    def array(self, column: str) -> np.ndarray:
        return np.asarray(self.columns[column])

    def value(self, column: str) -> Any:
        return self.columns[column]


def faces_with(openings: np.ndarray, *, eyes: float = 1.0) -> HeldRow:
    """Faces whose inner lips part by these many eye distances, in 3D directions of their own; NaN is no face."""
    points = np.random.default_rng(0).normal(size=(len(openings), POINTS, 3))
    points[:, EYE_CORNERS[0]] = 0.0
    points[:, EYE_CORNERS[1]] = eyes * np.array([0.6, 0.0, 0.8])
    for upper, lower in LIP_PAIRS:
        points[:, upper] = points[:, lower] + eyes * np.outer(openings, [0.0, 0.8, -0.6])
    points[np.isnan(openings)] = np.nan
    return HeldRow({"points": points.reshape(len(openings), -1).astype(np.float32)})


def speech_with(levels: np.ndarray) -> HeldRow:
    """A speech row with these levels in dB."""
    return HeldRow({"level_db": np.asarray(levels, np.float32)})
