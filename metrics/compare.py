"""A metric's difference between two methods over the clips that both are scored on, whatever kind of metric it is.

Each kind says what is drawn again: a mean its clips' values, a Fréchet distance the clips' rows, a kernel distance its
sums between clips, an offset the curves, a score of five means their table, a mean over emotions the clips of each, a
strength of clusters the clips of each speaker's emotions. A metric of another kind is scored anew on drawn clips where
that is affordable; a clip drawn twice is there twice, and what bias that gives cancels or is taken out by recentring.
`paired` makes interval and p-value of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import singledispatch

import numpy as np

from ..core.errors import TalkForgeError
from ..core.mouth_sync import offset
from .av_sync import FACES, SPEECH, OffsetMetric, moving_correlations
from .base import Features, FrechetMetric, Metric, MetricSpec, Pair, Score, Settings, usable
from .clip_rows import ClipRows
from .clustering import DISTINCT, ClusteringMetric, Place, Speakers
from .companions import BlockSums, KernelMetric, SetMetric, thinned
from .emo_score import EmotionMetric
from .frechet import clips_distance
from .paired import FEWEST, Engine, PairedDifference, paired_frechet, paired_mean, paired_statistic
from .theval_score import ClosenessMetric, Table

Both = Sequence[tuple[Pair, Pair]]  # this method's pair and the other's, of the same real clip

NOT_ESTABLISHED = "not established"
NO_COMMON_CLIPS, TOO_FEW_SAMPLES, NOT_DRAWN = "no_common_clips", "too_few_samples", "not_drawn_again"
# Of a score whose interval nobody reads.
QUICK = Settings(bootstrap=FEWEST, frechet_bootstrap=1)
# Clips that may be scored to draw an unknown kind of metric again.
RESCORED = 20_000


@dataclass(frozen=True)
class Difference:
    """This method's value minus the other's.

    Attributes:
        difference: None when it cannot be told; then there is a reason.
        ci95, p_value: see `paired.PairedDifference`.
        n_common: clips that both are scored on.
        verdict: what this method is: better or worse, or larger or smaller where neither is better; or not established.
        value, other: both methods' values over the common clips.
        reason, message: why there is no difference.
    """

    difference: float | None
    ci95: tuple[float, float] | None = None
    p_value: float | None = None
    n_common: int = 0
    verdict: str | None = None
    value: float | None = None
    other: float | None = None
    reason: str | None = None
    message: str = ""


def compare(
    metric: Metric, pairs: Sequence[Pair], others: Sequence[Pair], settings: Settings, score: Score
) -> Difference:
    """Difference of two methods on the same real clips.

    Args:
        metric: any.
        pairs: this method's.
        others: the other method's; they belong together by `clip_id`, and their real rows are the same.
        settings: of the draws.
        score: the metric's over `pairs`.
    """
    if score.value is None:
        return _none(score.reason or NO_COMMON_CLIPS, "this run has no value")
    by_id = {pair.clip_id: pair for pair in others}
    both = [(pair, by_id[pair.clip_id]) for pair in pairs if pair.clip_id in by_id]
    both = [one for one in both if not any(pair.reason for pair in one)]
    if not both:
        return _none(NO_COMMON_CLIPS, "no clip is a pair in both runs")
    return _compared(metric, both, settings, score)


def _none(reason: str, message: str = "", clips: int = 0) -> Difference:
    return Difference(None, n_common=clips, reason=reason, message=message)


def _told(spec: MetricSpec, values: tuple[float, float], paired: PairedDifference) -> Difference:
    return Difference(
        paired.value, paired.ci95, paired.p_value, paired.clips, verdict(spec, paired), values[0], values[1]
    )


def verdict(spec: MetricSpec, paired: PairedDifference) -> str:
    """What the difference says of this method; where best is the real clips' level only which is the larger."""
    if not paired.established:
        return NOT_ESTABLISHED
    if spec.best_is_real:
        return "larger" if paired.value > 0 else "smaller"
    return "better" if (paired.value > 0) == spec.higher_is_better else "worse"


@singledispatch
def _compared(metric: Metric, both: Both, settings: Settings, score: Score) -> Difference:
    """A mean over clips by their values; anything else by scoring drawn clips."""
    other = metric.score([b for _, b in both], QUICK)
    if other.value is None:
        return _none(other.reason or NO_COMMON_CLIPS, "the other run has no value")
    for read in (float, abs):  # some report offsets with their sign and take the mean without it
        if all(_is_mean(one, read) for one in (score, other)):
            return _of_means(metric, both, settings, [_by_clip(one, read) for one in (score, other)])
    return _rescored(metric, both, settings, [_by_clip(one) for one in (score, other)])


def _by_clip(score: Score, read: Callable[[float], float] = float) -> dict[str, float]:
    return {clip.clip_id: read(clip.value) for clip in score.clips if clip.value is not None}


def _is_mean(score: Score, read: Callable[[float], float]) -> bool:
    values = list(_by_clip(score, read).values())
    mean, value = float(np.mean(values)) if values else math.nan, score.value
    return value is not None and math.isclose(mean, value, rel_tol=1e-9, abs_tol=1e-12)


def _of_means(metric: Metric, both: Both, settings: Settings, found: Sequence[dict[str, float]]) -> Difference:
    names = [a.clip_id for a, _ in both if all(a.clip_id in side for side in found)]
    if not names:
        return _none(NO_COMMON_CLIPS, "no clip has a value in both runs")
    a, b = (np.array([side[name] for name in names]) for side in found)
    paired = paired_mean(a, b, settings.bootstrap, settings.seed)
    return _told(metric.spec, (float(a.mean()), float(b.mean())), paired)


def _rescored(metric: Metric, both: Both, settings: Settings, found: Sequence[dict[str, float]]) -> Difference:
    """By scoring drawn clips, the same for both, a few times."""
    kept = [one for one in both if all(one[0].clip_id in side for side in found)]
    if not kept:
        return _none(NO_COMMON_CLIPS, "no clip has a value in both runs")
    n = min(settings.frechet_bootstrap, RESCORED // (2 * len(kept)))
    if n < FEWEST:
        return _none(NOT_DRAWN, f"{len(kept)} clips are too many to score {FEWEST} times anew", len(kept))
    engines = [_scoring(metric, [one[side] for one in kept]) for side in (0, 1)]
    return _drawn(metric.spec, engines, len(kept), n, settings.seed)


def _scoring(metric: Metric, pairs: Sequence[Pair]) -> Engine:
    def value(counts: np.ndarray) -> float:
        drawn = [pairs[k] for k in np.repeat(np.arange(len(pairs)), counts).tolist()]
        found = metric.score(drawn, QUICK).value
        return math.nan if found is None else found

    return value


def _drawn(
    spec: MetricSpec,
    engines: Sequence[Engine],
    clips: int,
    n: int,
    seed: int,
    *,
    recentred: bool = True,
    strata: Sequence[str] | None = None,
    distinct: int = 1,
) -> Difference:
    """Difference of two statistics of clips that can be drawn again."""
    everything = np.ones(clips, dtype=int)
    a, b = (engine(everything) for engine in engines)
    if not math.isfinite(a - b):
        return _none(NO_COMMON_CLIPS, "no value over the clips that both runs have", clips)
    how = {"recentred": recentred, "strata": strata, "distinct": distinct}
    paired = paired_statistic(a - b, engines[0], engines[1], clips, n, seed, **how)
    return _told(spec, (a, b), paired)


def _whole(metric: FrechetMetric, both: Both) -> list[tuple[Pair, Pair]]:
    return [one for one in both if not any(usable(pair, metric.spec) for pair in one)]


def _rows(metric: FrechetMetric, both: Both) -> tuple[ClipRows, ClipRows, ClipRows]:
    """The real clips' rows and both methods', clip by clip."""
    generated, real = metric.groups([a for a, _ in both])
    return real, generated, metric.groups([b for _, b in both])[0]


@_compared.register(FrechetMetric)
def _of_rows(metric: FrechetMetric, both: Both, settings: Settings, score: Score) -> Difference:
    both = _whole(metric, both)
    if not both:
        return _none(NO_COMMON_CLIPS, "no clip has its features in both runs")
    real, a, b = _rows(metric, both)
    if min(side.total for side in (real, a, b)) < 2:
        return _none(TOO_FEW_SAMPLES, "a covariance needs two samples a side", len(both))
    paired = paired_frechet(real, a, b, settings.frechet_bootstrap, settings.seed)
    value = clips_distance(a, real)
    return _told(metric.spec, (value, value - paired.value), paired)


@_compared.register(SetMetric)
def _of_an_unknown_reduction(metric: SetMetric, both: Both, settings: Settings, score: Score) -> Difference:
    """An extrapolation's line goes through parts of the sample, whose bias clips drawn twice would change."""
    return _none(NOT_DRAWN, "this reduction is not drawn again; compare the distance that it starts from", len(both))


@_compared.register(KernelMetric)
def _of_kernels(metric: KernelMetric, both: Both, settings: Settings, score: Score) -> Difference:
    both = _whole(metric, both)
    if not both:
        return _none(NO_COMMON_CLIPS, "no clip has its features in both runs")
    real, *sides = (thinned(groups) for groups in _rows(metric, both))
    if min(side.total for side in (real, *sides)) < 2:
        return _none(TOO_FEW_SAMPLES, "a mean over pairs of samples needs two a side", len(both))
    engines = [_kernel(BlockSums.of(side, real)) for side in sides]
    return _drawn(metric.spec, engines, len(both), settings.bootstrap, settings.seed)


def _kernel(sums: BlockSums) -> Engine:
    def value(counts: np.ndarray) -> float:
        enough = min((sums.sizes * (counts > 0)).sum(axis=1)) >= 2
        return sums.distance(counts.astype(np.float64)) if enough else math.nan

    return value


@_compared.register(OffsetMetric)
def _of_curves(metric: OffsetMetric, both: Both, settings: Settings, score: Score) -> Difference:
    curves = [tuple(_curve(metric, pair) for pair in one) for one in both]
    kept = [(a, b) for a, b in curves if a is not None and b is not None]
    if not kept:
        return _none(NO_COMMON_CLIPS, "no clip has a curve in both runs")
    engines = [_offset(np.array([one[side] for one in kept])) for side in (0, 1)]
    return _drawn(metric.spec, engines, len(kept), settings.bootstrap, settings.seed, recentred=False)


def _curve(metric: OffsetMetric, pair: Pair) -> np.ndarray | None:
    features: Features = pair.generated or {}
    if usable(replace(pair, real=features), metric.spec):
        return None
    try:
        return moving_correlations(features[FACES], features[SPEECH])
    except TalkForgeError:
        return None  # the score says why


def _offset(curves: np.ndarray) -> Engine:
    return lambda counts: float(abs(offset(np.nanmean(np.repeat(curves, counts, axis=0), axis=0))))


@_compared.register(ClosenessMetric)
def _of_tables(metric: ClosenessMetric, both: Both, settings: Settings, score: Score) -> Difference:
    """A measure counts where both methods have it, and where the real clip has it if that is its ground truth."""
    a, b = (_table(metric, [one[side].generated for one in both]) for side in (0, 1))
    truth = None if metric.paper else _table(metric, [one.real for one, _ in both])
    known = ~np.isnan(a + b if truth is None else a + b + truth)
    kept = known.any(axis=1)
    if not kept.any():
        return _none(NO_COMMON_CLIPS, "no clip has a measure in both runs")
    a, b, truth = (None if side is None else np.where(known, side, np.nan)[kept] for side in (a, b, truth))
    engines = [_closeness(Table(side, truth)) for side in (a, b) if side is not None]
    return _drawn(metric.spec, engines, int(kept.sum()), settings.bootstrap, settings.seed)


def _table(metric: ClosenessMetric, clips: Sequence[Features | None]) -> np.ndarray:
    rows = [[math.nan if isinstance(one, tuple) else one for one in metric.measured(features)] for features in clips]
    return np.array(rows, dtype=np.float64)


def _closeness(table: Table) -> Engine:
    return lambda counts: table.of(np.repeat(np.arange(len(counts)), counts))


@_compared.register(EmotionMetric)
def _of_emotions(metric: EmotionMetric, both: Both, settings: Settings, score: Score) -> Difference:
    """The mean of the emotions' means; clips are drawn within their emotion, as for the score's own interval."""
    found = [_by_clip(score), _by_clip(metric.score([b for _, b in both], QUICK))]
    kept = [a for a, _ in both if all(a.clip_id in side for side in found)]
    labels = [str(pair.emotion) for pair in kept]
    if set(labels) != set(metric.emotions):
        return _none(NO_COMMON_CLIPS, "an emotion has no clip with a value in both runs", len(kept))
    engines = [_emotions(np.array([side[pair.clip_id] for pair in kept]), np.array(labels)) for side in found]
    seed = settings.seed
    return _drawn(metric.spec, engines, len(kept), settings.bootstrap, seed, recentred=False, strata=labels)


def _emotions(values: np.ndarray, labels: np.ndarray) -> Engine:
    groups = [labels == name for name in np.unique(labels)]
    return lambda counts: float(np.mean([counts[one] @ values[one] / counts[one].sum() for one in groups]))


@_compared.register(ClusteringMetric)
def _of_classes(metric: ClusteringMetric, both: Both, settings: Settings, score: Score) -> Difference:
    """Clips are drawn within their speaker's emotion, two different ones at least, as for the score's own interval.

    Were they drawn among all, classes would be lost, and a clip drawn twice would lie at no distance from itself.
    """
    other = metric.score([b for _, b in both], QUICK)
    if other.value is None:
        return _none(other.reason or NO_COMMON_CLIPS, "the other run has no value")
    found = [_by_clip(score), _by_clip(other)]
    kept = [one for one in both if all(one[0].clip_id in side for side in found) and _place(one[0]) == _place(one[1])]
    sides = [metric.speakers([one[side] for one in kept]) for side in (0, 1)]
    places = [place for a, _ in kept if (place := _place(a)) in sides[0].sizes()]
    if not places:
        return _none(NO_COMMON_CLIPS, "no speaker has two clips of each of two emotions in both runs", len(kept))
    n = settings.frechet_bootstrap if sides[0].drawable else 0
    labels = ["\0".join(map(str, place)) for place in places]
    engines = [_strength(side, places) for side in sides]
    return _drawn(metric.spec, engines, len(places), n, settings.seed, strata=labels, distinct=DISTINCT)


def _place(pair: Pair) -> Place:
    return pair.identity, pair.emotion


def _strength(speakers: Speakers, places: Sequence[Place]) -> Engine:
    """The strength of clips that lie at these places, in the order of their classes."""
    clips = {place: [k for k, own in enumerate(places) if own == place] for place in speakers.sizes()}
    return lambda counts: speakers.value({place: counts[own].astype(np.float64) for place, own in clips.items()})
