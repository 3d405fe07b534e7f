"""Made runs of a comparison whose clips' values are known, beside what a comparison knows of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from talkforge.metrics.intervals import bootstrap_mean
from talkforge.reports.comparison_facts import Cost, Reference, RunFacts
from talkforge.tests.reports.demo import result, results

NAME = "m:v"
Clips = Mapping[str, float]


def named(values: list[float] | np.ndarray) -> dict[str, float]:
    """Values of clips c00, c01, ..."""
    return {f"c{k:02d}": float(value) for k, value in enumerate(values)}


def of_clips(values: Clips, **fields: Any) -> dict[str, Any]:
    """The entry of a metric that is the mean of these clips' values."""
    numbers = np.array(list(values.values()))
    interval = bootstrap_mean(numbers)
    counts = {"n_attempted": len(numbers), "n_scored": len(numbers)}
    return result(float(numbers.mean()), list(interval) if interval else None, **(counts | fields))


def made(
    methods: Mapping[str, Clips], reference: Reference | None = None, cost: Cost | None = None, **fields: Any
) -> tuple[list[dict[str, Any]], dict[str, RunFacts]]:
    """Runs with the metric `m:v` over these clips, and their facts."""
    runs = [results(method, m__v=of_clips(clips, **fields)) for method, clips in methods.items()]
    ids = frozenset(next(iter(methods.values())))
    told = reference or Reference(ids, "ab" * 32)
    return runs, {method: RunFacts(told, {NAME: clips}, cost or Cost()) for method, clips in methods.items()}


def hard_clips(methods: int, clips: int, step: float = 0.1, seed: int = 0) -> dict[str, dict[str, float]]:
    """Methods that differ by `step` each, on clips that differ far more: only pairs tell the methods apart."""
    rng = np.random.default_rng(seed)
    hardness = rng.normal(size=clips) * 10
    return {f"M{m}": named(50 + hardness + step * m + rng.normal(size=clips) * step / 4) for m in range(methods)}
