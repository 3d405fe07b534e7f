"""A history of evaluations: one JSON object a line, and what may be compared along it.

Numbers of two entries are comparable under the same protocol, weights, settings and number of clips, and where the real
clips have the same level. `changes` names what differs; nothing that follows from two entries that differ is drawn or
printed as a change of the method.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from pydantic import FiniteFloat

from ..core.config import Config, digest, validate
from ..core.errors import ConfigError
from .cells import shortfall
from .formatting import MISSING, flat_items, format_value, is_number

SCHEMA = 1
SETTINGS = ("crop", "bootstrap", "frechet_bootstrap", "seed", "device")  # of a run's config.yaml: define its numbers
SAME_LEVEL = 1e-3  # relative: what other processors' rounding may make of the real clips' own level
NOT_ASKED = "not part of this run"
SHORT = 8


class Measure(Config):
    """A metric in an entry; fields as in `results.json`, the protocol by its digest."""

    title: str
    value: FiniteFloat | None
    ci95: tuple[FiniteFloat, FiniteFloat] | None
    n_scored: int
    n_attempted: int
    reason: str | None
    unit: str
    higher_is_better: bool
    best_is_real: bool
    real_vs_real: FiniteFloat | None
    protocol_digest: str
    weights: dict[str, str]


class Entry(Config):
    """A line of the file: one run.

    Attributes:
        time: when it was recorded, ISO 8601.
        commit: of the user's repository; None with `commit_reason`.
        dirty: whether files differed from the commit; None where nobody looked.
        created: when the run was made.
        settings: those of `SETTINGS`.
        metrics: by id.
    """

    schema_version: Literal[1]
    time: str
    commit: str | None
    commit_reason: str | None
    dirty: bool | None
    method: str
    created: str
    talkforge_version: str
    config_digest: str
    inputs_digest: str | None
    settings: dict[str, Any]
    metrics: dict[str, Measure]

    @property
    def name(self) -> str:
        """The commit in a few letters, or the day."""
        mark = "*" if self.dirty else ""
        return f"{self.commit[:7]}{mark}" if self.commit else self.time[:10]


@dataclass(frozen=True)
class Recorded:
    """An entry's place in the history; `how` it came there."""

    index: int
    how: Literal["added", "replaced", "there"]


def entry_of(results: Mapping[str, Any], settings: Mapping[str, Any], time: str, **commit: Any) -> Entry:
    """The entry of a run.

    Args:
        results: its `results.json`.
        settings: its configuration.
        time: of recording.
        commit: fields `commit`, `commit_reason` and `dirty`.
    """
    return Entry(
        schema_version=SCHEMA,
        time=time,
        **commit,
        **{key: results[key] for key in ("method", "created", "talkforge_version", "config_digest")},
        inputs_digest=results.get("inputs_digest"),
        settings={key: settings.get(key) for key in SETTINGS},
        metrics={name: _measure(name, result) for name, result in results["results"].items()},
    )


def _measure(name: str, result: Mapping[str, Any]) -> Measure:
    plain = ("n_scored", "n_attempted", "reason", "unit", "higher_is_better", "weights")
    value, level, ci95 = result["value"], result["real_vs_real"], result["ci95"]
    return Measure(
        title=result.get("title") or name,
        value=value if is_number(value) else None,
        ci95=ci95 if ci95 and all(map(is_number, ci95)) else None,
        best_is_real=result.get("best_is_real", False),
        real_vs_real=level if is_number(level) else None,
        protocol_digest=digest(result["protocol"]),
        **{key: result[key] for key in plain},
    )


def parse_history(text: str, where: str) -> list[Entry]:
    """The entries of a history file's text, in their order.

    Raises:
        ConfigError: a line that is no entry; the message names it.
    """
    lines = enumerate(text.split("\n"), start=1)
    return [_entry(line, f"{where}, line {number}") for number, line in lines if line.strip()]


def _entry(line: str, where: str) -> Entry:
    try:
        data = json.loads(line, parse_constant=_refuse)
    except ValueError as error:
        raise ConfigError(f"{where}: not a JSON object: {error}", hint="mend or remove the line") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{where}: not a JSON object", hint="mend or remove the line")
    return validate(Entry, data, where=where)


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def format_history(entries: Sequence[Entry]) -> str:
    """The file's text."""
    rows = (entry.model_dump(mode="json") for entry in entries)
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)


def recorded(entries: Sequence[Entry], entry: Entry) -> tuple[list[Entry], Recorded]:
    """The history with the entry in it.

    The same commit, method and configuration have one entry: if it says the same it stays, else the new one takes its
    place. Without a commit, or with files that differ from it, also the clips must be the same.
    """
    for index, other in enumerate(entries):
        if _key(other) == _key(entry):
            if _content(other) == _content(entry):
                return list(entries), Recorded(index, "there")
            return [*entries[:index], entry, *entries[index + 1 :]], Recorded(index, "replaced")
    return [*entries, entry], Recorded(len(entries), "added")


def _key(entry: Entry) -> tuple[str | None, ...]:
    clips = None if entry.commit and not entry.dirty else entry.inputs_digest
    return entry.method, entry.config_digest, entry.commit, clips


def _content(entry: Entry) -> dict[str, Any]:
    return entry.model_dump(exclude={"time", "created", "commit_reason", "dirty"})


def before(entries: Sequence[Entry], index: int) -> Entry | None:
    """The entry of the same method before that at `index`, None for its first one."""
    earlier = [entry for entry in entries[:index] if entry.method == entries[index].method]
    return earlier[-1] if earlier else None


def changes(old: Entry, new: Entry, metric_id: str) -> list[str]:
    """What keeps a metric's numbers in two entries from being compared, each in a few words; both have the metric."""
    one, two = old.metrics[metric_id], new.metrics[metric_id]
    found = [_moved("protocol", one.protocol_digest[:SHORT], two.protocol_digest[:SHORT])]
    found += _parted("weights", *({name: sha[:SHORT] for name, sha in side.weights.items()} for side in (one, two)))
    found += _parted("", old.settings, new.settings)
    found += [_moved(name, getattr(one, name), getattr(two, name)) for name in ("unit", "higher_is_better")]
    found.append(_moved("clips", one.n_attempted, two.n_attempted))
    return [text for text in found if text] or _other_level(one, two)


def _moved(name: str, one: Any, two: Any) -> str:
    return "" if one == two else f"{name}: {one} → {two}"


def _parted(group: str, one: Mapping[str, Any], two: Mapping[str, Any]) -> list[str]:
    first, second = (dict(flat_items(dict(side))) for side in (one, two))
    names = dict.fromkeys((*first, *second))
    return [_moved(f"{group} {n}".strip(), first.get(n, "absent"), second.get(n, "absent")) for n in names]


def _other_level(one: Measure, two: Measure) -> list[str]:
    """Of as many clips scored, the real ones must score among themselves what they did: else they are others."""
    old, new = one.real_vs_real, two.real_vs_real
    if one.n_scored != two.n_scored or old is None or new is None:
        return []
    if math.isclose(old, new, rel_tol=SAME_LEVEL, abs_tol=1e-9):
        return []
    texts = [format_value(level, None, one.unit) for level in (old, new)]
    return [f"other real clips, by their own level: {texts[0]} → {texts[1]}"]


def change_text(old: Entry | None, new: Entry, metric_id: str) -> str:
    """How a metric moved since an earlier entry of the method, or why that cannot be said."""
    if old is None:
        return "first entry"
    one, two = old.metrics.get(metric_id), new.metrics[metric_id]
    if one is None or one.value is None or two.value is None:
        why = NOT_ASKED if one is None else (two if two.value is None else one).reason or "no value"
        return f"{MISSING} {why}"
    if different := changes(old, new, metric_id):
        return f"not comparable: {'; '.join(different)}"
    return _difference(one, two)


def _difference(one: Measure, two: Measure) -> str:
    assert one.value is not None and two.value is not None
    step = two.value - one.value
    text = format_value(step, two.ci95, two.unit)
    gaps = [shortfall(side.model_dump()) for side in (one, two)]
    if step == 0 or gaps[0] is None or gaps[1] is None:
        return "unchanged" if step == 0 else f"{step:+.4g}"
    verdict = "better" if gaps[1] < gaps[0] else "worse"
    overlap = one.ci95 and two.ci95 and max(one.ci95[0], two.ci95[0]) <= min(one.ci95[1], two.ci95[1])
    return f"{'+' if step > 0 else ''}{text}, {verdict}{'; intervals overlap' if overlap else ''}"
