"""A system's free choices as named values with their sources.

A choice is a field of a frozen dataclass, made by `chosen`; where its value comes from is worded in the system's own
configuration. `sources` lists them, so that a run can write down beside its values where they come from.
"""

from __future__ import annotations

import math
from dataclasses import Field, field, fields
from typing import Any, ClassVar, NoReturn, Protocol

from ...core.errors import ConfigError


def chosen(default: Any, source: str, what: str) -> Any:
    """A dataclass field with its meaning and source in the metadata."""
    return field(default=default, metadata={"source": source, "what": what})


class HasFields(Protocol):
    """A dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


def sources(config: HasFields) -> dict[str, dict[str, Any]]:
    """Per field of a configuration: its `value`, `source` and `what` it is; JSON-ready."""
    return {item.name: {"value": getattr(config, item.name), **item.metadata} for item in fields(config)}


def fail(config: HasFields, name: str, text: str) -> NoReturn:
    """Raises ConfigError that names a field and its value."""
    raise ConfigError(f"{type(config).__name__}.{name} is {getattr(config, name)}, {text}")


def positive(config: HasFields, *names: str) -> None:
    """Raises ConfigError for the first of these fields that is not above 0."""
    for name in names:
        if not getattr(config, name) > 0:
            fail(config, name, "not above 0")


def finite(config: HasFields, *names: str) -> None:
    """Raises ConfigError for the first of these fields that is no finite number."""
    for name in names:
        if not math.isfinite(getattr(config, name)):
            fail(config, name, "not finite")


def not_negative(config: HasFields, *names: str) -> None:
    """Raises ConfigError for the first of these fields that is below 0 or not finite."""
    for name in names:
        if not 0 <= getattr(config, name) < math.inf:
            fail(config, name, "not a finite number from 0 on")


def within(config: HasFields, *names: str) -> None:
    """Raises ConfigError for the first of these fields that is not within 0..1."""
    for name in names:
        if not 0 <= getattr(config, name) <= 1:
            fail(config, name, "not within 0..1")
