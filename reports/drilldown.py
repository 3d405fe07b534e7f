"""What the drill-down pages show: methods, clips with files, numbers and curves, and which clips to look at first.

The dataclasses hold plain values only. Names and messages are untrusted text, which the pages escape.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..core.emotions import MEAD_EMOTIONS
from .cells import NO_REASON, arrow, direction
from .embedding import Scatter
from .formatting import is_number
from .view import Curve, MetricView

EXTREMES = 10  # clips in each list of best and worst ones
SHADES = 9  # of a confusion, for the style sheet
DISTANCES = ("gap", "distance")  # how the names of clips' own values begin that are best when small
SIGNED = "signed"  # a word of those that are best at zero


@dataclass(frozen=True)
class Aim:
    """Where the best values lie: far up, far down, or near a target."""

    kind: Literal["high", "low", "near"]
    target: float = 0.0

    def gap(self, value: float) -> float:
        """How far a value is from the best, up to a constant."""
        return {"high": -value, "low": value, "near": abs(value - self.target)}[self.kind]

    @property
    def arrow(self) -> str:
        """The sign beside a title."""
        return arrow(self.kind == "high", self.kind == "near")

    @property
    def words(self) -> str:
        """The sign in words."""
        return f"best near {self.target:.4g}" if self.kind == "near" else direction(self.kind == "high")


def clip_aim(result: Mapping[str, Any], clip_title: str) -> Aim | None:
    """The aim of a metric's values by clip; None where only the real clips' level would tell, and is not known.

    Args:
        result: entry of `results.json`.
        clip_title: what the clips' own values are where they are another quantity than the metric, else "".
    """
    if SIGNED in clip_title.split():
        return Aim("near", 0.0)
    if clip_title.startswith(DISTANCES):
        return Aim("low")
    if result.get("best_is_real"):
        level = result["real_vs_real"]
        return Aim("near", level) if is_number(level) else None
    return Aim("high" if result["higher_is_better"] else "low")


@dataclass(frozen=True)
class ClipMetric:
    """A metric of which clips have values of their own; `aim` is None where better and worse are not known."""

    metric_id: str
    title: str
    unit: str
    aim: Aim | None
    view: MetricView

    @classmethod
    def of(cls, metric_id: str, result: Mapping[str, Any], view: MetricView, clip_title: str) -> ClipMetric:
        """From the results' entry and the metric's declaration."""
        title = f"{view.title}, {clip_title}" if clip_title else view.title
        return cls(metric_id, title, view.unit, clip_aim(result, clip_title), view)


@dataclass(frozen=True)
class File:
    """A file of a clip as a page reaches it: an address, or the reason why there is none."""

    href: str | None = None
    reason: str | None = None
    name: str = ""


@dataclass(frozen=True)
class Strip:
    """A picture of frames side by side; `seconds`: when each of them is shown."""

    file: File
    seconds: Sequence[float] = ()


@dataclass(frozen=True)
class CurveGroup:
    """Curves in one chart."""

    title: str
    kind: Literal["sync", "unit"]
    curves: Sequence[Curve]


@dataclass(frozen=True)
class Clip:
    """One clip of a method.

    Args:
        number: its place among all clips of all methods, the same on every page.
        values: number by metric id; None needs an entry in `reasons`.
        notes: what is not shown, and why.
    """

    number: int
    name: str
    real: File
    generated: File
    emotion: str | None = None
    values: Mapping[str, float | None] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    strip_real: Strip = field(default_factory=lambda: Strip(File()))
    strip_generated: Strip = field(default_factory=lambda: Strip(File()))
    curves: Sequence[CurveGroup] = ()
    notes: Sequence[str] = ()

    def reason(self, metric_id: str) -> str:
        """Why there is no number."""
        return self.reasons.get(metric_id) or NO_REASON


@dataclass(frozen=True)
class Confusion:
    """Labelled emotion (rows) against the one that a network saw (columns), in clips."""

    title: str
    labelled: Sequence[str]
    seen: Sequence[str]
    counts: Sequence[Sequence[int]]

    @property
    def rows(self) -> list[tuple[str, int, list[tuple[int, int, bool]]]]:
        """(label, clips, [(shade by share of the row, clips, whether label and column agree)])."""
        return [
            (name, sum(row), [(_shade(n, sum(row)), n, name == seen) for n, seen in zip(row, self.seen, strict=True)])
            for name, row in zip(self.labelled, self.counts, strict=True)
        ]


def _shade(count: int, total: int) -> int:
    return max(1, round(SHADES * count / total)) if count else 0


def confusion(title: str, pairs: Sequence[tuple[str, str]]) -> Confusion:
    """Counts (labelled, seen) pairs; emotions in the house's order, classes that it lacks behind them."""
    known = {name: k for k, name in enumerate(MEAD_EMOTIONS)}
    counts = Counter(pairs)

    def ordered(names: set[str]) -> list[str]:
        return sorted(names, key=lambda name: (known.get(name, len(known)), name))

    labelled = ordered({label for label, _ in pairs})
    seen = ordered({name for pair in pairs for name in pair})
    return Confusion(title, labelled, seen, [[counts[label, name] for name in seen] for label in labelled])


@dataclass(frozen=True)
class Method:
    """A method with its evaluation.

    Args:
        folder: of its page, relative to the drill-down's folder.
        results: `results.json`.
        views: what the metrics' declarations say, by id.
        metrics: those of which clips have values.
        clips: in the order of their names.
        confusions, scatter: None of either goes with its reason in `absent`.
        absent: (what, why) of all that the page could show and does not.
        report: href of the run's report from the page, or None.
    """

    name: str
    folder: str
    results: Mapping[str, Any]
    views: Mapping[str, MetricView]
    metrics: Sequence[ClipMetric]
    clips: Sequence[Clip]
    confusions: Sequence[Confusion] = ()
    scatter: Scatter | None = None
    absent: Sequence[tuple[str, str]] = ()
    report: str | None = None


@dataclass(frozen=True)
class Ranking:
    """Which clips are best and worst, the most extreme first, and which cannot be ranked, each with the reason."""

    best: list[Clip]
    worst: list[Clip]
    missing: list[tuple[Clip, str]]

    @property
    def ranked(self) -> bool:
        """Whether any clip is in a list."""
        return bool(self.best or self.worst)


def ranking(clips: Sequence[Clip], metric: ClipMetric, count: int = EXTREMES) -> Ranking:
    """The `count` best and worst clips by a metric; equal values go by name, and no clip stands in both lists.

    Of fewer than twice `count` clips each list takes half of them, the best one more where their number is odd.
    """
    found = {clip.number: value for clip in clips if is_number(value := clip.values.get(metric.metric_id))}
    missing = [(clip, clip.reason(metric.metric_id)) for clip in clips if clip.number not in found]
    aim = metric.aim
    if aim is None:
        return Ranking([], [], missing)
    scored = [clip for clip in clips if clip.number in found]
    best = sorted(scored, key=lambda clip: (aim.gap(found[clip.number]), clip.name))
    worst = sorted(scored, key=lambda clip: (-aim.gap(found[clip.number]), clip.name))
    top = best[: min(count, (len(scored) + 1) // 2)]
    taken = {clip.number for clip in top}
    return Ranking(top, [clip for clip in worst if clip.number not in taken][: min(count, len(scored) // 2)], missing)


def looked_at_first(clips: Sequence[Clip], metrics: Sequence[ClipMetric]) -> list[Clip]:
    """All clips, those in some list of worst or best ones before the others."""
    rankings = [ranking(clips, metric) for metric in metrics]
    extremes = [clip for found in rankings for clip in (*found.worst, *found.best)]
    return list({clip.number: clip for clip in (*extremes, *clips)}.values())
