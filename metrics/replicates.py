"""A few repetitions of one experiment: their mean, and what it may be but for chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from ..core.errors import InputError
from .intervals import Interval

LEVEL = 0.975


@dataclass(frozen=True)
class Repeated:
    """Mean of repetitions with its 95% interval (None for a single one), and the values themselves."""

    mean: float
    ci95: Interval | None
    values: tuple[float, ...]

    @property
    def established(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.ci95 is not None and (self.ci95[0] > 0 or self.ci95[1] < 0)


def repeated(values: Sequence[float]) -> Repeated:
    """Mean and Student's interval, mean +- t(0.975, n - 1) s / sqrt(n). Five values cannot be bootstrapped.

    Args:
        values: one a repetition, independent of each other: other data, other seed.

    Raises:
        InputError: none, or one that is not finite.
    """
    given = np.asarray(values, dtype=np.float64)
    if given.ndim != 1 or not len(given) or not np.isfinite(given).all():
        raise InputError(f"repetitions are finite numbers, at least one; not {values}")
    mean, count = float(given.mean()), len(given)
    if count == 1:
        return Repeated(mean, None, (mean,))
    half = float(student.ppf(LEVEL, count - 1)) * float(given.std(ddof=1)) / math.sqrt(count)
    return Repeated(mean, (mean - half, mean + half), tuple(map(float, given)))
