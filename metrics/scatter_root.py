"""What a Fréchet distance needs of a sample, its count, mean and a root of its scatter, and the distance made of two.

The mathematics: `frechet`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.linalg import get_lapack_funcs

from ..core.errors import InputError

# Rows that are turned into a triangle at once; fewer of them in all are kept as they are.
BLOCK = 512
_gesdd, _tpqrt = get_lapack_funcs(("gesdd", "tpqrt"), dtype=np.float64)
# Columns that LAPACK treats together.
PANEL = 32
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


def _triangle(root: np.ndarray) -> np.ndarray:
    """The same second moment in at most D rows."""
    return np.asarray(np.linalg.qr(root, mode="r")) if root.shape[0] > root.shape[1] else root


def summarise(rows: np.ndarray) -> Summary:
    """Summary of float64 (N, D) rows, N at least 1."""
    mean = rows.mean(axis=0)
    return Summary(len(rows), mean, _triangle(rows - mean))


def nuclear_norm(matrix: np.ndarray) -> float:
    """Sum of the singular values.

    By NumPy, as the product before it: SciPy brings BLAS threads of its own, and those that have just finished a
    product would spin beside the other's decomposition, of a small matrix at up to three times the CPU time.
    """
    return float(np.linalg.svd(matrix, compute_uv=False).sum())


def reserved(dim: int) -> np.ndarray:
    """Room for the product of two roots, (dim^2,), all of it taken from the system.

    So the peak does not wait for the rows to become many: what a large set needs shows with a small one.
    """
    return np.full(dim * dim, 0.0)


def nuclear_norm_in_place(matrix: np.ndarray) -> float:
    """Sum of the singular values of a float64 (K, L) array in C order, which is overwritten: no copy is made."""
    *_, values, _, info = _gesdd(matrix.T, compute_uv=0, overwrite_a=1)
    if info:
        raise np.linalg.LinAlgError("SVD did not converge")
    return float(values.sum())


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


def summary_distance(a: Summary, b: Summary, room: np.ndarray | None = None) -> float:
    """Fréchet distance between two summaries.

    Args:
        a, b: the two samples.
        room: from `reserved`, overwritten; with it nothing else of the roots' size is allocated.

    Raises:
        InputError: dimensions differ, fewer than 2 rows, or numbers too large to square.
    """
    if a.mean.shape != b.mean.shape:
        raise InputError(f"features of {a.mean.shape[0]} and {b.mean.shape[0]} dimensions")
    if min(a.n, b.n) < 2:
        raise InputError(f"a covariance needs at least 2 rows on each side, not {a.n} and {b.n}")
    with np.errstate(over="ignore"):
        gap = float(np.sum((a.mean - b.mean) ** 2))
        spreads = [float(np.einsum("ij,ij->j", side.root, side.root).sum()) for side in (a, b)]
    if not math.isfinite(gap + sum(spreads)):
        raise InputError("features are too large: their squares overflow")
    scale = gap + spreads[0] / (a.n - 1) + spreads[1] / (b.n - 1)
    if room is None:
        cross = nuclear_norm(a.root @ b.root.T)
    else:
        product = room[: len(a.root) * len(b.root)].reshape(len(a.root), len(b.root))
        cross = nuclear_norm_in_place(np.matmul(a.root, b.root.T, out=product))
    return without_round_off(scale - 2.0 * cross / math.sqrt((a.n - 1) * (b.n - 1)), scale)


class RunningRoot:
    """Count, mean and root of rows that come in pieces, each of them with a weight.

    The root is a D x D triangle from the start, of which only the upper half is ever written. Turning rows into it by
    QR, where a sum of products would be cheaper, leaves all digits also where the covariance is singular.

    Args:
        dim: number of feature dimensions.
    """

    def __init__(self, dim: int) -> None:
        self.n, self.mean = 0, np.zeros(dim)
        self.root = np.zeros((dim, dim), order="F")

    def add(self, rows: np.ndarray, weights: np.ndarray | None = None) -> None:
        """Adds float64 (N, D) rows, which are overwritten; as often as their whole `weights`, (N,), say."""
        n = len(rows) if weights is None else int(weights.sum())
        mean = rows.mean(axis=0) if weights is None else weights @ rows / n
        rows -= mean
        if weights is not None:
            rows *= np.sqrt(weights)[:, None]
        self.join(Summary(n, mean, rows))

    def join(self, other: Summary) -> None:
        """Adds another sample: scatters add, and the gap between the means is one more row of the root."""
        n, gap = self.n + other.n, other.mean - self.mean
        self._turn(other.root[:BLOCK], gap * math.sqrt(self.n * other.n / n))
        for start in range(BLOCK, len(other.root), BLOCK):
            self._turn(other.root[start : start + BLOCK])
        self.n, self.mean = n, self.mean + gap * (other.n / n)

    def _turn(self, rows: np.ndarray, *more: np.ndarray) -> None:
        """Takes rows into the triangle, in place."""
        block = np.vstack([rows, *more]).T.copy().T  # columns in one piece each, as LAPACK wants them
        self.root = _tpqrt(0, min(PANEL, len(self.mean)), self.root, block, overwrite_a=1, overwrite_b=1)[0]

    def summary(self) -> Summary:
        """Count, mean and root without the empty rows that few samples leave at its end; a view, not a copy."""
        norms = np.sqrt(np.einsum("ij,ij->i", self.root, self.root))
        filled = np.flatnonzero(norms > np.finfo(np.float64).eps * float(np.sqrt((norms**2).sum())))
        return Summary(self.n, self.mean, self.root[: filled[-1] + 1 if len(filled) else 0])
