"""Two methods on the same clips: their difference, its interval, and how easily chance alone makes one as large.

Both methods are drawn again together: a replicate takes the same clips for both, so what makes a clip hard for each of
them cancels. A replicate's difference is r_k, the difference itself is d.

*Few clips.* Percentiles of replicates are too narrow for them: their spread is that of a variance over K, not K - 1,
and normal where Student's t would be due. So the replicates' distances from their centre are stretched by

    c(K) = t(0.975, K - 1) / 1.959964 * sqrt(K / (K - 1)),

which is 1.35 for 7 clips, 1.06 for 30 and 1.01 for 150 (after T. Hesterberg, "What Teachers Should Know About the
Bootstrap", The American Statistician, 2015). The 95% interval holds the percentiles 2.5 and 97.5 of what results. The
centre is d; for a distance whose replicates are biased (see `intervals`) it is their median, which is moved onto d.

*p-value.* Twice the smaller share of stretched replicates that do not lie on d's side of 0, each share as
(count + 1) / (replicates + 1). It is never less than 2^(1 - K): were the methods alike, each clip's difference could as
well have the other sign, and all K signs agree with that probability. So five clips establish nothing. c(K) is made for
5%: with few clips larger p-values are a little too large. Where clips are drawn within G groups, t has K - G degrees
and the root is that of the smallest group; a group of one clip leaves no interval.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from ..core.errors import InputError
from .frechet import clips_distance
from .intervals import DRAWN_AT_ONCE, MIN_CLIPS, Interval, frechet_engine

NORMAL = 1.959964
LEVEL = 0.05
# Fewer replicates than this with a number on both sides say too little: clips of some measure are too rare.
FEWEST = 50

# From how often each clip was drawn, (K,), to the value over the drawn clips; NaN where they have none.
Engine = Callable[[np.ndarray], float]


@dataclass(frozen=True)
class PairedDifference:
    """One method's value minus the other's over the same clips.

    Attributes:
        value: the difference.
        ci95: its interval; None with fewer than 2 clips, or where too few replicates have a value.
        p_value: two-sided, None like the interval.
        clips: how many were drawn from.
    """

    value: float
    ci95: Interval | None
    p_value: float | None
    clips: int

    @property
    def established(self) -> bool:
        """Whether the interval leaves 0 out and the p-value is below 0.05."""
        if self.ci95 is None or self.p_value is None:
            return False
        return self.p_value < LEVEL and not self.ci95[0] <= 0.0 <= self.ci95[1]


def paired_mean(
    a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray, n: int = 1000, seed: int = 0
) -> PairedDifference:
    """Difference of the means over the same clips.

    Args:
        a, b: (K,) values of both methods, clip by clip.
        n: number of replicates.
        seed: of the draws.

    Raises:
        InputError: no clip, unequal numbers of them, NaN or infinity.
    """
    both = [np.asarray(side, dtype=np.float64) for side in (a, b)]
    shapes = {side.shape for side in both}
    if len(shapes) > 1 or both[0].ndim != 1 or not both[0].size or not all(np.isfinite(side).all() for side in both):
        raise InputError(f"paired values must be finite and one a clip; the shapes are {sorted(shapes)}")
    gaps = both[0] - both[1]
    clips, rng = len(gaps), np.random.default_rng(seed)
    at_once = max(1, DRAWN_AT_ONCE // clips)
    sizes = [min(at_once, n - start) for start in range(0, n, at_once)]
    replicates = [gaps[rng.integers(0, clips, (size, clips))].mean(axis=1) for size in sizes]
    return summarised(float(gaps.mean()), np.concatenate(replicates), [clips])


def paired_frechet(
    real: Sequence[np.ndarray], a: Sequence[np.ndarray], b: Sequence[np.ndarray], n: int = 200, seed: int = 0
) -> PairedDifference:
    """Difference of the Fréchet distances of two methods from the same real clips.

    Args:
        real: (N_i, D) features of each real clip, N_i at least 1.
        a, b: (M_i, D) features of both methods' clips of the same places.
        n: number of replicates; cut down where they are long work, see `intervals.frechet_bootstrap`.
        seed: of the draws, which are those of the distances' own intervals.

    Raises:
        InputError: unequal numbers of clips, none, an empty clip, or features that `frechet_distance` would refuse.
    """
    if not len(real) == len(a) == len(b) or not len(real):
        raise InputError(f"{len(real)} real clips for {len(a)} and {len(b)} generated ones")
    value = clips_distance(a, real) - clips_distance(b, real)
    if len(real) < MIN_CLIPS:
        return PairedDifference(value, None, None, len(real))
    first, affordable = frechet_engine(real, a, n)
    second, also = frechet_engine(real, b, n)
    return paired_statistic(value, first, second, len(real), min(affordable, also), seed, recentred=True)


def paired_statistic(
    value: float,
    a: Engine,
    b: Engine,
    clips: int,
    n: int,
    seed: int = 0,
    *,
    recentred: bool = False,
    strata: Sequence[str] | None = None,
    distinct: int = 1,
) -> PairedDifference:
    """Difference of any statistic that can be drawn again.

    Args:
        value: the difference over all clips, each once.
        a, b: both methods' statistics.
        clips: K, number of clips.
        n: number of replicates. Those in which a side has no value are left out.
        seed: of the draws.
        recentred: for a statistic whose replicates are biased.
        strata: (K,) group of each clip: as many clips as it has are drawn within each.
        distinct: number of different clips that a draw of a group holds at least; no group has fewer.

    Raises:
        InputError: a group of fewer clips than that.
    """
    rng, labels = np.random.default_rng(seed), np.asarray(strata or [""] * clips)
    groups = [np.flatnonzero(labels == name) for name in dict.fromkeys(labels.tolist())]
    if min(map(len, groups)) < distinct:
        raise InputError(f"a group of {min(map(len, groups))} clips holds no {distinct} different ones")
    drawn = (_counts(groups, clips, rng, distinct) for _ in range(n if clips >= MIN_CLIPS else 0))
    replicates = np.array([a(counts) - b(counts) for counts in drawn])
    return summarised(value, replicates[np.isfinite(replicates)], [*map(len, groups)], recentred=recentred)


def _counts(groups: Sequence[np.ndarray], clips: int, rng: np.random.Generator, distinct: int) -> np.ndarray:
    """How often each clip is drawn, (K,), when each group's clips are drawn among themselves."""
    return np.bincount(np.concatenate([_drawn(group, rng, distinct) for group in groups]), minlength=clips)


def _drawn(group: np.ndarray, rng: np.random.Generator, distinct: int) -> np.ndarray:
    while True:
        drawn = group[rng.integers(0, len(group), len(group))]
        if distinct == 1 or len(np.unique(drawn)) >= distinct:
            return drawn


def stretch(sizes: Sequence[int]) -> float:
    """c of the module's text for groups of these many clips, 2 each at least."""
    smallest, free = min(sizes), sum(sizes) - len(sizes)
    return float(student.ppf(1 - LEVEL / 2, free)) / NORMAL * float(np.sqrt(smallest / (smallest - 1)))


def summarised(
    value: float, replicates: np.ndarray, sizes: Sequence[int], *, recentred: bool = False
) -> PairedDifference:
    """Interval and p-value of a difference from its replicates, (n,), drawn in groups of these many clips."""
    clips = sum(sizes)
    if min(sizes) < MIN_CLIPS or len(replicates) < FEWEST:
        return PairedDifference(value, None, None, clips)
    centre = float(np.median(replicates)) if recentred else value
    moved = value + stretch(sizes) * (replicates - centre)
    low, high = np.quantile(moved, [LEVEL / 2, 1 - LEVEL / 2])
    # As in `intervals`: the estimate is inside, also where replicates are so skewed that they all lie on one side.
    interval = min(float(low), value), max(float(high), value)
    beyond = min(int((moved <= 0).sum()), int((moved >= 0).sum()))
    p_value = 2 * (beyond + 1) / (len(moved) + 1)
    return PairedDifference(value, interval, min(1.0, max(p_value, 2.0 ** (1 - clips))), clips)
