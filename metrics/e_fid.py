"""E-FID: Fréchet distance between expression coefficients of all generated and all real frames.

The variant names whose coefficients they are, since published numbers differ by it: `deep3d-exp64` as in most papers
(L. Tian et al., "EMO", ECCV 2024, and works since), `arkit52` (51 of MediaPipe), `tddfa-exp10` (3DDFA_V2). A sample is
a frame at 25 fps. Frames without a face have no coefficients; they are left out and counted in the notes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .base import Features, FrechetMetric, MetricSpec, Pair, Row, Score, Settings, usable
from .expression_pose import arkit_expression, deep3d_expression, tddfa_expression
from .frame_pairs import seen


@dataclass(frozen=True)
class ExpressionFrechetMetric(FrechetMetric):
    """A `FrechetMetric` over some of a column's numbers, in the frames that show a face.

    Attributes:
        read: from a row to its (N, D) coefficients, NaN without a face. An extracted row has at least one frame.
    """

    read: Callable[[Row], np.ndarray]

    def score(self, pairs: Sequence[Pair], settings: Settings) -> Score:
        """As the base's, with the frames left out in the notes."""
        score = super().score(pairs, settings)
        whole = [pair for pair in pairs if usable(pair, self.spec) is None]
        sides = {
            side: [self.read((features or {})[self.spec.generated[0]]) for features in rows]
            for side, rows in (("generated", [p.generated for p in whole]), ("real", [p.real for p in whole]))
        }
        notes = [f"left out: {note}" for side, rows in sides.items() if (note := _faceless(side, rows))]
        return replace(score, notes=(*score.notes, *notes))

    def _rows(self, features: Features | None) -> np.ndarray:
        rows = self.read((features or {})[self.spec.generated[0]])
        return rows[seen(rows)]


def _faceless(side: str, rows: Sequence[np.ndarray]) -> str | None:
    missing = sum(int((~seen(one)).sum()) for one in rows)
    return f"{missing} of {sum(map(len, rows))} {side} frames, which show no face" if missing else None


def _e_fid(
    variant: str, extractor: str, column: str, read: Callable[[Row], np.ndarray], model: str, count: int, why: str
) -> ExpressionFrechetMetric:
    spec = MetricSpec(
        id=f"e_fid:{variant}",
        title=f"E-FID ({model})",
        unit="",
        higher_is_better=False,
        what=f"How far the generated frames' expressions are from the real ones as a whole, in {model}'s coefficients.",
        formula=f"|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) over {count} expression coefficients of every frame",
        source="Heusel et al. 2017 for the distance; Tian et al. 2024 (EMO) for its use on expressions",
        generated=(extractor,),
        real=(extractor,),
        comparable_with_papers=False,
        measures=("expression",),
        why=why,
        clip_title="gap of mean coefficients",
        protocol={
            "coefficients": count,
            "frames": "every frame at 25 fps that shows a face; the others are left out and counted",
        },
        default=False,
    )
    return ExpressionFrechetMetric(spec, column, read)


METRICS = (
    _e_fid(
        "arkit52",
        "arkit52",
        "blendshapes",
        arkit_expression,
        "ARKit",
        51,
        "papers take a face model's coefficients; these are MediaPipe's",
    ),
    _e_fid(
        "deep3d-exp64",
        "deep3d",
        "coefficients",
        deep3d_expression,
        "Deep3D",
        64,
        "papers seldom say how faces are aligned and how many frames they take; here MediaPipe's landmarks align them",
    ),
    _e_fid(
        "tddfa-exp10",
        "tddfa-v2",
        "coefficients",
        tddfa_expression,
        "3DDFA_V2",
        10,
        "papers take other coefficients; these are in 3DDFA_V2's units",
    ),
)
