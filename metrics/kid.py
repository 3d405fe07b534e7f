"""Companions of the Fréchet distance that small samples do not bias: the kernel distance, and extrapolation.

Kernel (inception) distance (M. Binkowski et al., "Demystifying MMD GANs", ICLR 2018): the unbiased estimate of the
squared maximum mean discrepancy under k(a, b) = (a . b / D + 1)^3,

    KID = mean_(i != j) k(x_i, x_j) + mean_(i != j) k(y_i, y_j) - 2 mean_(i, j) k(x_i, y_j).

Its expectation does not depend on the number of samples, and it may come out below zero where the sets are alike.

Extrapolation (M. J. Chong and D. Forsyth, "Effectively Unbiased FID and Inception Score and Where to Find Them", CVPR
2020): the Fréchet distance of N samples exceeds the true one by about c / N. A line through its values over random
parts of the sample, against 1 / N, meets the axis at the value for N to infinity.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..core.errors import InputError
from .clip_rows import ClipRows
from .frechet import as_rows, clips_distance

# Rows of a kernel matrix held at once: bounds the memory of the full estimate.
ROWS_AT_ONCE = 1024
# Fewer clips give no line: parts of a quarter would hold one clip, whose frames are alike.
MIN_GROUPS = 8


def _kernel_sum(x: np.ndarray, y: np.ndarray) -> float:
    """Sum of the kernel over all pairs."""
    parts = (x[i : i + ROWS_AT_ONCE] @ y.T for i in range(0, len(x), ROWS_AT_ONCE))
    return float(sum(((part / x.shape[1] + 1) ** 3).sum() for part in parts))


def _mean_of_others(x: np.ndarray) -> float:
    """Mean of the kernel over pairs of different rows."""
    itself = float(((np.einsum("ij,ij->i", x, x) / x.shape[1] + 1) ** 3).sum())
    return (_kernel_sum(x, x) - itself) / (len(x) * (len(x) - 1))


def _discrepancy(x: np.ndarray, y: np.ndarray) -> float:
    return _mean_of_others(x) + _mean_of_others(y) - 2 * _kernel_sum(x, y) / (len(x) * len(y))


def _checked(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = as_rows(x, "x"), as_rows(y, "y")
    if x.shape[1] != y.shape[1]:
        raise InputError(f"features of {x.shape[1]} and {y.shape[1]} dimensions")
    if min(len(x), len(y)) < 2:
        raise InputError(f"an unbiased kernel distance needs at least 2 rows on each side, not {len(x)} and {len(y)}")
    return x, y


def full_kernel_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Unbiased kernel distance over all samples, the estimate of least variance.

    Args:
        x: (N, D) features, N at least 2.
        y: (M, D) features, M at least 2.

    Raises:
        InputError: other shapes, fewer than 2 rows, NaN or infinity.
    """
    return _discrepancy(*_checked(x, y))


def kernel_distance(
    x: np.ndarray, y: np.ndarray, *, subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Unbiased kernel distance as it is published: mean and standard deviation over random subsets.

    Args:
        x: (N, D) features.
        y: (M, D) features.
        subsets: number of subsets.
        subset_size: rows of each side in a subset, drawn without replacement; 2 to min(N, M).
        seed: of the draws.

    Returns:
        (mean, std); std is that of the subsets' values (divisor `subsets`), not the error of the mean.

    Raises:
        InputError: other shapes, NaN or infinity, no subset, or a subset larger than a side.
    """
    x, y = _checked(x, y)
    if subsets < 1 or not 2 <= subset_size <= min(len(x), len(y)):
        raise InputError(
            f"{subsets} subsets of {subset_size} rows cannot be drawn from {len(x)} and {len(y)}",
            hint="subset_size is at least 2 and at most the smaller side",
        )
    rng = np.random.default_rng(seed)
    values = [_discrepancy(*(_drawn(side, subset_size, rng) for side in (x, y))) for _ in range(subsets)]
    return float(np.mean(values)), float(np.std(values))


def _drawn(rows: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    return rows[rng.choice(len(rows), count, replace=False)]


class Extrapolation(NamedTuple):
    """A Fréchet distance extrapolated to infinitely many samples.

    Attributes:
        value: where the line meets the axis. It may lie below zero where the sets are alike.
        error: standard error of `value` from the scatter about the line. Parts of one sample are alike, so it speaks
            of the fit and not of the draw of the sample; the interval over clips does that.
        slope: distance per unit of 1 / share of the sample: the bias at full size that the line removes.
        shares: (K,) shares of the clips that were drawn.
        distances: (K,) mean distance at each share.
    """

    value: float
    error: float
    slope: float
    shares: np.ndarray
    distances: np.ndarray


def extrapolate_frechet(
    x_groups: Sequence[np.ndarray],
    y_groups: Sequence[np.ndarray],
    *,
    points: int = 15,
    smallest: float = 0.25,
    repeats: int = 4,
    seed: int = 0,
) -> Extrapolation | None:
    """Fréchet distance between two sets of clips, extrapolated to infinitely many.

    Both sides shrink by the same share, as the bias comes from both; clips are never split, because frames of one clip
    are alike and add less than their number. The bias falls as 1 / N only where samples outnumber the dimensions, at
    the smallest share too; with fewer the value stays biased.

    Args:
        x_groups: (N_i, D) features of each clip of one set, arrays or `ClipRows`. For samples without clips,
            `x[:, None]`.
        y_groups: the same of the other set.
        points: shares of the sample, evenly spaced from `smallest` to 1; at least 3.
        smallest: smallest share, above 0 and below 1.
        repeats: draws at each share.
        seed: of the draws.

    Returns:
        The extrapolation, or None with fewer than 8 clips on a side. Report it with reason "too_few_clips".

    Raises:
        InputError: points, smallest or repeats out of range, or features that `frechet_distance` would refuse.
    """
    if points < 3 or not 0 < smallest < 1 or repeats < 1:
        raise InputError(f"no line through {points} points from {smallest} on, {repeats} draws each")
    sides = [clips.select(np.flatnonzero(clips.sizes)) for clips in map(ClipRows.of, (x_groups, y_groups))]
    if min(map(len, sides)) < MIN_GROUPS:
        return None
    rng, sizes = np.random.default_rng(seed), np.array([len(groups) for groups in sides])
    counts = np.maximum(1, np.rint(np.linspace(smallest, 1, points)[:, None] * sizes).astype(int))
    distances = np.array([_mean_distance(sides, pair, repeats, rng) for pair in counts])
    # Counts are whole, so shares of the two sides can differ a little; the bias goes with their inverses.
    inverse = (sizes / counts).mean(axis=1)
    value, error, slope = _line(inverse, distances)
    return Extrapolation(value, error, slope, 1 / inverse, distances)


def _mean_distance(sides: list[ClipRows], counts: np.ndarray, repeats: int, rng: np.random.Generator) -> float:
    """Mean over draws of so many clips of each side; all of them are one draw."""
    repeats = 1 if counts.tolist() == [len(groups) for groups in sides] else repeats
    drawn = (tuple(_drawn_clips(*side, rng) for side in zip(sides, counts, strict=True)) for _ in range(repeats))
    return float(np.mean([clips_distance(*pair) for pair in drawn]))


def _drawn_clips(clips: ClipRows, count: int, rng: np.random.Generator) -> ClipRows:
    return clips.select(rng.choice(len(clips), count, replace=False))


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Least-squares intercept, its standard error, and slope."""
    centred = x - x.mean()
    spread = float(centred @ centred)
    slope = float(centred @ y) / spread
    intercept = float(y.mean() - slope * x.mean())
    variance = float(((y - intercept - slope * x) ** 2).sum()) / (len(x) - 2)
    return intercept, float(np.sqrt(variance * (1 / len(x) + x.mean() ** 2 / spread))), slope
