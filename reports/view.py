"""What the renderers take in: one evaluation run, its clips and what its metrics mean.

The dataclasses hold plain values only, so that any caller (a run just finished, a folder read back from disk) can
fill them. `RunView.results` is `results.json` as written, and is checked against its contract on construction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..core.errors import ConfigError

SCHEMA_VERSION = 1
_RUN_KEYS = (
    "method",
    "created",
    "talkforge_version",
    "environment",
    "config_digest",
    "results",
    "counters",
)
_METRIC_KEYS = (
    "value",
    "ci95",
    "higher_is_better",
    "unit",
    "n_attempted",
    "n_scored",
    "rejects",
    "weights",
    "comparable_with_papers",
    "protocol",
    "real_vs_real",
    "reason",
)


@dataclass(frozen=True)
class Curve:
    """One signal over a clip's time, sample i standing at i / fps seconds.

    `values` may hold None (or a non-finite number) where there is no measurement; the drawn curve has a gap there.
    Curves of kind "line" and equal `unit` share one vertical scale; an "area" is drawn behind on its own.
    """

    name: str
    unit: str
    fps: float
    values: list[float | None]
    kind: Literal["line", "area"] = "line"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise ConfigError(f"curve {self.name!r}: fps must be a positive number, not {self.fps}")


@dataclass(frozen=True)
class ClipView:
    """One clip pair. Clip names and messages are untrusted text; the renderers escape them.

    Args:
        reasons: (stage, reason code, message) for each thing that went wrong.
        values: per-clip number of a metric id; None needs an entry in `value_reasons`.
        strip_real, strip_generated: JPEG bytes of frames side by side. Tile k of both shows the same instant, and
            both have the same pixel size, so that they line up.
        curves: typically mouth opening (lines) and speech envelope (area).
    """

    clip_id: str
    real_name: str | None
    generated_name: str | None
    status: Literal["scored", "rejected"]
    reasons: list[tuple[str, str, str]] = field(default_factory=list)
    values: dict[str, float | None] = field(default_factory=dict)
    value_reasons: dict[str, str] = field(default_factory=dict)
    strip_real: bytes | None = None
    strip_generated: bytes | None = None
    curves: list[Curve] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class MetricView:
    """What a metric's declaration says for people.

    Args:
        comparability: why its numbers can (or cannot) stand next to published ones.
        clip_title: what the clips' own values are called where they are another quantity than the metric (a hint
            where to look, under a distance between sets). Empty: the metric is the mean of its clips; where the
            numbers contradict that, the reports say "<title>, per clip".
    """

    title: str
    formula: str
    source: str
    unit: str
    higher_is_better: bool
    description: str
    comparability: str = ""
    clip_title: str = ""


@dataclass(frozen=True)
class RunView:
    """One evaluation run.

    Raises:
        ConfigError: `results` does not follow the `results.json` contract.
    """

    results: dict[str, Any]
    clips: list[ClipView] = field(default_factory=list)
    metrics: dict[str, MetricView] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_results(self.results)


def check_results(results: Mapping[str, Any]) -> None:
    """Holds `results` against the `results.json` contract.

    Raises:
        ConfigError: another schema version, or keys that the contract names and the mapping lacks.
    """
    version = results.get("schema_version")
    if version != SCHEMA_VERSION:
        raise ConfigError(f"results.json has schema_version {version!r}, this version reads {SCHEMA_VERSION}")
    _require(results, _RUN_KEYS, "results.json")
    for metric_id, result in results["results"].items():
        _require(result, _METRIC_KEYS, f"results.json, metric {metric_id}")


def _require(mapping: Mapping[str, Any], keys: tuple[str, ...], where: str) -> None:
    missing = [key for key in keys if key not in mapping]
    if missing:
        raise ConfigError(f"{where}: missing {', '.join(missing)}")
