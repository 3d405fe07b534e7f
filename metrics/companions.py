"""Two reductions of clips' feature rows beside the Fréchet distance: the kernel distance, and extrapolation.

Both are defined in `kid`. Here they become metrics: over complete pairs of clips, with intervals for which clips are
drawn again, never frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..core.errors import InputError
from .base import ClipScore, FrechetMetric, Pair, Score, Settings, main_reason, usable
from .intervals import Interval, frechet_bootstrap
from .kid import MIN_GROUPS, Extrapolation, extrapolate_frechet

Groups = list[np.ndarray]

# Rows of a side that a kernel distance takes at most: beyond, evenly spaced frames of each clip stand for all.
MOST_ROWS = 10_000
# Rows of a kernel matrix held at once.
ROWS_AT_ONCE = 512
# Shares of the clips that the line goes through, and draws at each.
POINTS, REPEATS = 10, 2
# Of the normal distribution.
TWO_SIDED_95 = 1.959964


@dataclass(frozen=True)
class Collected:
    """What a set-wise metric works on: the score of every pair, and the rows of the complete ones."""

    clips: list[ClipScore]
    generated: Groups
    real: Groups

    def without_value(self, reason: str) -> Score:
        """No number: for want of complete pairs, for which they say why, or for the reason given."""
        return Score(None, None, None, self.clips, reason=reason if self.real else main_reason(self.clips) or reason)


@dataclass(frozen=True)
class SetMetric(FrechetMetric):
    """A `FrechetMetric`'s rows and clip values for another reduction."""

    def _collect(self, pairs: Sequence[Pair]) -> Collected:
        checked = [(pair, usable(pair, self.spec)) for pair in pairs]
        whole = [pair for pair, rejected in checked if rejected is None]
        generated, real = [self._rows(pair.generated) for pair in whole], [self._rows(pair.real) for pair in whole]
        scored = iter([self._clip(*triple) for triple in zip(whole, generated, real, strict=True)])
        return Collected([rejected or next(scored) for _, rejected in checked], generated, real)


@dataclass(frozen=True)
class KernelMetric(SetMetric):
    """Unbiased kernel distance over all samples, which is what the mean over random subsets estimates."""

    def score(self, pairs: Sequence[Pair], settings: Settings) -> Score:
        """The distance over complete pairs, recentred bootstrap over pairs, split-half of the real clips."""
        found = self._collect(pairs)
        generated, real = thinned(found.generated), thinned(found.real)
        if min(_count(generated), _count(real)) < 2:
            return found.without_value("too_few_samples")
        sums = BlockSums.of(generated, real)
        value = sums.distance(np.ones(len(real)))
        interval = sums.bootstrap(settings.bootstrap, settings.seed)
        taken = [(side, _count(few), _count(all_)) for side, few, all_ in _sides(found, generated, real)]
        notes = tuple(f"{few} of {all_} {side} frames, evenly spaced" for side, few, all_ in taken if few < all_)
        return Score(value, interval, sums.split_half(settings.seed), found.clips, notes=notes)


def _sides(found: Collected, generated: Groups, real: Groups) -> tuple[tuple[str, Groups, Groups], ...]:
    return ("generated", generated, found.generated), ("real", real, found.real)


def _count(groups: Groups) -> int:
    return sum(map(len, groups))


def thinned(groups: Groups, most: int = MOST_ROWS) -> Groups:
    """The clips' (N_i, D) rows, or evenly spaced ones of each clip where there are more than `most` in all."""
    step = max(1, -(-_count(groups) // most))
    return [rows[::step] for rows in groups]


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
    def of(cls, generated: Groups, real: Groups) -> BlockSums:
        """From the clips' (N_i, D) rows, N_i at least 1.

        Raises:
            InputError: NaN or infinity among the features, or a clip without rows.
        """
        if any(len(rows) == 0 or not np.isfinite(rows).all() for rows in (*generated, *real)):
            raise InputError("clips need features, all of them finite")
        sizes = np.array([[len(rows) for rows in side] for side in (generated, real)])
        x, y = (np.concatenate(side).astype(np.float64) for side in (generated, real))
        sums = [
            _block_sums(*pair) for pair in (((x, sizes[0]),) * 2, ((y, sizes[1]),) * 2, ((x, sizes[0]), (y, sizes[1])))
        ]
        for block, rows, counts in ((sums[0], x, sizes[0]), (sums[1], y, sizes[1])):
            itself = (np.einsum("ij,ij->i", rows, rows) / rows.shape[1] + 1) ** 3
            block[np.diag_indices(len(counts))] -= np.add.reduceat(itself, _starts(counts))
        return cls(sums[0], sums[1], sums[2], sizes)

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


def _starts(sizes: np.ndarray) -> np.ndarray:
    return np.cumsum(sizes) - sizes


def _block_sums(left: tuple[np.ndarray, np.ndarray], right: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Sums of (a . b / D + 1)^3 between clips, (K, L), from each side's rows (N, D) and how many each clip has."""
    (x, x_sizes), (y, y_sizes) = left, right
    clip = np.repeat(np.arange(len(x_sizes)), x_sizes)
    sums = np.zeros((len(x_sizes), len(y_sizes)))
    for start in range(0, len(x), ROWS_AT_ONCE):
        part = x[start : start + ROWS_AT_ONCE] @ y.T
        part /= x.shape[1]
        part += 1
        part *= part * part
        np.add.at(sums, clip[start : start + ROWS_AT_ONCE], np.add.reduceat(part, _starts(y_sizes), axis=1))
    return sums


@dataclass(frozen=True)
class ExtrapolatedMetric(SetMetric):
    """A Fréchet distance extrapolated to infinitely many clips."""

    def score(self, pairs: Sequence[Pair], settings: Settings) -> Score:
        """Where the line meets the axis; the interval joins the draw of the clips and the line's own error."""
        found = self._collect(pairs)
        if min(_count(found.generated), _count(found.real)) < 2:
            return found.without_value("too_few_samples")
        line = _line(found.real, found.generated, settings)
        if line is None:
            return found.without_value("too_few_clips")
        plain = float(line.distances[-1])
        drawn = frechet_bootstrap(found.real, found.generated, n=settings.frechet_bootstrap, seed=settings.seed)
        interval = joined(line, plain, drawn or (plain, plain))
        return Score(
            line.value, interval, _floor(found.real, settings), found.clips, notes=_line_notes(line, plain, found)
        )


def _line(real: Groups, generated: Groups, settings: Settings) -> Extrapolation | None:
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


def _floor(real: Groups, settings: Settings) -> float | None:
    """One random half of the real clips against the other, extrapolated; None where a half has too few clips."""
    order = np.random.default_rng(settings.seed).permutation(len(real))
    halves = [[real[i] for i in part] for part in np.array_split(order, 2)]
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
    width = found.real[0].shape[1]
    fewest = int(line.shares[0] * min(_count(found.generated), _count(found.real)))
    if fewest < width:
        notes.append(
            f"the smallest parts hold {fewest} samples for {width} dimensions: there the bias does not fall as 1 / N, "
            "and the line removes only some of it"
        )
    return tuple(notes)
