"""Average expression distance (AED) and average pose distance (APD) between paired frames.

    AED = mean over frames and coefficients of |generated - real|
    APD = mean over frames and the 3 angles (degrees, differences taken round the circle) or the 3 axes of |difference|

Each variant names whose coefficients they are: 51 ARKit coefficients of MediaPipe (its "_neutral" is no expression and
is left out), 64 of Deep3DFaceRecon (columns 80:144 of its 257), 10 of 3DDFA_V2 (columns 52:62 of its 62, in the model's
own units). Coefficients of different models are different quantities.

AED and APD: Y. Ren et al., "PIRenderer", ICCV 2021, with Deep3DFaceRecon's coefficients.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .base import MetricSpec, Row
from .frame_pairs import PROTOCOL, FramePairMetric, column_sides, mean_absolute

ARKIT_EXPRESSION, DEEP3D_EXPRESSION, TDDFA_EXPRESSION = slice(1, 52), slice(80, 144), slice(52, 62)


def arkit_expression(row: Row) -> np.ndarray:
    """51 ARKit coefficients, (N, 51), NaN without a face."""
    return row.array("blendshapes")[:, ARKIT_EXPRESSION]


def deep3d_expression(row: Row) -> np.ndarray:
    """64 expression coefficients of Deep3DFaceRecon, (N, 64)."""
    return row.array("coefficients")[:, DEEP3D_EXPRESSION]


def tddfa_expression(row: Row) -> np.ndarray:
    """10 expression coefficients of 3DDFA_V2, (N, 10)."""
    return row.array("coefficients")[:, TDDFA_EXPRESSION]


def angle_distance(generated: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Mean absolute difference of angles in degrees, the shorter way round, (K, 3) to (K,)."""
    return np.abs((generated - real + 180.0) % 360.0 - 180.0).mean(axis=1)


def _declare(name: str, extractor: str, **facts: Any) -> MetricSpec:
    own = {"comparable_with_papers": False, "source": "Ren et al. 2021 (PIRenderer) for the distance"} | facts
    return MetricSpec(
        id=name,
        higher_is_better=False,
        generated=(extractor,),
        real=(extractor,),
        protocol=PROTOCOL,
        default=False,
        **own,
    )


def _aed(variant: str, extractor: str, model: str, count: int, why: str, unit: str = "") -> MetricSpec:
    return _declare(
        f"aed:{variant}",
        extractor,
        title=f"AED ({model})",
        measures=("expression",),
        unit=unit,
        what=f"How far the generated expression is from the real one, frame by frame, in {model}'s coefficients.",
        formula=f"mean over frames and {count} expression coefficients of |generated - real|",
        why=why,
    )


APD_ROTATION = _declare(
    "apd:arkit52-rotation",
    "arkit52",
    title="APD rotation",
    measures=("head",),
    unit="degrees",
    what="How far the generated head is turned from the real one, frame by frame.",
    formula="mean over frames of the mean over yaw, pitch and roll of |generated - real|, the shorter way round",
    why="papers take Deep3DFaceRecon's pose in radians",
)
APD_TRANSLATION = _declare(
    "apd:arkit52-translation",
    "arkit52",
    title="APD translation",
    measures=("head",),
    unit="cm",
    what=(
        "How far the generated head is from the real one's place, frame by frame, in MediaPipe's camera. "
        "It takes both sides to show the same crop."
    ),
    formula="mean over frames of the mean over x, y and z of |generated - real|",
    why="papers take Deep3DFaceRecon's translation in its own units",
)
METRICS = (
    FramePairMetric(
        _aed("arkit52", "arkit52", "ARKit", 51, "papers take Deep3DFaceRecon's coefficients"),
        column_sides("arkit52", arkit_expression),
        mean_absolute,
    ),
    FramePairMetric(
        _aed("deep3d-exp64", "deep3d", "Deep3D", 64, "faces are aligned by MediaPipe's landmarks, papers' by others"),
        column_sides("deep3d", deep3d_expression),
        mean_absolute,
    ),
    FramePairMetric(
        _aed("tddfa-exp10", "tddfa-v2", "3DDFA_V2", 10, "papers take Deep3DFaceRecon's coefficients", "model units"),
        column_sides("tddfa-v2", tddfa_expression),
        mean_absolute,
    ),
    FramePairMetric(APD_ROTATION, column_sides("arkit52", lambda row: row.array("rotation")), angle_distance),
    FramePairMetric(APD_TRANSLATION, column_sides("arkit52", lambda row: row.array("translation")), mean_absolute),
)
