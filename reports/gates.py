"""Gates: conditions on a run's numbers under which a command fails, such as `fvd>300`.

A gate is `[METHOD/]NAME[.FIELD] OPERATOR NUMBER`. NAME is a metric id, or a family of which the run has one variant.
FIELD is `ci_low`, `ci_high` (ends of the 95 % interval) or `coverage` (clips scored of clips attempted). `coverage` by
itself is the least (with `>`: the greatest) coverage of all metrics. What has no value never passes.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..core.errors import ConfigError
from ..core.registry import did_you_mean
from .cells import NO_REASON
from .formatting import MISSING, format_interval, is_number

VALUE, COVERAGE = "value", "coverage"
FIELDS = ("ci_low", "ci_high", COVERAGE)
COMPARE = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}
EXAMPLES = "examples: fvd>300, fvd:i3d-k400-16f.ci_high>=300, lse_c.coverage<0.9, coverage<0.9"

State = Literal["passed", "failed", "no value", "no value, allowed"]
_FORM = re.compile(
    r"\s*(?:(?P<method>.+)/)?(?P<name>[^\s<>=/]+)\s*(?P<sign>>=|<=|>|<)\s*"
    r"(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)\s*",
    re.ASCII | re.IGNORECASE,
)


@dataclass(frozen=True)
class Gate:
    """A condition that fails a run where it holds.

    Attributes:
        text: as it was given.
        method: the run that it is for; None for all of them.
        name: metric id or family; None for all metrics of the run.
        field: `value`, or one of `FIELDS`.
        sign: one of `COMPARE`.
        threshold: a finite number.
    """

    text: str
    method: str | None
    name: str | None
    field: str
    sign: str
    threshold: float


@dataclass(frozen=True)
class Verdict:
    """What a gate says of one run.

    Attributes:
        metric_id: None where the run has no metric at all.
        value: what was held against the threshold; None when there is none, with its `reason`.
        interval: of the metric, as printed; empty for a coverage.
        counts: clips scored of clips attempted, such as "6/7".
    """

    gate: Gate
    method: str
    metric_id: str | None
    state: State
    value: float | None
    interval: str
    counts: str
    reason: str | None

    @property
    def failed(self) -> bool:
        """Whether the run is not accepted."""
        return self.state in ("failed", "no value")

    @property
    def figure(self) -> str:
        """The value with more digits than a table gives it, since it may lie close to the threshold."""
        return MISSING if self.value is None else f"{self.value:.6g}"


def parse_gate(text: str) -> Gate:
    """A gate from its text. Raises ConfigError for another form, field or a threshold that is not finite."""
    found = _FORM.fullmatch(text)
    if found is None or not math.isfinite(threshold := float(found["number"])):
        raise ConfigError(f"gate '{text}' is not of the form METRIC>NUMBER, with one of > >= < <=", hint=EXAMPLES)
    name, _, field = found["name"].partition(".")
    if field and field not in FIELDS:
        hint = did_you_mean(field, FIELDS) or f"known: {', '.join(FIELDS)}"
        raise ConfigError(f"gate '{text}': there is no '.{field}' of a metric", hint=hint)
    everything = (name, field) == (COVERAGE, "")
    method = found["method"].strip() if found["method"] else None
    whole = (None, COVERAGE) if everything else (name, field or VALUE)
    return Gate(text.strip(), method, *whole, found["sign"], threshold)


def check_gates(gates: Sequence[Gate], runs: Mapping[str, Sequence[str]], known: Sequence[str]) -> None:
    """Refuses gates that no run could answer, before any work.

    Args:
        gates: what was asked.
        runs: method -> ids of its metrics.
        known: ids of all metrics that there are.

    Raises:
        ConfigError: see `metric_of`; or a method that is none of the runs'.
    """
    for gate in gates:
        for ids in _of_method(gate, runs):
            metric_of(gate, ids, known)


def _of_method(gate: Gate, runs: Mapping[str, Sequence[str]]) -> list[Sequence[str]]:
    if gate.method is None:
        return list(runs.values())
    if gate.method not in runs:
        hint = did_you_mean(gate.method, runs) or f"methods: {', '.join(runs)}"
        raise ConfigError(f"gate '{gate.text}': there is no method '{gate.method}' here", hint=hint)
    return [runs[gate.method]]


def metric_of(gate: Gate, ids: Sequence[str], known: Sequence[str]) -> str | None:
    """The id of the run's metric that the gate is about; None for a gate about all of them.

    Raises:
        ConfigError: a family with several variants in the run, a metric that the run does not measure, an unknown one.
    """
    if gate.name is None or gate.name in ids:
        return gate.name
    variants = _variants(gate.name, ids)
    if len(variants) == 1:
        return variants[0]
    where = f"gate '{gate.text}'"
    if variants:
        raise ConfigError(
            f"{where}: '{gate.name}' is {len(variants)} metrics here", hint=f"say {' or '.join(variants)}"
        )
    if gate.name in known or _variants(gate.name, known):
        have = ", ".join(ids) or "no metric"
        raise ConfigError(f"{where}: {gate.name} is not measured here", hint=f"--metrics chooses; here: {have}")
    names = dict.fromkeys([*(name.partition(":")[0] for name in (*ids, *known)), *ids, *known])
    hint = did_you_mean(gate.name, names) or f"measured here: {', '.join(ids)}"
    raise ConfigError(f"{where}: unknown metric '{gate.name}'", hint=hint)


def _variants(family: str, ids: Sequence[str]) -> list[str]:
    return [name for name in ids if name.partition(":")[0] == family]


def judge(
    gates: Sequence[Gate], results: Mapping[str, Any], known: Sequence[str], *, allow_missing: bool = False
) -> list[Verdict]:
    """What the gates say of a run, in their order; those for another method are left out.

    Args:
        gates: see `parse_gate`.
        results: a `results.json`.
        known: ids of all metrics that there are, for hints.
        allow_missing: what has no value does not fail.

    Raises:
        ConfigError: see `metric_of`.
    """
    method = results["method"]
    mine = [gate for gate in gates if gate.method in (None, method)]
    return [_judged(gate, method, results["results"], known, allow_missing) for gate in mine]


def _judged(gate: Gate, method: str, results: Mapping[str, Any], known: Sequence[str], allow_missing: bool) -> Verdict:
    metric_id = metric_of(gate, list(results), known) or _extreme(gate, results, allow_missing)
    if metric_id is None:
        return Verdict(gate, method, None, _missing(allow_missing), None, "", "", "the run has no metric")
    result = results[metric_id]
    value, reason = _figure(gate.field, result)
    state = _missing(allow_missing) if value is None else "failed" if _holds(gate, value) else "passed"
    interval = "" if gate.field == COVERAGE else format_interval(result["ci95"])
    return Verdict(gate, method, metric_id, state, value, interval, counts(result), reason)


def _missing(allowed: bool) -> State:
    return "no value, allowed" if allowed else "no value"


def _holds(gate: Gate, value: float) -> bool:
    return COMPARE[gate.sign](value, gate.threshold)


def counts(result: Mapping[str, Any]) -> str:
    """Clips scored of clips attempted."""
    return f"{result['n_scored']}/{result['n_attempted']}"


def _figure(field: str, result: Mapping[str, Any]) -> tuple[float | None, str | None]:
    """The number that a field stands for, or None and why there is none."""
    if field == COVERAGE:
        return _coverage(result)
    if not is_number(result["value"]):
        why, way = result["reason"] or NO_REASON, result.get("hint")
        return None, f"{why}: {way}" if way else why
    if field == VALUE:
        return result["value"], None
    interval = result["ci95"]
    end = interval[0 if field == "ci_low" else 1] if interval else None
    return (end, None) if is_number(end) else (None, "the value has no interval")


def _coverage(result: Mapping[str, Any]) -> tuple[float | None, str | None]:
    """Clips scored of clips attempted. A metric that could not run for want of weights has tried none."""
    if result["reason"] == "weights_missing":
        return None, f"weights_missing: {result.get('hint') or 'no clip was tried'}"
    if not result["n_attempted"]:
        return None, "no clip was attempted"
    return result["n_scored"] / result["n_attempted"], None


def _extreme(gate: Gate, results: Mapping[str, Any], allow_missing: bool) -> str | None:
    """The metric that decides over all: one without a coverage, else the one that comes first to the threshold."""
    found = {name: _coverage(result)[0] for name, result in results.items()}
    unknown = [name for name, value in found.items() if value is None]
    there = {name: value for name, value in found.items() if value is not None}
    if not there or (unknown and not allow_missing):
        return unknown[0] if unknown else None
    return (min if gate.sign.startswith("<") else max)(there, key=lambda name: there[name])


def gate_lines(verdicts: Sequence[Verdict], *, several: bool) -> list[str]:
    """A line a gate for the terminal: state, gate, metric, value, interval, threshold. `several` names the method."""
    return [_line(one, several) for one in verdicts]


def _line(one: Verdict, several: bool) -> str:
    who = f"{one.method}: " if several and one.gate.method is None else ""
    if one.reason is not None:
        said = f"{MISSING} {one.reason}"
    elif one.gate.field == COVERAGE:
        said = f"{one.figure} ({one.counts})"
    else:
        said = f"{one.figure} {one.interval}"
    about = "" if one.metric_id in (None, one.gate.name) else f"  {one.metric_id}"
    state = "FAILED" if one.failed else "passed"
    return f"{state}  {who}fail if {one.gate.text}:{about}  {said}  threshold {one.gate.threshold:g}"


def tally(verdicts: Sequence[Verdict]) -> str:
    """How many gates failed, in words."""
    failed, total = sum(one.failed for one in verdicts), len(verdicts)
    plural = "" if total == 1 else "s"
    return f"{failed} of {total} gate{plural} failed" if failed else f"{total} gate{plural} passed"
