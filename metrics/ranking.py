"""Several methods under one metric: their ranks, how sure these are, and p-values of several tests at once.

*Ranks by draws.* A replicate takes the same clips for all methods, so what makes a clip hard for each of them cancels.
Replicates of means and of Fréchet distances are stretched about them as in `paired`, which few clips need. In a
replicate a method's rank is 1 + how many are better; methods that tie there hold all the ranks that they share. The
interval runs from the 2.5% quantile of the lowest rank that a replicate leaves open to the 97.5% quantile of the
highest. Fewer than `FEWEST_CLIPS` clips order nothing: were two methods alike, all clips would point the same way too
often by chance.

*Ranks by intervals*, where nothing can be drawn jointly: better is whose interval lies wholly on the better side, and
who is known to be better than its neighbour by a paired test. From 1 + how many are better to M - how many are worse.
That is cautious where methods share their clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..core.errors import InputError
from .frechet import clips_distance
from .intervals import DRAWN_AT_ONCE, MIN_CLIPS, Interval, frechet_engine
from .paired import LEVEL, stretch

# The least K with 2^(1 - K), the smallest p-value of `paired`, below 0.05.
FEWEST_CLIPS = 6


@dataclass(frozen=True)
class Rank:
    """The ranks that a method may have, 1 the best; `best` is the share of draws in which it is, None without draws."""

    low: int
    high: int
    best: float | None = None


def joint_means(values: np.ndarray, *, n: int = 1000, seed: int = 0) -> np.ndarray:
    """Stretched replicates of several methods' means over the same drawn clips.

    Args:
        values: (M, K) a row a method, a column a clip.
        n: number of replicates.
        seed: of the draws.

    Returns:
        (n, M).

    Raises:
        InputError: not two-dimensional, fewer than two clips, NaN or infinity.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] < 2 or not np.isfinite(values).all():
        raise InputError(f"values must be finite, methods by two clips at least; the shape is {values.shape}")
    (methods, clips), rng = values.shape, np.random.default_rng(seed)
    at_once = max(1, DRAWN_AT_ONCE // (methods * clips))
    sizes = [min(at_once, n - start) for start in range(0, n, at_once)]
    means = [values[:, rng.integers(0, clips, (size, clips))].mean(axis=2).T for size in sizes]
    # The mean itself is taken in the same way, so that equal values stay equal to the last digit.
    centre = values[:, np.arange(clips)[None]].mean(axis=2).T
    return centre + stretch([clips]) * (np.concatenate(means) - centre)


def joint_frechet(
    real: Sequence[np.ndarray], methods: Sequence[Sequence[np.ndarray]], *, n: int = 200, seed: int = 0
) -> np.ndarray:
    """Stretched replicates of several methods' Fréchet distances from the same real clips, drawn together.

    Args:
        real: (N_i, D) features of each of K real clips.
        methods: for each of M methods the features of its clips of the same places.
        n: number of replicates; fewer where they are long work, see `intervals.frechet_bootstrap`.
        seed: of the draws, which are those of the distances' own intervals.

    Returns:
        (n or fewer, M). As the replicates are biased, their medians are moved onto the distances.

    Raises:
        InputError: unequal numbers of clips, fewer than two, or features that `frechet_distance` would refuse.
    """
    clips, rng = len(real), np.random.default_rng(seed)
    if clips < MIN_CLIPS or any(len(side) != clips for side in methods):
        raise InputError(f"{clips} real clips for {sorted({len(side) for side in methods})} generated ones")
    counts = [np.bincount(rng.integers(0, clips, clips), minlength=clips) for _ in range(n)]
    columns, values = [], []
    for side in methods:  # one after the other: what an engine holds can be large
        engine, affordable = frechet_engine(real, side, n)
        columns.append([engine(drawn) for drawn in counts[:affordable]])
        values.append(clips_distance(side, real))
    draws = np.stack([column[: min(map(len, columns))] for column in columns], axis=1)
    return np.array(values) + stretch([clips]) * (draws - np.median(draws, axis=0))


def ranks_of_draws(gaps: np.ndarray) -> list[Rank]:
    """Ranks from how far each method is from the best in each replicate, (n, M), smaller the better."""
    better = (gaps[:, None, :] < gaps[:, :, None]).sum(axis=2)
    tied = (gaps[:, None, :] == gaps[:, :, None]).sum(axis=2) - 1
    share = np.where(better == 0, 1.0 / (1 + tied), 0.0).mean(axis=0)
    low = np.quantile(1 + better, LEVEL / 2, axis=0, method="inverted_cdf")
    high = np.quantile(1 + better + tied, 1 - LEVEL / 2, axis=0, method="inverted_cdf")
    return [Rank(int(a), int(b), float(p)) for a, b, p in zip(low, high, share, strict=True)]


def ranks_of_intervals(intervals: Sequence[Interval | None], steps: Sequence[bool | None] = ()) -> list[Rank]:
    """Ranks from each method's interval of its distance from the best, the best first.

    Args:
        intervals: None where nothing is known of one.
        steps: for each method but the last, whether it is known to be better than the next one; None: not tested. A
            test outweighs the intervals. Who is better than a better one is better.
    """
    lows = np.array([-np.inf if one is None else one[0] for one in intervals])
    highs = np.array([np.inf if one is None else one[1] for one in intervals])
    better = highs[:, None] < lows[None]
    for place, known in enumerate(steps):
        better[place, place + 1] = better[place, place + 1] if known is None else known
    for middle in range(len(lows)):
        better |= better[:, middle, None] & better[None, middle]
    counts = zip(better.sum(axis=0), better.sum(axis=1), strict=True)
    return [Rank(1 + int(above), len(lows) - int(below)) for above, below in counts]


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p-values as they are after looking at all of them (S. Holm, Scandinavian Journal of Statistics, 1979).

    The i-th smallest of m is multiplied by m - i + 1 and is at least as large as the ones before it. None stays None
    and does not count.
    """
    known = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    least = 0.0
    for done, (p, place) in enumerate(known):
        least = max(least, min(1.0, p * (len(known) - done)))
        adjusted[place] = least
    return adjusted
