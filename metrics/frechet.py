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

Rows that come in pieces are turned into that triangle piece by piece and in place, so that any number of them takes the
memory of a few hundred: half of a D x D matrix a side, and one whole for the product.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..core.errors import InputError
from .clip_rows import ClipRows
from .scatter_root import BLOCK, RunningRoot, Summary, reserved, summarise, summary_distance

# Fewer groups would leave a half with a single clip, whose frames say nothing about how clips differ.
SPLIT_HALF_MIN_GROUPS = 4


def check_rows(x: np.ndarray, name: str) -> np.ndarray:
    """`x` as (N, D) of whatever real numbers it holds.

    Raises:
        InputError: not two-dimensional, not real numbers, or not all finite.
    """
    x = np.asarray(x)
    if x.ndim != 2 or x.shape[1] == 0:
        raise InputError(f"{name} must be (N, D) features, not of shape {x.shape}")
    if x.dtype.kind not in "fiu":
        raise InputError(f"{name} must hold real numbers, not {x.dtype}")
    if not np.isfinite(x).all():
        bad = int((~np.isfinite(x).all(axis=1)).sum())
        raise InputError(f"{name}: {bad} of {len(x)} rows hold NaN or infinity")
    return x


def as_rows(x: np.ndarray, name: str) -> np.ndarray:
    """`x` as float64 (N, D), a copy.

    Raises:
        InputError: as `check_rows`.
    """
    return check_rows(x, name).astype(np.float64)


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
    """A sample seen in pieces: mergeable across shards, of fixed size, without loss of digits.

    Up to 512 rows are kept as they are. Beyond, they are turned into count, mean and the triangular root of their
    scatter, 512 at a time and in place. Keeping the root instead of the scatter itself makes merging as exact as one
    pass even where the covariance is singular. A state holds D x D and 512 x D float64 numbers, however many rows.

    Args:
        dim: number of feature dimensions.
    """

    capacity = BLOCK

    def __init__(self, dim: int) -> None:
        if dim < 1:
            raise InputError(f"features have at least one dimension, not {dim}")
        self.dim = dim
        self._reduced: RunningRoot | None = None
        self._block = np.empty((self.capacity, dim))
        self._waiting = 0

    @property
    def n(self) -> int:
        """Rows seen."""
        return self._waiting + (self._reduced.n if self._reduced else 0)

    def update(self, x: np.ndarray) -> None:
        """Adds (N, dim) features; N may be 0.

        Raises:
            InputError: another shape, NaN or infinity; the state is then unchanged.
        """
        x = check_rows(x, "x")
        self._same_dim(x.shape[1])
        while len(x):
            if self._waiting == self.capacity:
                self._reduce()
            rows, x = np.split(x, [self.capacity - self._waiting])
            self._block[self._waiting : self._waiting + len(rows)] = rows
            self._waiting += len(rows)

    def merge(self, other: FrechetState) -> FrechetState:
        """Adds all that `other` has seen, which stays as it is; returns this state.

        Raises:
            InputError: features of another dimension.
        """
        self._same_dim(other.dim)
        rows = other._block[: other._waiting].copy()
        if other._reduced:
            root = other._reduced.root.copy() if other is self else other._reduced.root
            self._root().join(Summary(other._reduced.n, other._reduced.mean, root))
        self.update(rows)
        return self

    def summary(self) -> Summary:
        """Count, mean and root of all rows seen; the root may be a view that changes with the state.

        Raises:
            InputError: there are none.
        """
        if self.n == 0:
            raise InputError("no features were added")
        if self._reduced is None:
            return summarise(self._block[: self._waiting])
        if self._waiting:
            self._reduce()
        return self._reduced.summary()

    @staticmethod
    def distance(a: FrechetState, b: FrechetState) -> float:
        """Fréchet distance between two states; see `frechet_distance`."""
        left, right = a.summary(), b.summary()
        large = a._reduced is not None or b._reduced is not None
        return summary_distance(left, right, reserved(a.dim) if large else None)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The state as float64 arrays: n () of reduced rows, mean (D,), root (K, D), rows (L, D) not yet reduced."""
        reduced = self._reduced
        return {
            "n": np.array(reduced.n if reduced else 0),
            "mean": reduced.mean.copy() if reduced else np.zeros(self.dim),
            "root": reduced.root.copy() if reduced else np.empty((0, self.dim)),
            "rows": self._block[: self._waiting].copy(),
        }

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
        if len(root) > len(mean) or not np.array_equal(root, np.triu(root)):
            raise InputError(f"not a Fréchet state: its root {root.shape} is no triangle")
        state = cls(len(mean))
        if n > 0:
            reduced = state._root()
            reduced.n, reduced.mean = int(n), mean.astype(np.float64)
            reduced.root[: len(root)] = as_rows(root, "root")
        state.update(rows)
        return state

    def _same_dim(self, dim: int) -> None:
        if dim != self.dim:
            raise InputError(f"features of {dim} dimensions, not {self.dim}")

    def _root(self) -> RunningRoot:
        self._reduced = self._reduced or RunningRoot(self.dim)
        return self._reduced

    def _reduce(self) -> None:
        self._root().add(self._block[: self._waiting])
        self._waiting = 0


def distance(a: FrechetState, b: FrechetState) -> float:
    """Fréchet distance between two states; see `frechet_distance`."""
    return FrechetState.distance(a, b)


def clips_distance(x: Sequence[np.ndarray], y: Sequence[np.ndarray]) -> float:
    """`frechet_distance` between all rows of one set of clips and all of another, in memory that does not grow.

    Args:
        x: (N_i, D) features of each clip, as arrays or as `ClipRows`, of which one clip is read at a time.
        y: the same of the other set.

    Raises:
        InputError: dimensions differ, fewer than 2 rows a side, NaN or infinity.
    """
    states = []
    for clips in map(ClipRows.of, (x, y)):
        states.append(FrechetState(clips.dim))
        for rows in clips:
            states[-1].update(rows)
    return distance(*states)


def split_half(features_by_group: Sequence[np.ndarray], seed: int = 0, repeats: int = 10) -> float | None:
    """Mean Fréchet distance between random halves of one set: what two samples of the same source score.

    Groups (clips) are never split, so frames of one clip do not end up on both sides. The halves hold half of the
    samples, so for a distance biased by sample size this is an upper mark, not the floor at the full size.

    Args:
        features_by_group: (N_i, D) features of each clip, arrays or `ClipRows`; clips without rows are left out.
        seed: of the random halves.
        repeats: number of random splits.

    Returns:
        The mean, or None with fewer than 4 clips: a half with a single clip has no spread between clips, which the
        distance would read as a difference. Report it with reason "too_few_clips".
    """
    groups = ClipRows.of(features_by_group)
    groups = groups.select(np.flatnonzero(groups.sizes))
    if len(groups) < SPLIT_HALF_MIN_GROUPS:
        return None
    rng, middle = np.random.default_rng(seed), len(groups) // 2
    values = []
    for _ in range(repeats):
        order = rng.permutation(len(groups))
        values.append(clips_distance(groups.select(order[:middle]), groups.select(order[middle:])))
    return float(np.mean(values))
