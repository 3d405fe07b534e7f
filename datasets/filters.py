"""Which clips of a build to use: named presets of bounds on stored values, decided when the rows are read.

A build stores the value of every filter and what the build's own preset says of it, and drops nothing for it. So
another preset, or another bound, is a matter of reading: `preset.keeps(stored_values(row))`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, TypeGuard

from pydantic import Field, model_validator

from ..core.config import Config, read_yaml, validate
from ..core.errors import ConfigError
from ..core.registry import did_you_mean
from ..core.weights import CONFIGS

PRESETS = CONFIGS / "filters"
# A shard's columns of one filter, and the one of all together.
VALUE, DECISION, REASON, KEEP = "filter_{}", "filter_{}_keep", "filter_{}_reason", "keep"


def _known(value: float | None) -> TypeGuard[float]:
    """Tables that are read with pandas have NaN where a value is null."""
    return value is not None and not math.isnan(value)


class Bound(Config):
    """What a clip's value must be.

    Attributes:
        min, max: inclusive, in the rule's unit; None is no bound.
        required: a clip whose value is unknown is dropped; else it is kept.
    """

    min: float | None = Field(default=None, allow_inf_nan=False)
    max: float | None = Field(default=None, allow_inf_nan=False)
    required: bool = False

    @model_validator(mode="after")
    def _leaves_room(self) -> Self:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}")
        return self

    def decide(self, value: float | None) -> bool | None:
        """Whether the value lies within the bounds; None when it is unknown (None or NaN) or there is no bound."""
        if not _known(value) or (self.min is None and self.max is None):
            return None
        return (self.min is None or value >= self.min) and (self.max is None or value <= self.max)


def _rule(unit: str) -> Any:
    return Field(Bound(), description=unit)


class Rules(Config):
    """The bound of each filter, in the unit that its description names; no bound where a preset says nothing."""

    one_face: Bound = _rule("fraction of frames")
    face_size: Bound = _rule("pixels")
    duration: Bound = _rule("s")
    rotation: Bound = _rule("degrees")
    sharpness: Bound = _rule("grey levels squared")
    speech: Bound = _rule("fraction of time")
    mouth_sync: Bound = _rule("r")
    mouth_lag: Bound = _rule("frames")
    syncnet_confidence: Bound = _rule("SyncNet distance")
    syncnet_offset: Bound = _rule("frames")


UNITS: dict[str, str] = {name: field.description or "" for name, field in Rules.model_fields.items()}


class FilterPreset(Config):
    """A named set of bounds.

    Attributes:
        name: of the preset; part of a build's identity together with the bounds.
        what: one line for listings.
        rules: bounds by filter.
    """

    name: str
    what: str = ""
    rules: Rules = Rules()

    def bound(self, rule: str) -> Bound:
        """The bound of a filter.

        Raises:
            ConfigError: no such filter.
        """
        if rule not in UNITS:
            hint = did_you_mean(rule, UNITS) or f"known: {', '.join(UNITS)}"
            raise ConfigError(f"unknown filter '{rule}'", hint=hint)
        return getattr(self.rules, rule)

    def bounded(self) -> list[str]:
        """The filters that the preset sets a bound for."""
        return [name for name in UNITS if self.bound(name) != Bound()]

    def decide(self, values: Mapping[str, float | None]) -> dict[str, bool | None]:
        """Decision of every filter; None when the value is unknown or the preset sets no bound.

        Args:
            values: filter -> value in its unit; None, NaN or absence is an unknown value.

        Raises:
            ConfigError: a value of no known filter.
        """
        for name in values:
            self.bound(name)
        return {name: self.bound(name).decide(values.get(name)) for name in UNITS}

    def keeps(self, values: Mapping[str, float | None]) -> bool:
        """Whether the clip is used: no decision is False, and no required value is unknown."""
        wanting = any(self.bound(name).required and not _known(values.get(name)) for name in UNITS)
        return False not in self.decide(values).values() and not wanting


def preset_names() -> list[str]:
    """Names of the presets that come with the package, sorted."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def load_preset(name: str | Path) -> FilterPreset:
    """The preset of that name, or of a YAML file of the user's own.

    Args:
        name: one of `preset_names()`, or a path that ends in .yaml or .yml.

    Raises:
        ConfigError: no such preset, unreadable file, unknown filter (with a suggestion) or a bound that is none.
    """
    text = str(name)
    if text in preset_names():
        path = PRESETS / f"{text}.yaml"
    elif text.endswith((".yaml", ".yml")):
        path = Path(text)
    else:
        hint = did_you_mean(text, preset_names()) or f"known: {', '.join(preset_names())}, or a YAML file"
        raise ConfigError(f"unknown filter preset '{text}'", hint=hint)
    return validate(FilterPreset, {"name": path.stem, **read_yaml(path)}, where=str(path))


def stored_values(row: Mapping[str, Any]) -> dict[str, float | None]:
    """The values of the filters that a shard's row holds, as `FilterPreset.keeps` takes them."""
    return {name: row[VALUE.format(name)] for name in UNITS if VALUE.format(name) in row}
