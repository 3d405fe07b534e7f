"""Configuration: pydantic models filled from YAML and `--set key=value`, where an unknown key is an error.

A run writes its resolved configuration beside its output, and `config_digest` of it is part of the result.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import ConfigError
from .registry import did_you_mean


class _Loader(yaml.SafeLoader):
    """YAML, where only true and false are truth values as in YAML 1.2: `off` is a word, which fields may take."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, found) for tag, found in known if tag != "tag:yaml.org,2002:bool" or first in "tTfF"]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class Config(BaseModel):
    """Base of all configurations: frozen, no unknown keys, paths as text when written."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def load(cls, path: Path | None = None, overrides: Iterable[str] = (), **values: Any) -> Self:
        """Builds the configuration from a YAML file, then keyword values that are not None, then `key=value` texts.

        Args:
            path: YAML file or None.
            overrides: texts such as "fvd.window=16"; the right side is read as YAML, see `_Loader`.
            values: options from the command line; None means "not given".

        Raises:
            ConfigError: unreadable file, unknown key (with a suggestion) or a value that does not fit.
        """
        data: dict[str, Any] = read_yaml(path) if path else {}
        data.update({key: value for key, value in values.items() if value is not None})
        for text in overrides:
            _set(data, text)
        return validate(cls, data, where=str(path) if path else "configuration")

    def digest(self) -> str:
        """sha256 of the canonical JSON of this configuration."""
        return digest(self.model_dump(mode="json"))

    def write(self, path: Path) -> None:
        """Writes the resolved configuration as YAML."""
        path.write_text(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True), "utf-8")


M = TypeVar("M", bound=BaseModel)


def digest(data: Any) -> str:
    """sha256 of canonical JSON: sorted keys, no spaces, non-finite numbers refused."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    # File names that are not UTF-8 reach Python with lone surrogates; they have a digest like any other.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping; an empty file is an empty mapping.

    Raises:
        ConfigError: missing, not YAML, or not a mapping.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"there is no file {path}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path} holds a {type(data).__name__}, not key: value pairs")
    return data


def _set(data: dict[str, Any], text: str) -> None:
    """Applies one "a.b=value" override in place."""
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise ConfigError(f"--set {text}: not of the form KEY=VALUE", hint="example: --set bootstrap=500")
    *parents, last = key.strip().split(".")
    for parent in parents:
        group = {} if data.get(parent) is None else data[parent]
        if not isinstance(group, dict):
            raise ConfigError(f"--set {text}: '{parent}' holds a value, not a group of keys")
        data[parent] = data = dict(group)  # a copy: the caller's own groups stay as they are
    try:
        data[last] = yaml.load(value, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {text}: the value is not valid YAML") from error


def validate(model: type[M], data: Mapping[str, Any], *, where: str) -> M:
    """The model filled with `data`; the first problem becomes one clear ConfigError."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise _explain(model, error, where) from error


def _explain(model: type[BaseModel], error: ValidationError, where: str) -> ConfigError:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = _fields_at(model, first["loc"][:-1])
        hint = did_you_mean(str(first["loc"][-1]), known) or f"known: {', '.join(known)}"
        return ConfigError(f"{where}: unknown key '{key}'", hint=hint)
    if first["type"] == "missing":
        return ConfigError(f"{where}: '{key}' is needed")
    return ConfigError(f"{where}: {key}: {first['msg']}, not {first.get('input')!r}")


def _fields_at(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """Field names of the model that sits at `path` below `model`; those of `model` itself when it is no model."""
    for part in path:
        field = model.model_fields.get(str(part))
        if field is not None and isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            model = field.annotation
    return list(model.model_fields)
