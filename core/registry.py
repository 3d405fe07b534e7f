"""Names to things, lazily: an entry is a "module:attribute" string until somebody asks for it.

Two ways in. `Registry.add(name, "module:attr")` states an entry. `Registry.discover(package, attribute)` finds the
modules of a room that declare a tuple under that attribute (metrics declare `METRICS`, extractors `EXTRACTORS`), so
that a new module is in every listing without a central list to edit.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from threading import RLock
from typing import Any, Generic, TypeVar

from .errors import ConfigError

T = TypeVar("T")


def resolve(target: str) -> Any:
    """Imports what "package.module:attribute" names.

    Raises:
        ConfigError: the string has another form, or there is no such module or attribute.
    """
    module_name, _, attribute = target.partition(":")
    if not module_name or not attribute:
        raise ConfigError(f"'{target}' is not of the form module:attribute")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ModuleNotFoundError, AttributeError) as error:
        raise ConfigError(f"cannot load '{target}': {error}") from error


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """A hint that names the closest entries, or those whose kind, before a colon, is close; None when nothing is."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if not close:
        kinds = {entry.partition(":")[0] for entry in known}
        found = difflib.get_close_matches(name.partition(":")[0], kinds, n=3, cutoff=0.5)
        close = [entry for kind in found for entry in known if entry.partition(":")[0] == kind]
    return f"did you mean {shortened(close, ' or ', most=6)}?" if close else None


def shortened(names: Sequence[str], between: str = ", ", *, most: int = 12) -> str:
    """Names for a message of one line."""
    more = len(names) - most
    return between.join([*names[:most], *([f"{more} more"] if more > 0 else [])])


def _declares(path: Path, attribute: str) -> bool:
    """Whether the module assigns `attribute` at top level, found without importing it.

    By the text and not by its syntax tree: CPython 3.11's parser fails at times when several threads parse at once.
    """
    assignment = re.compile(rf"^{re.escape(attribute)}\s*(?::[^=\n]+)?=(?!=)", re.MULTILINE)
    return assignment.search(path.read_text(encoding="utf-8")) is not None


def declaring_modules(package: str, attribute: str) -> list[str]:
    """Full names of the package's direct modules that assign `attribute` at top level, sorted."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        raise ConfigError(f"there is no package '{package}'")
    files = [file for place in spec.submodule_search_locations for file in Path(place).glob("*.py")]
    return sorted(f"{package}.{file.stem}" for file in files if _declares(file, attribute))


class Registry(Generic[T]):
    """Named entries of one kind.

    Args:
        kind: what an entry is, for messages ("metric", "extractor").
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._targets: dict[str, str] = {}
        self._loaded: dict[str, T] = {}
        self._finders: list[Callable[[], dict[str, T]]] = []
        self._lock = RLock()

    def add(self, name: str, target: str) -> None:
        """States an entry by its "module:attribute"; the module is imported at the first `get`."""
        if name in self._targets or name in self._loaded:
            raise ConfigError(f"{self.kind} '{name}' is registered twice")
        self._targets[name] = target

    def discover(self, package: str, attribute: str, *, key: Callable[[T], str]) -> None:
        """Adds what the package's modules declare in tuples called `attribute`, when first asked for a name."""

        def find() -> dict[str, T]:
            found: dict[str, T] = {}
            for module in declaring_modules(package, attribute):
                for item in resolve(f"{module}:{attribute}"):
                    if key(item) in found:
                        raise ConfigError(f"{self.kind} '{key(item)}' is declared twice, the second time in {module}")
                    found[key(item)] = item
            return found

        self._finders.append(find)

    def _run_finders(self) -> None:
        with self._lock:  # shards on several threads ask at once
            while self._finders:
                found = self._finders[0]()
                twice = sorted(found.keys() & {*self._targets, *self._loaded})
                if twice:
                    raise ConfigError(
                        f"{self.kind} '{twice[0]}' is registered twice, once by a module that declares it"
                    )
                self._loaded.update(found)
                del self._finders[0]  # only now: an error must come again when somebody asks again

    def names(self) -> list[str]:
        """All names, sorted."""
        self._run_finders()
        return sorted({*self._targets, *self._loaded})

    def get(self, name: str) -> T:
        """The entry called `name`.

        Raises:
            ConfigError: no such entry; the hint names the closest ones.
        """
        known = self.names()
        if name not in known:
            hint = did_you_mean(name, known) or f"known: {shortened(known)}"
            raise ConfigError(f"unknown {self.kind} '{name}'", hint=hint)
        if name not in self._loaded:
            self._loaded[name] = resolve(self._targets[name])
        return self._loaded[name]

    def all(self) -> list[T]:
        """All entries in the order of their names."""
        return [self.get(name) for name in self.names()]
