"""A straight line between two vectors: points on it, places beside it, and how steadily something changes along it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from ..core.errors import InputError


def points_between(start: np.ndarray, end: np.ndarray, count: int = 11) -> np.ndarray:
    """`count` points from start to end, evenly spaced, both included; (D,) and (D,) to (count, D)."""
    if count < 2:
        raise InputError(f"a path has two points or more, not {count}")
    part = np.linspace(0, 1, count)[:, None]
    return (1 - part) * start + part * end


def position_on(rows: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Where rows (N, D) lie along the line: 0 beside the start, 1 beside the end, (N,).

    Raises:
        InputError: start and end are equal.
    """
    step = end - start
    length = float(step @ step)
    if not length > 0:
        raise InputError("a line needs two different ends")
    return (np.asarray(rows) - start) @ step / length


@dataclass(frozen=True)
class Steadiness:
    """How a quantity changes from point to point.

    Attributes:
        rho: Spearman's rank correlation with the place on the path; None where the quantity never changes.
        rising: part of the steps that go up.
        largest: the largest step as a part of all ways together; 1 / steps if all are equal, 1 for one jump. None
            where the quantity never changes.
    """

    rho: float | None
    rising: float
    largest: float | None


def steadiness(values: Sequence[float] | np.ndarray) -> Steadiness:
    """Of a quantity at the points of a path, in their order. Raises InputError for fewer than 3, or not finite."""
    given = np.asarray(values, dtype=np.float64)
    if given.ndim != 1 or len(given) < 3 or not np.isfinite(given).all():
        raise InputError(f"a path has three finite values or more, not {given.shape}")
    steps = np.diff(given)
    ways = np.abs(steps)
    if not ways.any():
        return Steadiness(None, 0.0, None)
    rho = float(np.asarray(spearmanr(np.arange(len(given)), given))[0])
    return Steadiness(rho, float((steps > 0).mean()), float(ways.max() / ways.sum()))
