"""Which runs' numbers may stand in one column: the same metric id and version under the same protocol, weights, unit
and direction.

Two runs can carry the same metric id and still have measured different things (another crop, another weight file).
Their numbers are never put in one column; `partition` keeps them apart and `differences` says where they part. That
they were measured on the same real clips is looked at before, for all metrics at once: see `comparison_facts`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .formatting import flat_items, is_number

_DEFINING = ("protocol", "weights", "unit", "higher_is_better")
# What older or other writers leave out, with what that means.
_OPTIONAL = {"best_is_real": False, "version": None}
_ABSENT = "absent"


@dataclass(frozen=True)
class Measured:
    """One run's entry of one metric."""

    method: str
    result: Mapping[str, Any]

    @property
    def key(self) -> str:
        """Equal for entries whose numbers may be compared."""
        return json.dumps(self.definition, sort_keys=True, default=str)

    @property
    def definition(self) -> dict[str, Any]:
        """All that makes the number what it is; the versions of its extractors are part of the protocol."""
        optional = {name: self.result.get(name, default) for name, default in _OPTIONAL.items()}
        return {name: self.result[name] for name in _DEFINING} | optional

    @property
    def digest(self) -> str:
        """sha256 of the definition."""
        return hashlib.sha256(self.key.encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def scored(self) -> bool:
        """Whether there is a number."""
        return is_number(self.result["value"])


def partition(entries: Sequence[Measured]) -> list[list[Measured]]:
    """Groups of entries that may share a column, in order of first appearance.

    An entry without a number claims nothing: it joins the group of its own key, or else the only group there is. With
    several groups and none of its key it stands in the last one, since its reason must be printed somewhere.
    """
    groups: dict[str, list[Measured]] = {}
    for entry in entries:
        if entry.scored:
            groups.setdefault(entry.key, []).append(entry)
    if not groups:
        return [list(entries)] if entries else []
    last = list(groups)[-1]
    for entry in entries:
        if not entry.scored:
            groups[entry.key if entry.key in groups else last].append(entry)
    order = {id(entry): place for place, entry in enumerate(entries)}
    return [sorted(group, key=lambda entry: order[id(entry)]) for group in groups.values()]


def differences(groups: Sequence[Sequence[Measured]]) -> list[str]:
    """One line for each defining field on which the groups' numbers part, with the methods on each side."""
    described = [(_methods(group), _definition(group)) for group in groups]
    keys = dict.fromkeys(key for _, definition in described for key in definition)
    lines = []
    for key in keys:
        sides = [(definition.get(key, _ABSENT), methods) for methods, definition in described]
        if len({value for value, _ in sides}) > 1:
            lines.append(f"{key}: " + "; ".join(f"{value} ({methods})" for value, methods in sides))
    return lines


def _methods(group: Sequence[Measured]) -> str:
    return ", ".join(entry.method for entry in group if entry.scored)


def _definition(group: Sequence[Measured]) -> dict[str, str]:
    return dict(flat_items(next(entry.definition for entry in group if entry.scored)))
