"""Fréchet distance between two sets of feature vectors, exact for any number of samples, and in one streaming pass.

With means m and unbiased covariances S of the two sets,

    d^2 = |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))

(D. Dowson and B. Landau, "The Fréchet distance between multivariate normal distributions", 1982; M. Heusel et al.,
"GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", 2017). The literature reports d^2.

The square root of a product of covariances loses half the digits where a covariance is singular, which it always is
with fewer samples than dimensions, and costs a 2048 x 2048 Schur form for Inception features. Neither is needed. Take
any A, B with A^T A = S1 and B^T B = S2, for instance the centred rows over sqrt(n - 1). The non-zero eigenvalues of
S1 S2 = A^T A B^T B are those of (A B^T)(A B^T)^T, the squared singular values of A B^T. So

    tr (S1 S2)^(1/2) = sum of the singular values of A B^T,

a matrix with as many rows and columns as there are samples. With more samples than dimensions A is replaced by the
triangle of its QR decomposition, which leaves A^T A as it is, so the matrix is never larger than D x D. Singular values
carry an absolute error near the machine's epsilon times the largest one, singular or not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from ..core.errors import InputError

# Fewer groups would leave a half with a single clip, whose frames say nothing about how clips differ.
SPLIT_HALF_MIN_GROUPS = 4
# Rows that a state keeps unreduced at least; more only matters for speed where features are short.
MIN_CAPACITY = 512
# Share of the distance's scale up to which a negative result is rounding.
ROUND_OFF = 1e-9
# Below this share of the terms a difference of them has no correct digit.
RESOLUTION = 64 * np.finfo(np.float64).eps


@dataclass(frozen=True)
class Summary:
    """All that the distance needs of a sample.

    Attributes:
        n: number of rows.
        mean: (D,).
        root: (K, D), K at most D, with root^T root = sum over rows of (x - mean)(x - mean)^T.
    """

    n: int
    mean: np.ndarray
    root: np.ndarray


def as_rows(x: np.ndarray, name: str) -> np.ndarray:
    """`x` as float64 (N, D).

    Raises:
        InputError: not two-dimensional, not real numbers, or not all finite.
    """
    x = np.asarray(x)
    if x.ndim != 2 or x.shape[1] == 0:
        raise InputError(f"{name} must be (N, D) features, not of shape {x.shape}")
    if x.dtype.kind not in "fiu":
        raise InputError(f"{name} must hold real numbers, not {x.dtype}")
    x = x.astype(np.float64)
    if not np.isfinite(x).all():
        bad = int((~np.isfinite(x).all(axis=1)).sum())
        raise InputError(f"{name}: {bad} of {len(x)} rows hold NaN or infinity")
    return x


def _triangle(root: np.ndarray) -> np.ndarray:
    """The same second moment in at most D rows."""
    return np.asarray(np.linalg.qr(root, mode="r")) if root.shape[0] > root.shape[1] else root


def summarise(rows: np.ndarray) -> Summary:
    """Summary of float64 (N, D) rows, N at least 1."""
    mean = rows.mean(axis=0)
    return Summary(len(rows), mean, _triangle(rows - mean))


def combine(a: Summary, b: Summary) -> Summary:
    """Summary of both samples together: scatters add, and the gap between the means is one more row of the root."""
    n, gap = a.n + b.n, b.mean - a.mean
    between = gap * math.sqrt(a.n * b.n / n)
    return Summary(n, a.mean + gap * (b.n / n), _triangle(np.vstack([a.root, b.root, between])))


def nuclear_norm(matrix: np.ndarray) -> float:
    """Sum of the singular values.

    By NumPy throughout, never SciPy: each brings its own BLAS threads, and those that have just finished a product
    would spin beside the other's decomposition, at up to three times the CPU time.
    """
    return float(np.linalg.svd(matrix, compute_uv=False).sum())


def root_of_scatter(scatter: np.ndarray) -> np.ndarray:
    """A root of a (D, D) scatter matrix where the rows themselves are gone: Cholesky, or by eigenvectors when singular.

    Directions without spread come back with about 1e-8 of the largest deviation, the price of having squared.
    """
    try:
        return np.linalg.cholesky(scatter).T
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(scatter)
        return np.sqrt(np.clip(values, 0.0, None))[:, None] * vectors.T


def without_round_off(value: float, scale: float) -> float:
    """`value`, or 0.0 where it is nothing but rounding of the terms that it is the difference of.

    The formula itself is never negative.
    """
    if value < -ROUND_OFF * scale:
        raise ArithmeticError(f"Fréchet distance {value} at scale {scale}: more than rounding")
    return 0.0 if value < RESOLUTION * scale else value


def summary_distance(a: Summary, b: Summary) -> float:
    """Fréchet distance between two summaries.

    Raises:
        InputError: dimensions differ, fewer than 2 rows, or numbers too large to square.
    """
    if a.mean.shape != b.mean.shape:
        raise InputError(f"features of {a.mean.shape[0]} and {b.mean.shape[0]} dimensions")
    if min(a.n, b.n) < 2:
        raise InputError(f"a covariance needs at least 2 rows on each side, not {a.n} and {b.n}")
    left, right = a.root / math.sqrt(a.n - 1), b.root / math.sqrt(b.n - 1)
    with np.errstate(over="ignore"):
        scale = float(np.sum((a.mean - b.mean) ** 2) + np.sum(left**2) + np.sum(right**2))
    if not math.isfinite(scale):
        raise InputError("features are too large: their squares overflow")
    return without_round_off(scale - 2.0 * nuclear_norm(left @ right.T), scale)


def frechet_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Fréchet distance between two sets of features, in squared feature units.

    Args:
        x: (N, D) features, N at least 2.
        y: (M, D) features, M at least 2.

    Raises:
        InputError: other shapes, fewer than 2 rows, NaN or infinity.
    """
    return summary_distance(summarise(_checked(x, "x")), summarise(_checked(y, "y")))


def _checked(x: np.ndarray, name: str) -> np.ndarray:
    rows = as_rows(x, name)
    if len(rows) < 2:
        raise InputError(f"{name}: a covariance needs at least 2 rows, not {len(rows)}")
    return rows


class FrechetState:
    """A sample seen in pieces: mergeable across shards, of bounded size, without loss of digits.

    Rows are kept as they are while there are few. Beyond, they are reduced to count, mean and the triangular root of
    their scatter. Keeping the root instead of the scatter itself makes merging as exact as one pass even where the
    covariance is singular. Between calls a state holds at most D + max(D, 512) rows of D float64 numbers.

    Args:
        dim: number of feature dimensions.
    """

    def __init__(self, dim: int) -> None:
        if dim < 1:
            raise InputError(f"features have at least one dimension, not {dim}")
        self.dim = dim
        self._reduced: Summary | None = None
        self._rows: list[np.ndarray] = []
        self._waiting = 0

    @property
    def capacity(self) -> int:
        """Rows beyond which the state is reduced."""
        return max(self.dim, MIN_CAPACITY)

    @property
    def n(self) -> int:
        """Rows seen."""
        return self._waiting + (self._reduced.n if self._reduced else 0)

    def update(self, x: np.ndarray) -> None:
        """Adds (N, dim) features; N may be 0.

        Raises:
            InputError: another shape, NaN or infinity; the state is then unchanged.
        """
        rows = as_rows(x, "x")
        self._same_dim(rows.shape[1])
        for start in range(0, len(rows), self.capacity):
            # A copy, because a view that waits here would keep the whole of `rows` alive.
            self._add(rows[start : start + self.capacity].copy())

    def merge(self, other: FrechetState) -> FrechetState:
        """Adds all that `other` has seen, which stays as it is; returns this state.

        Raises:
            InputError: features of another dimension.
        """
        self._same_dim(other.dim)
        reduced, blocks = other._reduced, list(other._rows)
        if reduced:
            self._reduced = combine(self._reduced, reduced) if self._reduced else reduced
        for block in blocks:
            self._add(block)
        return self

    def summary(self) -> Summary:
        """Count, mean and root of all rows seen.

        Raises:
            InputError: there are none.
        """
        parts = [self._reduced] if self._reduced else []
        if self._rows:
            parts.append(summarise(np.concatenate(self._rows)))
        if not parts:
            raise InputError("no features were added")
        return reduce(combine, parts)

    @staticmethod
    def distance(a: FrechetState, b: FrechetState) -> float:
        """Fréchet distance between two states; see `frechet_distance`."""
        return summary_distance(a.summary(), b.summary())

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The state as float64 arrays: n () of reduced rows, mean (D,), root (K, D), rows (L, D) not yet reduced."""
        reduced = self._reduced or Summary(0, np.zeros(self.dim), np.empty((0, self.dim)))
        rows = np.concatenate([np.empty((0, self.dim)), *self._rows])
        return {"n": np.array(reduced.n), "mean": reduced.mean, "root": reduced.root, "rows": rows}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> FrechetState:
        """Inverse of `to_arrays`.

        Raises:
            InputError: an array is missing or has another shape.
        """
        try:
            n, mean, root, rows = (np.asarray(arrays[name]) for name in ("n", "mean", "root", "rows"))
        except KeyError as error:
            raise InputError(f"a stored Fréchet state has no array {error}") from error
        if mean.ndim != 1 or n.ndim != 0 or root.ndim != 2 or root.shape[1:] != mean.shape:
            raise InputError(f"not a Fréchet state: n {n.shape}, mean {mean.shape}, root {root.shape}")
        state = cls(len(mean))
        if n > 0:
            state._reduced = Summary(int(n), mean.astype(np.float64), as_rows(root, "root"))
        state.update(rows)
        return state

    def _same_dim(self, dim: int) -> None:
        if dim != self.dim:
            raise InputError(f"features of {dim} dimensions, not {self.dim}")

    def _add(self, rows: np.ndarray) -> None:
        self._rows.append(rows)
        self._waiting += len(rows)
        if self._waiting > self.capacity:
            self._reduced, self._rows, self._waiting = self.summary(), [], 0


def distance(a: FrechetState, b: FrechetState) -> float:
    """Fréchet distance between two states; see `frechet_distance`."""
    return FrechetState.distance(a, b)


def split_half(features_by_group: Sequence[np.ndarray], seed: int = 0, repeats: int = 10) -> float | None:
    """Mean Fréchet distance between random halves of one set: what two samples of the same source score.

    Groups (clips) are never split, so frames of one clip do not end up on both sides. The halves hold half of the
    samples, so for a distance biased by sample size this is an upper mark, not the floor at the full size.

    Args:
        features_by_group: (N_i, D) features of each clip; clips without rows are left out.
        seed: of the random halves.
        repeats: number of random splits.

    Returns:
        The mean, or None with fewer than 4 clips: a half with a single clip has no spread between clips, which the
        distance would read as a difference. Report it with reason "too_few_clips".
    """
    groups = [rows for rows in features_by_group if len(rows)]
    if len(groups) < SPLIT_HALF_MIN_GROUPS:
        return None
    rng, middle = np.random.default_rng(seed), len(groups) // 2
    values = []
    for _ in range(repeats):
        order = rng.permutation(len(groups))
        halves = [np.concatenate([groups[i] for i in part]) for part in (order[:middle], order[middle:])]
        values.append(frechet_distance(*halves))
    return float(np.mean(values))
