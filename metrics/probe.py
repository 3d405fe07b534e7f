"""What can be read out of vectors, and how they lie: probes, read-outs, neighbours, shares of variance.

Nothing here knows where vectors come from; DICE-Talk's emotion priors are what it was written for. All are fitted on
one set of rows and judged on another, which the caller keeps apart.

- A *linear probe* (G. Alain and Y. Bengio, "Understanding intermediate layers using linear classifier probes", 2016)
  is a multinomial logistic regression: what it cannot tell apart, no linear map after the vectors can.
- A *read-out* is a kernel ridge regression (C. Saunders et al., 1998) with a Gaussian kernel. It is not linear, so that
  what it says along a straight line of vectors is a finding and not a consequence of the line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.spatial.distance import cdist, pdist
from scipy.special import logsumexp

from ..core.errors import InputError

MOST_STEPS = 500
FLAT = 1e-12  # a column whose deviation is below that part of its size says nothing


@dataclass(frozen=True)
class Scaler:
    """Columns to mean 0 and deviation 1; columns that do not vary to 0."""

    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray) -> Scaler:
        """Of rows (N, D)."""
        mean, deviation = rows.mean(axis=0), rows.std(axis=0)
        return cls(mean, np.where(deviation > FLAT * (1 + np.abs(mean)), deviation, np.inf))

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """(N, D) to (N, D)."""
        return (rows - self.mean) / self.deviation


@dataclass(frozen=True)
class Probe:
    """A fitted linear probe.

    Attributes:
        classes: their names in order, (C,).
        weights, bias: (D, C) and (C,), for standardised rows.
    """

    classes: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    scaler: Scaler

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """The most probable class of each row, (N,)."""
        return self.classes[(self.scaler(rows) @ self.weights + self.bias).argmax(axis=1)]

    def accuracy(self, rows: np.ndarray, labels: Sequence[str] | np.ndarray) -> float:
        """Part of rows whose class is predicted, 0..1. Raises InputError without rows."""
        if not len(rows):
            raise InputError("there are no rows to judge a probe on")
        return float((self.predict(np.asarray(rows, np.float64)) == np.asarray(labels)).mean())


def linear_probe(rows: np.ndarray, labels: Sequence[str] | np.ndarray, *, penalty: float = 1.0) -> Probe:
    """Multinomial logistic regression on standardised rows; the loss is convex, so that there is one solution.

    Minimises sum of -log p(label) + penalty / 2 |weights|^2, the bias free, as scikit-learn does for C = 1 / penalty.

    Args:
        rows: (N, D).
        labels: the class of each row.

    Raises:
        InputError: not one label a row, fewer than two classes, or rows that are not finite.
    """
    given, names = np.asarray(rows, dtype=np.float64), np.asarray(labels)
    if given.ndim != 2 or names.shape != given.shape[:1] or not np.isfinite(given).all():
        raise InputError(f"a probe takes finite rows (N, D) and a label each, not {given.shape} with {names.shape}")
    classes, place = np.unique(names, return_inverse=True)
    if len(classes) < 2:
        raise InputError(f"a probe tells classes apart, and there is {len(classes)}")
    scaler = Scaler.of(given)
    x, wanted = np.c_[scaler(given), np.ones(len(given))], np.eye(len(classes))[place]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        theta = flat.reshape(x.shape[1], -1)
        logits = x @ theta
        logs = logits - logsumexp(logits, axis=1, keepdims=True)
        kept = np.r_[theta[:-1], np.zeros((1, theta.shape[1]))]
        slope = x.T @ (np.exp(logs) - wanted) + penalty * kept
        return float(-(logs * wanted).sum() + penalty / 2 * (kept**2).sum()), slope.ravel()

    options = {"maxiter": MOST_STEPS, "gtol": 1e-6, "ftol": 1e-12}
    found = minimize(loss, np.zeros(x.shape[1] * len(classes)), jac=True, method="L-BFGS-B", options=options)
    theta = found.x.reshape(x.shape[1], -1)
    return Probe(classes, theta[:-1], theta[-1], scaler)


@dataclass(frozen=True)
class ReadOut:
    """A fitted kernel ridge regression; `width` is the kernel's, `centres` (N, D), `dual` (N, K), `offset` (K,)."""

    centres: np.ndarray
    dual: np.ndarray
    offset: np.ndarray
    width: float

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """(M, D) to (M, K)."""
        return _kernel(np.asarray(rows, np.float64), self.centres, self.width) @ self.dual + self.offset

    def explained(self, rows: np.ndarray, targets: np.ndarray) -> float:
        """R^2 over all numbers of the targets together, about their column means; negative where worse than those."""
        wrong = ((self(rows) - targets) ** 2).sum()
        return float(1 - wrong / ((targets - targets.mean(axis=0)) ** 2).sum())


def read_out(rows: np.ndarray, targets: np.ndarray, *, penalty: float = 0.1, width: float | None = None) -> ReadOut:
    """Kernel ridge regression with exp(-|x - y|^2 / (2 width^2)); far from all rows it says their targets' mean.

    Args:
        rows: (N, D).
        targets: (N, K).
        width: None takes the median distance of two rows.

    Raises:
        InputError: unequal lengths, or all rows equal.
    """
    x, y = np.asarray(rows, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise InputError(f"a read-out takes rows (N, D) and targets (N, K), not {x.shape} and {y.shape}")
    width = float(np.median(pdist(x))) if width is None else width
    if not width > 0:
        raise InputError("all rows are equal, so that nothing can be read out of them")
    offset = y.mean(axis=0)
    dual = np.linalg.solve(_kernel(x, x, width) + penalty * np.eye(len(x)), y - offset)
    return ReadOut(x, dual, offset, width)


def _kernel(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    return np.exp(-cdist(a, b, "sqeuclidean") / (2 * width**2))


def neighbour_agreement(
    rows: np.ndarray,
    labels: Sequence[str] | np.ndarray,
    *,
    within: Sequence[str] | np.ndarray | None = None,
    k: int = 5,
) -> tuple[float, float]:
    """How often a row's nearest others carry its label.

    Args:
        rows: (N, D).
        labels: (N,).
        within: (N,); neighbours come only from rows that share this one. None: from all.
        k: neighbours of a row; rows with fewer candidates are left out.

    Returns:
        (mean part of the k neighbours with the row's label, the same for candidates drawn at random: chance).

    Raises:
        InputError: no row has k candidates.
    """
    names = np.asarray(labels)
    groups = np.zeros(len(names), int) if within is None else np.asarray(within)
    allowed = (groups[:, None] == groups[None]) & ~np.eye(len(names), dtype=bool)
    judged = allowed.sum(axis=1) >= k
    if not judged.any():
        raise InputError(f"no row has {k} others to be its neighbours")
    same = names[:, None] == names[None]
    distance = np.where(allowed, cdist(rows, rows), np.inf)
    nearest = np.take_along_axis(same, distance.argsort(axis=1, kind="stable")[:, :k], axis=1).mean(axis=1)
    chance = (same & allowed).sum(axis=1) / np.maximum(allowed.sum(axis=1), 1)
    return float(nearest[judged].mean()), float(chance[judged].mean())


def variance_share(rows: np.ndarray, labels: Sequence[str] | np.ndarray) -> float:
    """Part of the rows' variance, over all dimensions, that lies between the means of classes: eta^2, 0..1.

    Raises:
        InputError: the rows do not vary.
    """
    given, names = np.asarray(rows, dtype=np.float64), np.asarray(labels)
    total = ((given - given.mean(axis=0)) ** 2).sum()
    if not total > 0:
        raise InputError("the rows do not vary")
    parts = (given[names == name] for name in np.unique(names))
    between = sum(len(part) * ((part.mean(axis=0) - given.mean(axis=0)) ** 2).sum() for part in parts)
    return float(between / total)
