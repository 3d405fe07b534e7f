"""Evaluations of clips that no real clip exists for: which metrics can run."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.errors import ConfigError
from ..metrics.base import Metric, metrics


def without_reference(chosen: Sequence[Metric], *, named: bool) -> list[Metric]:
    """Those of the metrics that look at generated clips alone.

    Args:
        named: the user has named them, so that none may be left out.

    Raises:
        ConfigError: a named one wants real clips.
    """
    able = [metric for metric in chosen if not (metric.spec.real or metric.spec.compared)]
    wanting = [metric.spec.id for metric in chosen if metric not in able]
    if named and wanting:
        families = dict.fromkeys(m.spec.id.partition(":")[0] for m in without_reference(metrics.all(), named=False))
        hint = f"give --real DIR; without it these can run: {', '.join(families)}"
        raise ConfigError(f"{', '.join(wanting)} cannot be computed without real clips", hint=hint)
    return able
