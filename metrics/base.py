"""What a metric is: a declaration, per-clip values or features, and one reduction to a number with its interval.

A metric sees stored feature rows only. Two kinds cover the field: `ClipMetric` gives every clip a value and reports
the mean; `FrechetMetric` compares the two sets' feature distributions. Adding a metric touches its own file (which
declares a tuple `METRICS`) and its test.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ..core.errors import InputError, TalkForgeError
from ..core.registry import Registry
from .clip_rows import ClipRows, FirstReading
from .frechet import clips_distance, split_half
from .intervals import bootstrap_mean, frechet_bootstrap


class Row(Protocol):
    """A stored feature row (what `tasks.features.FeatureRow` gives)."""

    @property
    def reason(self) -> str | None: ...

    @property
    def message(self) -> str: ...

    def array(self, column: str) -> np.ndarray: ...

    def value(self, column: str) -> Any: ...


Features = Mapping[str, Row]


@dataclass(frozen=True)
class Pair:
    """One attempted clip: the generated video and the real one of the same stem.

    Attributes:
        clip_id: the stem.
        generated, real: rows by extractor id; None when that file is missing.
        reason, message: why the pair cannot be scored at all (an unmatched file), else None.
        emotion: what the clip is meant to show, a name of `core.emotions`; None when nothing says so.
        identity: who speaks; None when nothing says so.
        compared: rows made from both sides, by extractor id.
    """

    clip_id: str
    generated: Features | None
    real: Features | None
    reason: str | None = None
    message: str = ""
    emotion: str | None = None
    identity: str | None = None
    compared: Features = field(default_factory=dict)


@dataclass(frozen=True)
class MetricSpec:
    """Declaration of a metric.

    Attributes:
        id: "<metric>:<variant>".
        title: for tables.
        unit: of the value; "" for a plain number.
        higher_is_better: direction of the arrow.
        what: one or two sentences.
        formula: plain text.
        source: paper or code that defines it.
        generated, real: extractor ids wanted on each side.
        compared: extractor ids wanted of the pair: those that take both sides' rows.
        comparable_with_papers: whether a published number under the same name may be set beside it.
        why: the ground for that answer.
        protocol: facts that define the number, beside the run's crop and frame rate.
        default: part of the default set.
        clip_title: what the clips' own values are where they are another quantity than the metric.
        measures: what it claims to notice, in the words of the corruptions' `harms`; the audit holds it to that.
        best_is_real: neither more nor less is better, best is what the real clips have.
    """

    id: str
    title: str
    unit: str
    higher_is_better: bool
    what: str
    formula: str
    source: str
    generated: tuple[str, ...]
    real: tuple[str, ...]
    comparable_with_papers: bool
    why: str
    protocol: Mapping[str, Any] = field(default_factory=dict)
    default: bool = True
    clip_title: str = ""
    best_is_real: bool = False
    measures: tuple[str, ...] = ()
    compared: tuple[str, ...] = ()

    @property
    def extractors(self) -> tuple[str, ...]:
        """All extractor ids wanted."""
        return tuple(dict.fromkeys((*self.generated, *self.real, *self.compared)))


@dataclass(frozen=True)
class ClipScore:
    """One clip under one metric: a value, or a reason why there is none."""

    clip_id: str
    value: float | None
    reason: str | None = None
    message: str = ""
    samples: int = 1


@dataclass(frozen=True)
class Score:
    """A metric over a set of clips."""

    value: float | None
    ci95: tuple[float, float] | None
    real_vs_real: float | None
    clips: list[ClipScore]
    reason: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def n_scored(self) -> int:
        """Clips with a value."""
        return sum(clip.value is not None for clip in self.clips)

    @property
    def rejects(self) -> dict[str, int]:
        """Number of clips without a value, by reason."""
        return dict(sorted(Counter(clip.reason for clip in self.clips if clip.reason).items()))


@dataclass(frozen=True)
class Settings:
    """How intervals are made."""

    bootstrap: int = 1000
    frechet_bootstrap: int = 200
    seed: int = 0


class Metric(Protocol):
    """A declaration with its reduction."""

    spec: MetricSpec

    def score(self, pairs: Sequence[Pair], settings: Settings) -> Score: ...


metrics: Registry[Metric] = Registry("metric")
metrics.discover("talkforge.metrics", "METRICS", key=lambda metric: metric.spec.id)


def select(names: Sequence[str] | None) -> list[Metric]:
    """Metrics by id, or by the part before the colon (all its variants); None gives the default set.

    Raises:
        ConfigError: an unknown name, with the closest known ones.
    """
    if not names:
        return [metric for metric in metrics.all() if metric.spec.default]
    chosen: dict[str, Metric] = {}
    for name in names:
        family = [known for known in metrics.names() if known.split(":")[0] == name]
        for known in family or [name]:
            chosen[known] = metrics.get(known)
    return list(chosen.values())


def problem(features: Features | None, wanted: Sequence[str]) -> tuple[str, str] | None:
    """The first wanted row that is missing or failed, as (reason, message)."""
    for name in wanted:
        row = (features or {}).get(name)
        if row is None:
            return "no_features", f"{name} was not extracted"
        if row.reason is not None:
            return row.reason, row.message
    return None


def usable(pair: Pair, spec: MetricSpec) -> ClipScore | None:
    """None when both sides have the rows that the metric wants, else the rejected score."""
    if pair.reason:
        return ClipScore(pair.clip_id, None, pair.reason, pair.message)
    for side, features, wanted in (("generated", pair.generated, spec.generated), ("real", pair.real, spec.real)):
        found = problem(features, wanted)
        if found:
            return ClipScore(pair.clip_id, None, found[0], f"{side}: {found[1]}")
    found = problem(pair.compared, spec.compared)
    return ClipScore(pair.clip_id, None, *found) if found else None


@dataclass(frozen=True)
class ClipMetric:
    """A metric that gives each clip a value; the set's value is the mean over scored clips.

    Attributes:
        spec: the declaration.
        clip_value: from (generated, real) rows to a float; a typed error, or a value that is not finite, is a rejected
            clip. For a metric without reference the second argument is not looked at.
    """

    spec: MetricSpec
    clip_value: Callable[[Features, Features], float]

    def score(self, pairs: Sequence[Pair], settings: Settings) -> Score:
        """Mean over clips, percentile bootstrap over clips; without a reference also the real clips' own mean."""
        clips = [self._clip(pair, pair.generated, pair.real) for pair in pairs]
        values = [clip.value for clip in clips if clip.value is not None]
        if not values:
            return Score(None, None, None, clips, reason=main_reason(clips))
        interval = bootstrap_mean(np.array(values), n=settings.bootstrap, seed=settings.seed)
        scored = [pair for pair, clip in zip(pairs, clips, strict=True) if clip.value is not None]
        return Score(float(np.mean(values)), interval, self._real_level(scored), clips)

    def _clip(self, pair: Pair, generated: Features | None, real: Features | None) -> ClipScore:
        rejected = usable(Pair(pair.clip_id, generated, real, pair.reason, pair.message), self.spec)
        if rejected:
            return rejected
        try:
            value = self.clip_value(generated or {}, real or {})
        except TalkForgeError as error:
            return ClipScore(pair.clip_id, None, error.reason, error.message)
        if not math.isfinite(value):
            return ClipScore(pair.clip_id, None, "not_finite", f"the value is {value}")
        return ClipScore(pair.clip_id, value)

    def _real_level(self, pairs: Sequence[Pair]) -> float | None:
        """What the real clips of the scored pairs score themselves, for a metric that needs no reference."""
        if self.spec.real:
            return None
        clips = [self._clip(pair, pair.real, pair.real) for pair in pairs]
        values = [clip.value for clip in clips if clip.value is not None]
        return float(np.mean(values)) if values else None


@dataclass(frozen=True)
class Collected:
    """What a set-wise metric works on: the score of every pair, and the rows of the complete ones."""

    clips: list[ClipScore]
    generated: ClipRows
    real: ClipRows

    def without_value(self, reason: str) -> Score:
        """No number: for want of complete pairs, for which they say why, or for the reason given."""
        return Score(None, None, None, self.clips, reason=reason if self.real else main_reason(self.clips) or reason)


@dataclass(frozen=True)
class FrechetMetric:
    """Fréchet distance between the feature rows of both sides, clips weighted by how many samples they give.

    Attributes:
        spec: the declaration; wants one extractor, the same on both sides.
        column: its (N, D) column.
    """

    spec: MetricSpec
    column: str

    def score(self, pairs: Sequence[Pair], settings: Settings) -> Score:
        """The distance over complete pairs, recentred bootstrap over pairs, split-half of the real clips."""
        found = self._collect(pairs)
        generated, real = found.generated, found.real
        if min(real.total, generated.total) < 2:
            return found.without_value("too_few_samples")
        value = clips_distance(generated, real)
        n, seed = settings.frechet_bootstrap, settings.seed
        interval = frechet_bootstrap(real, generated, n=n, seed=seed, estimate=value)
        halves = split_half(real, seed=seed)
        return Score(value, interval, halves, found.clips, notes=self._notes(generated.total, real.total, real.dim))

    def groups(self, pairs: Sequence[Pair]) -> tuple[ClipRows, ClipRows]:
        """The (N_i, D) rows of complete pairs, read when asked for: the generated clips', and the real ones'."""
        return self._read(pairs, lambda *_: None)

    def _collect(self, pairs: Sequence[Pair]) -> Collected:
        checked = [(pair, usable(pair, self.spec)) for pair in pairs]
        whole, scored = [pair for pair, rejected in checked if rejected is None], []
        generated, real = self._read(whole, lambda *triple: scored.append(self._clip(*triple)))
        clips = iter(scored)
        return Collected([rejected or next(clips) for _, rejected in checked], generated, real)

    def _read(
        self, pairs: Sequence[Pair], see: Callable[[Pair, np.ndarray, np.ndarray], None]
    ) -> tuple[ClipRows, ClipRows]:
        """Goes once through the pairs and shows each with its generated and its real rows."""
        generated = FirstReading(lambda k: self._rows(pairs[k].generated))
        real = FirstReading(lambda k: self._rows(pairs[k].real))
        for pair in pairs:
            see(pair, generated.next(), real.next())
        return generated.clips(), real.clips()

    def _rows(self, features: Features | None) -> np.ndarray:
        if features is None:
            raise InputError("a pair without features was not rejected")
        return features[self.spec.generated[0]].array(self.column)

    def _clip(self, pair: Pair, generated: np.ndarray, real: np.ndarray) -> ClipScore:
        """Distance between the clip's mean features: not a Fréchet distance, a hint where to look."""
        means = [rows.mean(axis=0, dtype=np.float64) for rows in (generated, real)]  # stored in half precision
        gap = float(np.linalg.norm(means[0] - means[1]))
        return ClipScore(pair.clip_id, gap, samples=len(generated))

    def _notes(self, n_generated: int, n_real: int, width: int) -> tuple[str, ...]:
        smaller = min(n_generated, n_real)
        if smaller >= 10 * width:
            return ()
        return (
            f"{smaller} samples for {width} dimensions: the estimate is biased upward, so compare it only with numbers "
            "of the same sample size, beginning with real against real",
        )


def main_reason(clips: Sequence[ClipScore]) -> str | None:
    """The commonest reason among clips that have no value."""
    counts = Counter(clip.reason for clip in clips if clip.reason)
    return counts.most_common(1)[0][0] if counts else None
