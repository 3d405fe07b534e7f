"""Does a metric notice a corruption? From its scores over graded strengths to a verdict.

Everything is counted towards the worse: `worsening` is how far a score moved in the direction that the metric calls
worse, and for a metric whose best is what real clips have, how far it moved either way. Two questions are asked.
Order: Spearman's rank correlation between strength and worsening, level 0 included (Spearman 1904; ties share their
mean rank). Size: the worsening at the greatest strength, in units of the half-width of the 95 % interval at level 0, so
that a movement below 1 is within what another draw of clips would give.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import rankdata

NOTICED = 1.0  # intervals that a movement must reach
ORDERED = 0.8  # rank correlation that counts as graded
EXACT = 1e-9  # relative; what differs by less is arithmetic, not measurement

Verdict = Literal["notices", "weak", "blind", "wrong way", "unaffected", "reacts too", "no value"]

MEANINGS: dict[Verdict, str] = {
    "notices": "it measures what was harmed, worsens by an interval or more, and does so in the order of the strengths",
    "weak": "it measures what was harmed and worsens, but by less than an interval or not in order of the strengths",
    "blind": "it measures what was harmed and worsens neither by an interval nor in order: do not trust it for this",
    "wrong way": "it improves by an interval or more though the clip got worse: this harm is rewarded",
    "unaffected": "it does not measure what was harmed and moves by less than an interval, as it should",
    "reacts too": "it does not claim to measure what was harmed and worsens by an interval or more all the same",
    "no value": "a score is missing; the reason stands beside it",
}


@dataclass(frozen=True)
class LevelScore:
    """A metric's score at one strength; level 0 is the re-encoded clip."""

    level: int
    value: float | None
    ci95: tuple[float, float] | None = None
    n_scored: int = 0
    reason: str | None = None


@dataclass(frozen=True)
class Finding:
    """What became of one metric under one corruption.

    Attributes:
        expected: whether it claims to measure what was harmed; None when nothing is stated about it.
        worsening: movement towards the worse at the greatest strength, in the metric's unit.
        rho: rank correlation of strength and worsening, None when nothing moves at all.
        effect: the worsening in intervals' half-widths.
        yardstick: that half-width.
        verdict: see `MEANINGS`.
        reason: why a part is missing.
    """

    expected: bool | None
    worsening: float | None
    rho: float | None
    effect: float | None
    yardstick: float | None
    verdict: Verdict
    reason: str | None = None


def spearman(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Rank correlation in [-1, 1] with mean ranks for ties; None for fewer than two points or a constant side."""
    if len(x) != len(y):
        raise ValueError(f"{len(x)} and {len(y)} numbers cannot be paired")
    if len(x) < 2:
        return None
    a, b = rankdata(x) - (len(x) + 1) / 2, rankdata(y) - (len(y) + 1) / 2
    norm = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / norm if norm else None


def half_width(scores: Sequence[LevelScore]) -> float | None:
    """Half the width of the interval at the lowest level whose interval is not a point; None when there is none."""
    for score in sorted(scores, key=lambda one: one.level):
        if score.ci95 is not None and np.isfinite(score.ci95).all():
            half = (score.ci95[1] - score.ci95[0]) / 2
            if half > EXACT * max(1e-12, abs(score.ci95[0]), abs(score.ci95[1])):
                return float(half)
    return None


def judge(
    scores: Sequence[LevelScore], *, higher_is_better: bool, expected: bool | None, best_is_real: bool = False
) -> Finding:
    """The verdict over one metric's scores under one corruption.

    Args:
        scores: level 0 and at least one strength, in any order.
        higher_is_better: of the metric.
        expected: whether the metric claims to measure what was harmed.
        best_is_real: of the metric: any movement away from level 0 is for the worse.

    Raises:
        ValueError: level 0 is not among the scores, or nothing else is.
    """
    ordered = sorted(scores, key=lambda one: one.level)
    if len(ordered) < 2 or ordered[0].level != 0:
        raise ValueError("an audit wants level 0 and at least one strength")
    values = [(one.level, one.value) for one in ordered if one.value is not None and math.isfinite(one.value)]
    if len(values) < len(ordered):
        absent = next(one for one in ordered if one.value is None or not math.isfinite(one.value))
        return Finding(
            expected, None, None, None, None, "no value", absent.reason or f"no score at level {absent.level}"
        )
    sign = -1.0 if higher_is_better else 1.0
    moved = [_cleaned(sign * (value - values[0][1]), values[0][1]) for _, value in values]
    worse = [abs(movement) for movement in moved] if best_is_real else moved
    rho = spearman([level for level, _ in values], worse)
    half = half_width(ordered)
    if not any(worse):
        return Finding(expected, 0.0, None, 0.0, half, _verdict(0.0, None, expected))
    if half is None:
        return Finding(expected, worse[-1], rho, None, None, "no value", "no interval to measure the movement by")
    effect = worse[-1] / half
    return Finding(expected, worse[-1], rho, effect, half, _verdict(effect, rho, expected))


def _cleaned(movement: float, base: float) -> float:
    return 0.0 if abs(movement) <= EXACT * max(abs(base), 1e-12) else movement


def _verdict(effect: float, rho: float | None, expected: bool | None) -> Verdict:
    if effect <= -NOTICED:
        return "wrong way"
    if not expected:
        return "reacts too" if effect >= NOTICED else "unaffected"
    graded = rho is not None and rho >= ORDERED
    if effect >= NOTICED and graded:
        return "notices"
    return "weak" if effect >= NOTICED or (graded and effect > 0) else "blind"
