"""CSIM and F-SIM: how alike generated and real faces are to a face recognition network.

    CSIM  = mean over frames of cos(generated frame, real frame of the same time)
    F-SIM = mean over frames of cos(generated frame, reference picture)

Networks embed every fifth frame with a face, each side from its own first face on, so a generated frame is held against
the nearest embedded real frame if that is at most two frames (0.08 s) away. Embedded frames farther from one have no
partner; they and those beyond the real clip's end are left out and counted in the notes.

F-SIM compares with the picture that a method animates. An evaluation has the real clip alone, so its first embedded
frame stands for that picture, as where methods take the first frame; a method that was given another picture of the
person is measured against a face that it never saw.

Variants name the network. `arcface-r50` is ArcFace's IResNet-50 on WebFace600K. dlib's network was trained for
Euclidean distances (below 0.6 is taken for one person) and its cosines are high for anybody: 0.80 to 0.84 between the
people of three clips, 0.96 to 0.99 within a clip. They order methods; read from 0.8, not from 0, and never beside
ArcFace's.

CSIM: J. Deng et al., "ArcFace", CVPR 2019, for the embedding; E. Zakharov et al., "Few-Shot Adversarial Learning of
Realistic Neural Talking Head Models", ICCV 2019, for the measure. F-SIM: L. Tian et al., "EMO", ECCV 2024, which does
not name its network; DICE-Talk reports it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..core.errors import NoFace
from .base import Features, MetricSpec, Row
from .frame_pairs import FramePairMetric, Sides, seen

NEAREST = 2  # frames of 25 fps: half of the distance between two embedded frames


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of the angle between rows, (K, D) and (K, D) to (K,)."""
    return (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def embedded(row: Row) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the embedded frames (K,), and all rows (N, D), NaN where a frame is not embedded.

    Raises:
        NoFace: no frame is.
    """
    rows = row.array("embedding").astype(np.float64)
    numbers = np.flatnonzero(seen(rows))
    if len(numbers) == 0:
        raise NoFace("no frame is embedded")
    return numbers, rows


def by_time(generated: Row, real: Row) -> Sides:
    """Embedded generated frames and for each its nearest embedded real one, (K, D) and (K, D).

    A row of the real side is NaN where none is near. Embedded frames beyond the shorter clip's end follow on the
    longer side alone, as frames without a partner.
    """
    (numbers, rows), (real_numbers, real_rows) = embedded(generated), embedded(real)
    end = min(len(rows), len(real_rows))
    inside = numbers[numbers < end]
    nearest = real_numbers[np.abs(inside[:, None] - real_numbers).argmin(axis=1)]
    partners = np.where((np.abs(nearest - inside) <= NEAREST)[:, None], real_rows[nearest], np.nan)
    return rows[numbers], np.concatenate([partners, real_rows[real_numbers[real_numbers >= end]]])


def with_reference(generated: Row, real: Row) -> Sides:
    """Embedded generated frames, (K, D), and the real clip's first embedded frame K times."""
    (numbers, rows), (real_numbers, real_rows) = embedded(generated), embedded(real)
    return rows[numbers], np.repeat(real_rows[real_numbers[:1]], len(numbers), axis=0)


@dataclass(frozen=True)
class _Measure:
    family: str
    title: str
    what: str
    partner: str
    source: str
    sides: Callable[[Row, Row], Sides]


@dataclass(frozen=True)
class _Net:
    name: str
    title: str
    why: str


MEASURES = (
    _Measure(
        "csim",
        "CSIM",
        "How alike generated and real faces of the same time are to a face recognition network.",
        f"the nearest embedded real frame, at most {NEAREST} frames away",
        "Zakharov et al. 2019, Deng et al. 2019 (ArcFace)",
        by_time,
    ),
    _Measure(
        "f_sim",
        "F-SIM",
        "How alike generated faces and the reference picture are to a face recognition network.",
        "the real clip's first embedded frame, in place of the reference picture",
        "Tian et al. 2024 (EMO), which does not name its network",
        with_reference,
    ),
)
NETS = (
    _Net("arcface-r50", "ArcFace", "papers' trainings of ArcFace differ; faces are aligned by MediaPipe's landmarks"),
    _Net(
        "dlib-128",
        "dlib",
        "papers take ArcFace; dlib's is trained for Euclidean distances, and two people have a cosine of about 0.8",
    ),
)


def _declare(measure: _Measure, net: _Net) -> FramePairMetric:
    extractor = f"identity-{net.name}"
    spec = MetricSpec(
        id=f"{measure.family}:{net.name}",
        title=f"{measure.title} ({net.title})",
        unit="",
        higher_is_better=True,
        what=measure.what,
        formula="mean over embedded frames of a.b / (|a| |b|)",
        source=measure.source,
        generated=(extractor,),
        real=(extractor,),
        comparable_with_papers=False,
        measures=("identity",),
        why=net.why,
        protocol={
            "frames": "every fifth with a face at 25 fps is embedded",
            "compared with": measure.partner,
            "no face": "embedded frames without such a partner are left out and counted",
        },
        default=False,
    )

    def sides(generated: Features, real: Features) -> Sides:
        return measure.sides(generated[extractor], real[extractor])

    return FramePairMetric(spec, sides, cosine)


METRICS = tuple(_declare(measure, net) for measure in MEASURES for net in NETS)
