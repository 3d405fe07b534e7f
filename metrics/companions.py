"""Two reductions of clips' feature rows beside the Fréchet distance: the kernel distance, and extrapolation.

Both are defined in `kid`. Here they become metrics: over complete pairs of clips, with intervals for which clips are
drawn again, never frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..core.errors import InputError
from .base import Collected, FrechetMetric, Pair, Score, Settings
from .clip_rows import ClipRows
from .intervals import Interval, frechet_bootstrap
from .kid import MIN_GROUPS, Extrapolation, extrapolate_frechet

# Rows of a side that a kernel distance takes at most: beyond, evenly spaced frames of each clip stand for all.
MOST_ROWS = 10_000
# Rows of each side that a kernel matrix is formed of at once.
ROWS_AT_ONCE = 1024
# Shares of the clips that the line goes through, and draws at each.
POINTS, REPEATS = 10, 2
# Of the normal distribution.
TWO_SIDED_95 = 1.959964


@dataclass(frozen=True)
class SetMetric(FrechetMetric):
    """A `FrechetMetric`'s rows and clip values for another reduction."""


@dataclass(frozen=True)
class KernelMetric(SetMetric):
    """Unbiased kernel distance over all samples, which is what the mean over random subsets estimates."""

    def score(self, pairs: Sequence[Pair], settings: Settings) -> Score:
        """The distance over complete pairs, recentred bootstrap over pairs, split-half of the real clips."""
        found = self._collect(pairs)
        generated, real = thinned(found.generated), thinned(found.real)
        if min(generated.total, real.total) < 2:
            return found.without_value("too_few_samples")
        sums = BlockSums.of(generated, real)
        value = sums.distance(np.ones(len(real)))
        interval = sums.bootstrap(settings.bootstrap, settings.seed)
        sides = ("generated", generated, found.generated), ("real", real, found.real)
        taken = [(side, few.total, all_.total) for side, few, all_ in sides]
        notes = tuple(f"{few} of {all_} {side} frames, evenly spaced" for side, few, all_ in taken if few < all_)
        return Score(value, interval, sums.split_half(settings.seed), found.clips, notes=notes)


def thinned(groups: Sequence[np.ndarray], most: int = MOST_ROWS) -> ClipRows:
    """The clips' (N_i, D) rows, or evenly spaced ones of each clip where there are more than `most` in all."""
    clips = ClipRows.of(groups)
    return clips.every(max(1, -(-clips.total // most)))


@dataclass(frozen=True)
class BlockSums:
    """Sums of the kernel between the frames of each two of K clips, so that a replicate costs no product of features.

    Attributes:
        generated, real: (K, K) within the sides, the pairs of a row with itself left out.
        across: (K, K), generated clips down, real ones across.
        sizes: (2, K) rows of each clip, generated and real.
    """

    generated: np.ndarray
    real: np.ndarray
    across: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(cls, generated: Sequence[np.ndarray], real: Sequence[np.ndarray]) -> BlockSums:
        """From the clips' (N_i, D) rows, N_i at least 1.

        Raises:
            InputError: NaN or infinity among the features, or a clip without rows.
        """
        x, y = ClipRows.of(generated), ClipRows.of(real)
        if not all(len(rows) and np.isfinite(rows).all() for side in (x, y) for rows in side):
            raise InputError("clips need features, all of them finite")
        return cls(_others(x), _others(y), _block_sums(x, y), np.array([x.sizes, y.sizes]))

    def distance(self, weights: np.ndarray) -> float:
        """The unbiased estimate where the pair of clips k counts weights[k] times; a row never meets its own copy."""
        return (
            self._within(self.generated, self.sizes[0], weights)
            + self._within(self.real, self.sizes[1], weights)
            - 2 * float(weights @ self.across @ weights) / float((weights @ self.sizes[0]) * (weights @ self.sizes[1]))
        )

    @staticmethod
    def _within(block: np.ndarray, sizes: np.ndarray, weights: np.ndarray) -> float:
        pairs = float((weights @ sizes) ** 2 - (weights**2) @ sizes)
        return float(weights @ block @ weights) / pairs

    def bootstrap(self, n: int, seed: int) -> Interval | None:
        """Interval over clips, recentred as that of the Fréchet distance; it may reach below 0, as the estimate may.

        Replicates of fewer than 2 frames a side are left out. None with fewer than 2 clips.
        """
        clips, rng = len(self.real), np.random.default_rng(seed)
        if clips < 2:
            return None
        drawn = (np.bincount(rng.integers(0, clips, clips), minlength=clips).astype(np.float64) for _ in range(n))
        enough = [counts for counts in drawn if min((self.sizes * (counts > 0)).sum(axis=1)) >= 2]
        if not enough:
            return None
        low, middle, high = np.quantile([self.distance(counts) for counts in enough], (0.025, 0.5, 0.975))
        estimate = self.distance(np.ones(clips))
        return min(estimate, float(estimate + low - middle)), max(estimate, float(estimate + high - middle))

    def split_half(self, seed: int, repeats: int = 10) -> float | None:
        """Mean distance between random halves of the real clips; None with fewer than 4."""
        clips, rng = len(self.real), np.random.default_rng(seed)
        if clips < 4:
            return None
        sizes, values = self.sizes[1], []
        for _ in range(repeats):
            first = (rng.permutation(clips) < clips // 2).astype(np.float64)
            second = 1 - first
            if min(first @ sizes, second @ sizes) < 2:
                return None
            across = float(first @ self.real @ second) / float((first @ sizes) * (second @ sizes))
            values.append(sum(self._within(self.real, sizes, half) for half in (first, second)) - 2 * across)
        return float(np.mean(values))


def _others(clips: ClipRows) -> np.ndarray:
    """Sums of the kernel between the clips of one side, (K, K), but for the pairs of a row with itself."""
    sums = _block_sums(clips, clips)
    for k, rows in enumerate(clips):
        rows = rows.astype(np.float64)
        sums[k, k] -= float(((np.einsum("ij,ij->i", rows, rows) / clips.dim + 1) ** 3).sum())
    return sums


def _block_sums(x: ClipRows, y: ClipRows) -> np.ndarray:
    """Sums of (a . b / D + 1)^3 between clips, (K, L). Those of `y` are read once for each few rows of `x`."""
    sums = np.zeros((len(x), len(y)))
    for left, down in x.pieces(ROWS_AT_ONCE):
        for right, across in y.pieces(ROWS_AT_ONCE):
            part = left @ right.T
            part /= x.dim
            part += 1
            part *= part * part
            # Rows come in the order of their clips, so a clip's are side by side.
            (clips, starts), (others, firsts) = (np.unique(names, return_index=True) for names in (down, across))
            sums[np.ix_(clips, others)] += np.add.reduceat(np.add.reduceat(part, starts, axis=0), firsts, axis=1)
    return sums


@dataclass(frozen=True)
class ExtrapolatedMetric(SetMetric):
    """A Fréchet distance extrapolated to infinitely many clips."""

    def score(self, pairs: Sequence[Pair], settings: Settings) -> Score:
        """Where the line meets the axis; the interval joins the draw of the clips and the line's own error."""
        found = self._collect(pairs)
        if min(found.generated.total, found.real.total) < 2:
            return found.without_value("too_few_samples")
        line = _line(found.real, found.generated, settings)
        if line is None:
            return found.without_value("too_few_clips")
        plain = float(line.distances[-1])
        n, seed = settings.frechet_bootstrap, settings.seed
        drawn = frechet_bootstrap(found.real, found.generated, n=n, seed=seed, estimate=plain)
        interval = joined(line, plain, drawn or (plain, plain))
        return Score(
            line.value, interval, _floor(found.real, settings), found.clips, notes=_line_notes(line, plain, found)
        )


def _line(real: ClipRows, generated: ClipRows, settings: Settings) -> Extrapolation | None:
    return extrapolate_frechet(real, generated, points=POINTS, repeats=REPEATS, seed=settings.seed)


def joined(line: Extrapolation, plain: float, drawn: Interval) -> Interval:
    """95% interval about the extrapolated value: on each side the root of the sum of both parts' squares.

    Args:
        line: gives the value and its standard error about the line.
        plain: the distance at full size.
        drawn: its interval over clips.
    """
    fit = TWO_SIDED_95 * line.error
    return line.value - float(np.hypot(fit, plain - drawn[0])), line.value + float(np.hypot(fit, drawn[1] - plain))


def _floor(real: ClipRows, settings: Settings) -> float | None:
    """One random half of the real clips against the other, extrapolated; None where a half has too few clips."""
    order = np.random.default_rng(settings.seed).permutation(len(real))
    halves = [real.select(part) for part in np.array_split(order, 2)]
    if min(map(len, halves)) < MIN_GROUPS:
        return None
    line = _line(halves[0], halves[1], settings)
    return line.value if line else None


def _line_notes(line: Extrapolation, plain: float, found: Collected) -> tuple[str, ...]:
    """The line in words, and a warning where its smallest parts have fewer samples than dimensions."""
    notes = [
        f"{plain:.6g} at full size; line through {len(line.shares)} shares of the clips, from {line.shares[0]:.2f} on; "
        f"standard error of the extrapolated value from its scatter: {line.error:.3g}"
    ]
    width = found.real.dim
    fewest = int(line.shares[0] * min(found.generated.total, found.real.total))
    if fewest < width:
        notes.append(
            f"the smallest parts hold {fewest} samples for {width} dimensions: there the bias does not fall as 1 / N, "
            "and the line removes only some of it"
        )
    return tuple(notes)
