"""THEval's final score: over its eight measures, and over the five that need no picture quality network.

    score = mean over measures of 1 - |m - gt| / |gt|

m is the measure's mean over generated clips. The ground truth gt is its mean over the run's own real clips
(`mp-tasks-8`, `mp-tasks-5of8`), or the paper's row (`-paper-gt`), which holds for the paper's clips and landmarker. The
published score has eight measures: that of five is another number, and the two never stand in one column.

With the run's own ground truth a pair counts under a measure where both sides have a value. A measure without any
leaves the score null: a mean over fewer would be a third number. Intervals draw clips again; they are recentred about
the score, since |m - gt| grows by noise, and end at 1. A draw in which a measure has no clip is not counted, and there
is no interval where a measure rests on one clip.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..core.errors import TalkForgeError
from .base import ClipScore, Features, MetricSpec, Pair, Score, Settings, problem
from .intervals import LEVELS, MIN_CLIPS, Interval
from .theval import COMPONENTS, SOURCE, WHY, Component
from .theval_quality import QUALITY

TINY = 1e-9  # no ground truth to divide by, as in the published code
EIGHT = (*COMPONENTS, *QUALITY)
PUBLISHED = np.array([component.published for component in EIGHT])
Found = float | tuple[str, str]  # a value, or (reason, message)


def measures(features: Features | None) -> list[Found]:
    """The values of one clip under the five of `COMPONENTS`, or why there is none."""
    return values_of(features, COMPONENTS)


def values_of(features: Features | None, components: Sequence[Component]) -> list[Found]:
    """The values of one clip, or why there is none, in the order of the measures."""
    found: list[Found] = []
    for component in components:
        missing = problem(features, component.extractors)
        try:
            found.append(missing or _finite(component.measure(features or {})))
        except TalkForgeError as error:
            found.append((error.reason, error.message))
    return found


def _finite(value: float) -> Found:
    return value if math.isfinite(value) else ("not_finite", f"the value is {value}")


def closeness(values: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """1 - |m - gt| / |gt|, NaN where a side is NaN or gt is 0."""
    scale = np.abs(truth)
    return 1 - np.abs(values - truth) / np.where(scale > TINY, scale, np.nan)


@dataclass(frozen=True)
class Table:
    """Values of all clips, (P, M), NaN where there is none; `truth` is None for the paper's row.

    M is 8, in the order of `EIGHT`, or 5, the first ones.
    """

    generated: np.ndarray
    truth: np.ndarray | None

    def of(self, clips: np.ndarray) -> float:
        """The score of some clips (numbers may repeat), NaN where a measure has no clip."""
        truth = self.published if self.truth is None else _means(self.truth[clips])
        return float(closeness(_means(self.generated[clips]), truth).mean())

    @property
    def published(self) -> np.ndarray:
        """The paper's row, (M,)."""
        return PUBLISHED[: self.generated.shape[1]]

    def counts(self) -> np.ndarray:
        """Clips behind each measure, int (M,)."""
        known = ~np.isnan(self.generated)
        return known.sum(axis=0)

    def interval(self, settings: Settings) -> Interval | None:
        """Recentred bootstrap over clips."""
        if self.counts().min() < MIN_CLIPS:
            return None
        count, rng = len(self.generated), np.random.default_rng(settings.seed)
        drawn = np.array([self.of(rng.integers(0, count, count)) for _ in range(settings.bootstrap)])
        low, middle, high = np.quantile(drawn[~np.isnan(drawn)], LEVELS)
        value = self.of(np.arange(count))
        return float(min(value + low - middle, value)), float(min(max(value + high - middle, value), 1.0))


def _means(rows: np.ndarray) -> np.ndarray:
    """Mean of each column over what is known, NaN where nothing is."""
    known = ~np.isnan(rows)
    count = known.sum(axis=0)
    return np.where(count > 0, np.where(known, rows, 0.0).sum(axis=0) / np.maximum(count, 1), np.nan)


def _numbers(found: Sequence[Sequence[Found]], width: int) -> np.ndarray:
    rows = [[np.nan if isinstance(one, tuple) else one for one in row] for row in found]
    return np.array(rows, dtype=np.float64).reshape(-1, width)


@dataclass(frozen=True)
class ClosenessMetric:
    """The score of a set of clips.

    Attributes:
        spec: the declaration. A clip counts as scored when one of its measures does.
        paper: whether the ground truth is the paper's.
        further: measures beside the five of `COMPONENTS`, () or `QUALITY`.
    """

    spec: MetricSpec
    paper: bool
    further: tuple[Component, ...] = ()

    def score(self, pairs: Sequence[Pair], settings: Settings) -> Score:
        """The score, its interval, for the paper's ground truth the real clips' own, and each clip's own."""
        generated = [self._measures(pair, pair.generated) for pair in pairs]
        real = [self._measures(pair, pair.real) for pair in pairs]
        width = len(COMPONENTS) + len(self.further)
        known = _numbers(real, width)
        table = self._table(_numbers(generated, width), known)
        clips = [
            self._clip(*entry)
            for entry in zip(pairs, table.generated, self._truths(table), generated, real, strict=True)
        ]
        value = table.of(np.arange(len(pairs)))
        if np.isnan(value):
            return Score(None, None, None, clips, reason=_lacking(table, [*generated, *real]))
        return Score(value, table.interval(settings), self._real_level(known), clips, notes=_notes(table))

    def measured(self, features: Features | None) -> list[Found]:
        """The values of one clip, or why there is none: the five, then the further ones."""
        return [*measures(features), *values_of(features, self.further)]

    def _measures(self, pair: Pair, features: Features | None) -> list[Found]:
        if pair.reason:
            return [(pair.reason, pair.message)] * (len(COMPONENTS) + len(self.further))
        return self.measured(features)

    def _table(self, generated: np.ndarray, real: np.ndarray) -> Table:
        if self.paper:
            return Table(generated, None)
        both = ~(np.isnan(generated) | np.isnan(real))
        return Table(np.where(both, generated, np.nan), np.where(both, real, np.nan))

    @staticmethod
    def _truths(table: Table) -> np.ndarray:
        return np.broadcast_to(table.published, table.generated.shape) if table.truth is None else table.truth

    def _real_level(self, real: np.ndarray) -> float | None:
        value = Table(real, None).of(np.arange(len(real))) if self.paper else np.nan
        return None if np.isnan(value) else value

    def _clip(
        self, pair: Pair, values: np.ndarray, truth: np.ndarray, generated: list[Found], real: list[Found]
    ) -> ClipScore:
        """The clip's own closeness, over the measures that it has."""
        own = closeness(values, truth)
        own = own[~np.isnan(own)]
        if len(own):
            return ClipScore(pair.clip_id, float(own.mean()), samples=len(own))
        reasons = [one for one in (*generated, *([] if self.paper else real)) if isinstance(one, tuple)]
        reason, message = reasons[0] if reasons else ("undetermined", "the ground truth is 0")
        return ClipScore(pair.clip_id, None, reason, message)


def _lacking(table: Table, found: Sequence[Sequence[Found]]) -> str:
    """Why the score is null: the commonest reason of the first measure without a clip, else a ground truth of 0."""
    column = int(np.argmin(table.counts()))
    reasons = Counter(one[0] for row in found if isinstance(one := row[column], tuple))
    return reasons.most_common(1)[0][0] if reasons else "undetermined"


def _notes(table: Table) -> tuple[str, ...]:
    """Which measures rest on fewer clips than there are."""
    counts, all_clips = table.counts(), len(table.generated)
    parts = [f"{c.name} on {n}" for c, n in zip(EIGHT, map(int, counts), strict=False) if n < all_clips]
    return (f"of {all_clips} clips the score rests for {', '.join(parts)}",) if parts else ()


REAL, PAPER = "the run's real clips", "the paper's ground truth"
LEFT_OUT = {"left out": ", ".join(component.name for component in QUALITY)}


def _declare(variant: str, title: str, truth: str, further: tuple[Component, ...] = ()) -> MetricSpec:
    components = (*COMPONENTS, *further)
    extractors = tuple(dict.fromkeys(name for component in components for name in component.extractors))
    what = "eight measures of picture, movement and sync" if further else "five measures of movement and sync"
    return MetricSpec(
        id=f"theval_score:{variant}",
        title=title,
        unit="",
        higher_is_better=True,
        what=f"How close {what} are to {truth}; 1 is equal.{'' if further else ' It is not the score of eight.'}",
        formula=f"mean over {len(components)} measures of 1 - |m - gt| / |gt|, m and gt means over clips",
        source=SOURCE,
        generated=extractors,
        real=extractors if truth == REAL else (),
        comparable_with_papers=False,
        measures=("sync", "lips", "head", "brows", *(("picture",) if further else ())),
        why=WHY if further else f"five of eight measures; {WHY}",
        protocol={"measures": ", ".join(component.name for component in components)}
        | ({} if further else LEFT_OUT)
        | {"ground truth": truth},
        default=truth == REAL and not further,
        clip_title="own, over what it has",
    )


METRICS = (
    ClosenessMetric(_declare("mp-tasks-5of8", "THEval score (5 of 8)", REAL), paper=False),
    ClosenessMetric(_declare("mp-tasks-5of8-paper-gt", "THEval score (5 of 8, paper's truth)", PAPER), paper=True),
    ClosenessMetric(_declare("mp-tasks-8", "THEval score", REAL, QUALITY), paper=False, further=QUALITY),
    ClosenessMetric(
        _declare("mp-tasks-8-paper-gt", "THEval score (paper's truth)", PAPER, QUALITY), paper=True, further=QUALITY
    ),
)
