"""THEval's three measures of picture quality: mouth, face, and the whole picture's aesthetics.

N. Quignon et al., "THEval: Evaluation Framework for Talking Head Generation", CVPR 2026. Each is the mean over a clip's
frames of what an image quality network says: MUSIQ of the mouth, TOPIQ of the aligned face, TOPIQ-IAA of the whole
picture. Rows and how they depart from the published code: `tasks.extract_quality_scores`; briefly, frames are those at
25 fps, landmarks MediaPipe's, crops of mouths are not filled up to one size, and frames without a face are left out
where the published code gives up the whole clip (face) or leaves them out as well (mouth).

The networks say how good a picture looks, so more is better by itself. THEval compares with the real clips all the
same: its final score counts distance from them in either direction, and a mouth that looks better than the real one is
another picture too. The networks' weights are under non-commercial terms, and a person puts most of them in place.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.errors import Undetermined
from .base import ClipMetric, Features, MetricSpec
from .theval import SOURCE, Component

MOUTH_ROW, FACE_ROW, PICTURE_ROW = "musiq-mouth", "topiq-face", "topiq-iaa"
WHY = "the paper's landmarks, frame rate and clips are others, and no published value was reproduced here"


def mean_score(features: Features, extractor: str) -> float:
    """Mean of a row's scores over the frames that have one.

    Raises:
        Undetermined: no frame has one.
    """
    scores = features[extractor].array("score").astype(np.float64)
    scores = scores[~np.isnan(scores)]
    if not len(scores):
        raise Undetermined("no frame has a score")
    return float(scores.mean())


def _component(name: str, extractor: str, published: float) -> Component:
    return Component(name, (extractor,), "picture", lambda features: mean_score(features, extractor), published)


MOUTH = _component("mouth_quality", MOUTH_ROW, 23.835)
FACE = _component("face_quality", FACE_ROW, 0.4425)
AESTHETIC = _component("global_aesthetic", PICTURE_ROW, 4.6842)
QUALITY = (MOUTH, FACE, AESTHETIC)


def _metric(component: Component, variant: str, protocol: dict[str, Any], **facts: Any) -> ClipMetric:
    spec = MetricSpec(
        id=f"{component.name}:{variant}",
        unit="",
        higher_is_better=True,
        source=SOURCE,
        generated=component.extractors,
        real=(),
        comparable_with_papers=False,
        best_is_real=True,
        measures=(component.measures,),
        why=WHY,
        protocol={"frames": "every one", "ground truth of the paper": component.published} | protocol,
        default=False,
        **facts,
    )
    return ClipMetric(spec, lambda generated, real: component.measure(generated))


METRICS = (
    _metric(
        MOUTH,
        "musiq-koniq",
        {"crop": "box of 40 lip points, 10 px wider on each side", "landmarks": "MediaPipe Tasks, 478 points"},
        title="Mouth quality",
        what="How good the mouth's picture looks (MUSIQ, about 0..100); best is what the real clips have.",
        formula="mean over frames with a face of MUSIQ (KonIQ-10k) of the lips' box",
    ),
    _metric(
        FACE,
        "topiq-face",
        {"crop": "5 points onto FFHQ's template, 512x512", "landmarks": "MediaPipe Tasks, 478 points"},
        title="Face quality",
        what="How good the aligned face looks (TOPIQ, about 0..1); best is what the real clips have.",
        formula="mean over frames with a face of TOPIQ (CGFIQA-40k) of the aligned face",
    ),
    _metric(
        AESTHETIC,
        "topiq-iaa",
        {"crop": "none: the whole frame at 384x384"},
        title="Global aesthetic",
        what="How pleasing the whole picture looks (TOPIQ-IAA, 1..10); best is what the real clips have.",
        formula="mean over frames of TOPIQ-IAA (AVA) of the whole frame",
    ),
)
