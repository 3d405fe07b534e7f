"""95% intervals by bootstrap over clips.

Clips are the unit that is drawn again, never frames: frames of one clip are alike, and intervals over frames would be
several times too narrow. (B. Efron and R. Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 6 and 13.)

Means get the percentile interval. A Fréchet distance is biased upward by small samples, and replicates are biased once
more, because clips drawn twice lower the rank: their percentiles can lie wholly above the estimate. Its interval is
*recentred*: the replicates' spread about their median is set about the estimate,

    [theta + q2.5 - median, theta + q97.5 - median], the lower end not below 0,

so it always holds the estimate. It speaks of the sampling spread at this number of clips, not of the remaining bias.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ..core.errors import InputError
from .frechet import Summary, as_rows, frechet_distance, nuclear_norm, root_of_scatter, summary_distance

T = TypeVar("T")
Interval = tuple[float, float]

MIN_CLIPS = 2
LEVELS = (0.025, 0.5, 0.975)
# Numbers drawn at once for a bootstrap of means: bounds its memory to some 30 MB.
DRAWN_AT_ONCE = 4_000_000
# Up to this many rows a dimension, a replicate is the SVD of a Gram matrix; beyond, the D x D moments are smaller
# (a draw with replacement holds 63% of the clips, so that is where the distinct rows reach D).
GRAM_ROWS_PER_DIM = 1.6
# Second moments of single clips are kept when they take no more bytes than this a side.
MOMENTS_BYTES = 256 * 2**20
# Above the first count of multiplications in all, replicates are cut down, but to no fewer than the second number.
WORK, FEWEST = 1e12, 50


def bootstrap_mean(values: Sequence[float] | np.ndarray, *, n: int = 1000, seed: int = 0) -> Interval | None:
    """Percentile interval of the mean over clips.

    Args:
        values: one number a clip.
        n: number of replicates.
        seed: of the draws; the same seed gives the same interval.

    Returns:
        (low, high), or None with fewer than 2 clips.

    Raises:
        InputError: not one-dimensional, or NaN or infinity among the values.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise InputError(f"values must be finite and one a clip; the shape is {values.shape}")
    if len(values) < MIN_CLIPS:
        return None
    rng, at_once = np.random.default_rng(seed), max(1, DRAWN_AT_ONCE // len(values))
    sizes = [min(at_once, n - start) for start in range(0, n, at_once)]
    means = [values[rng.integers(0, len(values), (size, len(values)))].mean(axis=1) for size in sizes]
    low, _, high = np.quantile(np.concatenate(means), LEVELS)
    return float(low), float(high)


def bootstrap_statistic(
    groups: Sequence[T], fn: Callable[[list[T]], float], n: int = 1000, seed: int = 0, *, recentred: bool = False
) -> Interval | None:
    """Interval of any statistic of a list of clips.

    Args:
        groups: one item a clip.
        fn: from a list of clips, in which items may repeat, to the statistic.
        n: number of replicates.
        seed: of the draws.
        recentred: for a distance that small samples bias upward; see above.

    Returns:
        (low, high), or None with fewer than 2 clips.
    """
    if len(groups) < MIN_CLIPS:
        return None
    replicates = [fn([groups[i] for i in drawn]) for drawn in _draws(len(groups), n, seed)]
    if recentred:
        return _recentre(fn(list(groups)), replicates)
    low, _, high = np.quantile(replicates, LEVELS)
    return float(low), float(high)


def _draws(clips: int, n: int, seed: int) -> Iterator[np.ndarray]:
    """n times `clips` clip numbers, drawn with replacement."""
    rng = np.random.default_rng(seed)
    for _ in range(n):
        yield rng.integers(0, clips, clips)


def _recentre(estimate: float, replicates: Sequence[float]) -> Interval:
    low, middle, high = np.quantile(replicates, LEVELS)
    low, high = float(estimate + low - middle), float(estimate + high - middle)
    return max(0.0, min(low, estimate)), max(high, estimate)


def frechet_bootstrap(
    real_groups: Sequence[np.ndarray], gen_groups: Sequence[np.ndarray], *, n: int = 200, seed: int = 0
) -> Interval | None:
    """Recentred interval of the Fréchet distance between real and generated clips, drawn in pairs.

    Replicates equal `frechet_distance` over the drawn clips' rows. While samples are few, all inner products are formed
    once and a replicate costs one SVD of the drawn block; a clip drawn k times is one row of weight k. With many
    samples a replicate adds weighted second moments, and n is cut down (to 50 at worst) where that is long work.

    Args:
        real_groups: (N_i, D) features of each real clip, N_i at least 1.
        gen_groups: (M_i, D) features of the generated clip of the same place.
        n: number of replicates.
        seed: of the draws.

    Returns:
        (low, high), or None with fewer than 2 clips.

    Raises:
        InputError: numbers of clips differ, an empty clip, or features that `frechet_distance` would refuse.
    """
    if len(real_groups) != len(gen_groups):
        raise InputError(f"{len(real_groups)} real clips for {len(gen_groups)} generated ones")
    if len(real_groups) < MIN_CLIPS:
        return None
    real, generated = _sides(real_groups, gen_groups)
    estimate, engine = frechet_distance(real.rows, generated.rows), _engine(real, generated)
    draws = _draws(len(real_groups), _affordable(n, real, generated), seed)
    return _recentre(estimate, [engine(np.bincount(drawn, minlength=len(real_groups))) for drawn in draws])


@dataclass(frozen=True)
class _Side:
    """Rows of one side, (N, D), shifted so that products do not cancel, and the clip that each belongs to, (N,)."""

    rows: np.ndarray
    clip: np.ndarray

    @property
    def dim(self) -> int:
        return self.rows.shape[1]


def _sides(real: Sequence[np.ndarray], generated: Sequence[np.ndarray]) -> tuple[_Side, _Side]:
    """Both sides, shifted by one common vector: the distance does not change."""
    groups = [[as_rows(rows, name) for rows in side] for side, name in ((real, "real"), (generated, "generated"))]
    if any(len(rows) == 0 for side in groups for rows in side):
        raise InputError("a clip without features cannot be drawn")
    if len(widths := {rows.shape[1] for side in groups for rows in side}) > 1:
        raise InputError(f"features of different dimensions: {sorted(widths)}")
    rows = [np.concatenate(side) for side in groups]
    centre = (rows[0].mean(axis=0) + rows[1].mean(axis=0)) / 2
    clips = [np.repeat(np.arange(len(side)), [len(clip) for clip in side]) for side in groups]
    return _Side(rows[0] - centre, clips[0]), _Side(rows[1] - centre, clips[1])


Engine = Callable[[np.ndarray], float]


def frechet_engine(real_groups: Sequence[np.ndarray], gen_groups: Sequence[np.ndarray], n: int) -> tuple[Engine, int]:
    """What `frechet_bootstrap` makes replicates with, and how many of `n` it would make; arguments and errors as there.

    Returns:
        (from how often each pair of clips was drawn, (K,), to the distance of that replicate; replicates).
    """
    real, generated = _sides(real_groups, gen_groups)
    return _engine(real, generated), _affordable(n, real, generated)


def _uses_gram(real: _Side, generated: _Side) -> bool:
    return max(len(real.rows), len(generated.rows)) <= GRAM_ROWS_PER_DIM * real.dim


def _engine(real: _Side, generated: _Side) -> Engine:
    """From how often each clip was drawn, (K,), to the distance of that replicate."""
    if _uses_gram(real, generated):
        return _gram_engine(real, generated)
    left, right = _moments(real), _moments(generated)
    return lambda counts: summary_distance(left(counts), right(counts))


def _affordable(n: int, real: _Side, generated: _Side) -> int:
    """Replicates within the bound on work, counting multiplications of one."""
    if _uses_gram(real, generated):
        one = float(min(len(real.rows), len(generated.rows)) ** 2 * max(len(real.rows), len(generated.rows)))
    else:
        one = (len(real.rows) + len(generated.rows)) * real.dim**2 + 8.0 * real.dim**3
    return min(n, max(FEWEST, int(WORK / one)))


def _gram_engine(real: _Side, generated: _Side) -> Engine:
    """Replicates from the inner products X Y^T of all rows.

    Rows x_i of weight w_i have the root sqrt(w_i / (n - 1)) (x_i - mean), so the singular values wanted are those of
    (x_i - mean_x) (y_j - mean_y)^T between such factors: the drawn rows' products, centred by weighted means.
    """
    products = real.rows @ generated.rows.T

    def distance(counts: np.ndarray) -> float:
        x, y = _Drawn.of(real, counts), _Drawn.of(generated, counts)
        block = products[np.ix_(x.rows, y.rows)]
        across, down = block @ y.weights / y.n, x.weights @ block / x.n
        block = block - across[:, None] - down[None, :] + x.weights @ across / x.n
        block *= np.sqrt(x.weights / (x.n - 1))[:, None] * np.sqrt(y.weights / (y.n - 1))[None, :]
        gap = float(np.sum((x.mean - y.mean) ** 2))
        # Rounding here goes with the rows' distance from the origin, even where the drawn rows are all the same.
        return max(0.0, gap + x.variance + y.variance - 2.0 * nuclear_norm(block))

    return distance


@dataclass(frozen=True)
class _Drawn:
    """One side of a replicate: numbers and weights of the distinct rows, their count, mean and total variance."""

    rows: np.ndarray
    weights: np.ndarray
    n: float
    mean: np.ndarray
    variance: float

    @classmethod
    def of(cls, side: _Side, counts: np.ndarray) -> _Drawn:
        rows = np.flatnonzero(counts[side.clip])
        weights = counts[side.clip[rows]].astype(np.float64)
        n, values = float(weights.sum()), side.rows[rows]
        mean = weights @ values / n
        spread = np.sum((values - mean) ** 2, axis=1)
        return cls(rows, weights, n, mean, float(weights @ spread) / (n - 1))


def _moments(side: _Side) -> Callable[[np.ndarray], Summary]:
    """From how often each clip was drawn to the summary of the drawn rows, by weighted second moments."""
    clips = int(side.clip[-1]) + 1
    starts = np.searchsorted(side.clip, np.arange(clips))
    sizes, sums = np.bincount(side.clip), np.add.reduceat(side.rows, starts, axis=0)
    fits = clips * side.dim**2 * 8 <= MOMENTS_BYTES
    stack = np.stack([rows.T @ rows for rows in np.split(side.rows, starts[1:])]) if fits else None

    def summary(counts: np.ndarray) -> Summary:
        n = int(counts @ sizes)
        mean = counts @ sums / n
        if stack is not None:
            second = np.tensordot(counts.astype(np.float64), stack, axes=1)
        else:
            drawn = np.flatnonzero(counts[side.clip])
            rows = side.rows[drawn]
            second = (rows * counts[side.clip[drawn], None]).T @ rows
        return Summary(n, mean, root_of_scatter(second - n * np.outer(mean, mean)))

    return summary
