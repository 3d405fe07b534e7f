"""Networks' own configurations (dataclasses) as settings of a training: unknown keys are errors, as everywhere else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

from pydantic import BeforeValidator

from ..core.errors import ConfigError
from ..core.registry import did_you_mean


def only_fields_of(kind: type) -> BeforeValidator:
    """For `Annotated[Kind, only_fields_of(Kind)]`: mappings may have the dataclass's fields only, at every depth.

    Pydantic passes over unknown keys of a dataclass that does not say otherwise itself. Raises ConfigError.
    """

    def check(value: Any) -> Any:
        _check(kind, value, "")
        return value

    return BeforeValidator(check)


def _check(kind: Any, value: Any, place: str) -> None:
    if not (isinstance(value, Mapping) and is_dataclass(kind)):
        return
    names = [item.name for item in fields(kind)]
    hints = get_type_hints(kind)
    for key, inner in value.items():
        if key not in names:
            hint = did_you_mean(str(key), names) or f"known: {', '.join(names)}"
            raise ConfigError(f"unknown key '{place}{key}' of {getattr(kind, '__name__', kind)}", hint=hint)
        _check(hints[key], inner, f"{place}{key}.")
