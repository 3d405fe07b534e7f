"""What a comparison knows of a run beside `results.json`: its real clips, its clips' values, what its videos cost."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..metrics.compare import Difference
from .formatting import is_number

SHOWN = 3  # names of clips in a sentence
UNKNOWN = "not recorded"
# From a metric's id and two methods to the first one's value minus the second's; None where nobody can tell.
Compare = Callable[[str, str, str], Difference | None]
# From a metric's id and methods to their values in joint draws, (n, M), and how many clips were drawn; or None.
Draw = Callable[[str, Sequence[str]], tuple[np.ndarray, int] | None]


@dataclass(frozen=True)
class Evidence:
    """Who tells what the clips' own values do not tell."""

    compare: Compare
    draw: Draw


@dataclass(frozen=True)
class Reference:
    """The real clips of a run.

    Attributes:
        clips: their ids; None where nothing says which they are.
        contents: digest of their ids, labels and bytes; None where the clips could not be read again.
        real: False where clips were scored without real ones; `clips` are then theirs.
    """

    clips: frozenset[str] | None = None
    contents: str | None = None
    real: bool = True

    @property
    def key(self) -> tuple[str, str, bool]:
        """Equal for runs that may share a table."""
        return self.names, self.contents or "", self.real

    @property
    def names(self) -> str:
        """Digest of the ids."""
        if self.clips is None:
            return ""
        return hashlib.sha256("\0".join(sorted(self.clips)).encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def text(self) -> str:
        """How many clips, and whether they are known by their bytes."""
        if self.clips is None:
            return f"real clips: {UNKNOWN}"
        if not self.real:
            return f"{len(self.clips)} clips without real ones"
        how = f"sha256 {self.contents[:12]}" if self.contents else "known by their names alone"
        return f"{len(self.clips)} real clips, {how}"


@dataclass(frozen=True)
class Cost:
    """Seconds of work per second of video, or the reason why that is not known."""

    value: float | None = None
    reason: str | None = "no generation.json was found beside its videos"
    videos: int = 0


@dataclass(frozen=True)
class RunFacts:
    """Facts of one run.

    Attributes:
        clips: by metric id the clips' own values by clip id.
    """

    reference: Reference = field(default_factory=Reference)
    clips: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    cost: Cost = field(default_factory=Cost)


def reference_differences(groups: Sequence[tuple[Reference, Sequence[str]]]) -> list[str]:
    """Lines that say where the runs' real clips part: what each has, and which clips others lack."""
    lines = [f"{', '.join(methods)}: {reference.text}" for reference, methods in groups]
    known = [(one.clips, methods) for one, methods in groups if one.clips is not None]
    everywhere = frozenset.intersection(*[clips for clips, _ in known]) if known else frozenset()
    for clips, methods in known:
        extra = sorted(clips - everywhere)
        if extra:
            more = f" and {len(extra) - SHOWN} more" if len(extra) > SHOWN else ""
            lines.append(f"not in all runs: {', '.join(extra[:SHOWN])}{more} ({', '.join(methods)})")
    if len({one.names for one, _ in groups}) < len(groups):
        lines.append("clips of the same names are not the same files, or could not be read again to see that they are")
    return lines


def recorded(runs: Mapping[str, Mapping[str, Any]]) -> Evidence:
    """What runs carry from an evaluation against another one of them (`talkforge eval --against`): no draws."""

    def compare(metric_id: str, method: str, other: str) -> Difference | None:
        straight = _against(runs[method], runs[other], metric_id)
        if straight is not None:
            return straight
        back = _against(runs[other], runs[method], metric_id)
        return None if back is None else swapped(back)

    return Evidence(compare, lambda metric_id, methods: None)


def _against(run: Mapping[str, Any], other: Mapping[str, Any], metric_id: str) -> Difference | None:
    against = run.get("against")
    # The other run may have been made anew since.
    if against is None or (against["run"], against["created"]) != (other["method"], other["created"]):
        return None
    found = against["results"].get(metric_id)
    if found is None or not is_number(found["difference"]):
        return None
    return Difference(**{**found, "ci95": tuple(found["ci95"]) if found["ci95"] else None})


def swapped(gap: Difference) -> Difference:
    """The same difference seen from the other method."""
    turned = {"better": "worse", "worse": "better", "larger": "smaller", "smaller": "larger"}
    ci95 = (-gap.ci95[1], -gap.ci95[0]) if gap.ci95 else None
    return Difference(
        None if gap.difference is None else -gap.difference,
        ci95,
        gap.p_value,
        gap.n_common,
        turned.get(gap.verdict or "", gap.verdict),
        gap.other,
        gap.value,
        gap.reason,
        gap.message,
    )
