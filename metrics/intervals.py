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
from .clip_rows import ClipRows
from .frechet import clips_distance
from .scatter_root import (
    BLOCK,
    RunningRoot,
    Summary,
    nuclear_norm_in_place,
    reserved,
    root_of_scatter,
    summary_distance,
)

T = TypeVar("T")
Interval = tuple[float, float]

MIN_CLIPS = 2
LEVELS = (0.025, 0.5, 0.975)
# Numbers drawn at once for a bootstrap of means: bounds its memory to some 30 MB.
DRAWN_AT_ONCE = 4_000_000
# Up to this many rows a dimension a replicate starts from the inner products of all rows, which take no more memory
# then than D x D roots do.
GRAM_ROWS_PER_DIM = 1.25
# Second moments of single clips are kept when they take no more bytes than this a side.
MOMENTS_BYTES = 48 * 2**20
# Above the first count of multiplications in all, replicates are cut down, but to no fewer than the second number.
WORK, FEWEST = 1e12, 50
# Where the distinct rows of a draw, 63% of all, reach D: up to there its work goes with the rows, beyond with D.
SMALL_ROWS_PER_DIM = 1.6
# Rows of a side that inner products are formed of at once.
COLUMNS = 1024


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
    real_groups: Sequence[np.ndarray],
    gen_groups: Sequence[np.ndarray],
    *,
    n: int = 200,
    seed: int = 0,
    estimate: float | None = None,
) -> Interval | None:
    """Recentred interval of the Fréchet distance between real and generated clips, drawn in pairs.

    Replicates equal `frechet_distance` over the drawn clips' rows; a clip drawn k times is read once, as rows of weight
    k. While samples are few, all inner products are formed once and a replicate costs one SVD of the drawn block. With
    many samples a replicate adds the clips' weighted second moments where they are small enough to be kept, and else
    reads the drawn clips again and turns their rows into a root. There n is cut down (to 50 at worst) where that is
    long work. None of the three needs memory that grows with the rows.

    Args:
        real_groups: (N_i, D) features of each real clip, N_i at least 1; arrays, or `ClipRows` that are read anew.
        gen_groups: (M_i, D) features of the generated clip of the same place.
        n: number of replicates.
        seed: of the draws.
        estimate: the distance over all clips where it is known.

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
    estimate = clips_distance(real, generated) if estimate is None else estimate
    engine, draws = _engine(real, generated), _draws(len(real), _affordable(n, real, generated), seed)
    return _recentre(estimate, [engine(np.bincount(drawn, minlength=len(real))) for drawn in draws])


def _sides(real: Sequence[np.ndarray], generated: Sequence[np.ndarray]) -> tuple[ClipRows, ClipRows]:
    """Both sides, checked but for the numbers in them."""
    sides = ClipRows.of(real), ClipRows.of(generated)
    if not all(side.sizes.all() for side in sides):
        raise InputError("a clip without features cannot be drawn")
    if len(widths := {side.dim for side in sides}) > 1:
        raise InputError(f"features of different dimensions: {sorted(widths)}")
    return sides


Engine = Callable[[np.ndarray], float]


def frechet_engine(real_groups: Sequence[np.ndarray], gen_groups: Sequence[np.ndarray], n: int) -> tuple[Engine, int]:
    """What `frechet_bootstrap` makes replicates with, and how many of `n` it would make; arguments and errors as there.

    Returns:
        (from how often each pair of clips was drawn, (K,), to the distance of that replicate; replicates).
    """
    real, generated = _sides(real_groups, gen_groups)
    return _engine(real, generated), _affordable(n, real, generated)


def _rows_per_dim(real: ClipRows, generated: ClipRows) -> float:
    return max(real.total, generated.total) / real.dim


def _uses_gram(real: ClipRows, generated: ClipRows) -> bool:
    return _rows_per_dim(real, generated) <= GRAM_ROWS_PER_DIM


def _engine(real: ClipRows, generated: ClipRows) -> Engine:
    """From how often each clip was drawn, (K,), to the distance of that replicate."""
    if _uses_gram(real, generated):
        return _gram_engine(real, generated)
    # Moments of fewer distinct rows than dimensions are singular, and their root has lost half the digits.
    singular = _rows_per_dim(real, generated) <= SMALL_ROWS_PER_DIM
    if singular or len(real) * real.dim**2 * 8 > MOMENTS_BYTES:
        return _root_engine(real, generated)
    centre = _centre(real, generated)
    left, right = _moments(real, centre), _moments(generated, centre)
    return lambda counts: summary_distance(left(counts), right(counts))


def _centre(real: ClipRows, generated: ClipRows) -> np.ndarray:
    """A vector amid the rows. Shifting both sides by it leaves the distance as it is, and sums of squares small."""
    return (real[0].mean(axis=0, dtype=np.float64) + generated[0].mean(axis=0, dtype=np.float64)) / 2


def _affordable(n: int, real: ClipRows, generated: ClipRows) -> int:
    """Replicates within the bound on work, counting multiplications of one."""
    sizes = sorted((real.total, generated.total))
    if _rows_per_dim(real, generated) <= SMALL_ROWS_PER_DIM:
        one = float(sizes[0] ** 2 * sizes[1])
    else:
        one = sum(sizes) * real.dim**2 + 8.0 * real.dim**3
    return min(n, max(FEWEST, int(WORK / one)))


def _gram_engine(real: ClipRows, generated: ClipRows) -> Engine:
    """Replicates from the inner products X Y^T of all rows.

    Rows x_i of weight w_i have the root sqrt(w_i / (n - 1)) (x_i - mean), so the singular values wanted are those of
    (x_i - mean_x) (y_j - mean_y)^T between such factors: the drawn rows' products, centred by weighted means.
    """
    centre = _centre(real, generated)
    products, left, right = _products(real, generated, centre), _Sums.of(real, centre), _Sums.of(generated, centre)

    def distance(counts: np.ndarray) -> float:
        x, y = left.drawn(counts), right.drawn(counts)
        block = products[np.ix_(x.rows, y.rows)]
        across, down = block @ y.weights / y.n, x.weights @ block / x.n
        block -= across[:, None]
        block -= (down - x.weights @ across / x.n)[None, :]
        block *= np.sqrt(x.weights / (x.n - 1))[:, None]
        block *= np.sqrt(y.weights / (y.n - 1))[None, :]
        gap = float(np.sum((x.mean - y.mean) ** 2))
        # Rounding here goes with the rows' distance from the origin, even where the drawn rows are all the same.
        return max(0.0, gap + x.variance + y.variance - 2.0 * nuclear_norm_in_place(block))

    return distance


def _products(real: ClipRows, generated: ClipRows, centre: np.ndarray) -> np.ndarray:
    """Inner products of all shifted rows, (N, M). Real clips are read once for each few columns."""
    products, right = np.empty((real.total, generated.total)), 0
    for columns, _ in generated.pieces(COLUMNS):
        columns -= centre
        below = 0
        for rows, _ in real.pieces(BLOCK):
            rows -= centre
            np.matmul(rows, columns.T, out=products[below : below + len(rows), right : right + len(columns)])
            below += len(rows)
        right += len(columns)
    return products


@dataclass(frozen=True)
class _Drawn:
    """One side of a replicate: numbers and weights of the distinct rows, their count, mean and total variance."""

    rows: np.ndarray
    weights: np.ndarray
    n: float
    mean: np.ndarray
    variance: float


@dataclass(frozen=True)
class _Sums:
    """The clip that each row belongs to, (N,), and each clip's rows in sum, (K, D), their squares, (K,), and number."""

    clip: np.ndarray
    rows: np.ndarray
    squares: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(cls, side: ClipRows, centre: np.ndarray) -> _Sums:
        """Sums of the rows shifted by `centre`, (D,)."""
        rows, squares = np.zeros((len(side), side.dim)), np.zeros(len(side))
        for k, shifted in enumerate(clip - centre for clip in side):
            rows[k], squares[k] = shifted.sum(axis=0), np.einsum("ij,ij->", shifted, shifted)
        return cls(np.repeat(np.arange(len(side)), side.sizes), rows, squares, side.sizes)

    def drawn(self, counts: np.ndarray) -> _Drawn:
        """The rows of the clips that were drawn so often, (K,)."""
        rows = np.flatnonzero(counts[self.clip])
        n = float(counts @ self.sizes)
        mean = counts @ self.rows / n
        scatter = float(counts @ self.squares) - n * float(mean @ mean)
        return _Drawn(rows, counts[self.clip[rows]].astype(np.float64), n, mean, max(0.0, scatter) / (n - 1))


def _root_engine(real: ClipRows, generated: ClipRows) -> Engine:
    """Replicates from roots of the drawn rows: three D x D matrices at a time."""
    room = reserved(real.dim)

    def summary(side: ClipRows, counts: np.ndarray) -> Summary:
        root = RunningRoot(side.dim)
        for rows, clip in side.pieces(BLOCK, counts):
            root.add(rows, counts[clip].astype(np.float64))
        return root.summary()

    return lambda counts: summary_distance(summary(real, counts), summary(generated, counts), room)


def _moments(side: ClipRows, centre: np.ndarray) -> Callable[[np.ndarray], Summary]:
    """From how often each clip was drawn to the summary of the drawn rows, by the clips' second moments."""
    stack, sums = np.empty((len(side), side.dim, side.dim)), np.empty((len(side), side.dim))
    for k, shifted in enumerate(clip - centre for clip in side):
        stack[k], sums[k] = shifted.T @ shifted, shifted.sum(axis=0)

    def summary(counts: np.ndarray) -> Summary:
        n = int(counts @ side.sizes)
        mean = counts @ sums / n
        second = np.tensordot(counts.astype(np.float64), stack, axes=1)
        return Summary(n, mean, root_of_scatter(second - n * np.outer(mean, mean)))

    return summary
