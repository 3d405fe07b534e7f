"""What the dataset page takes in: one finished build, a few of its clips looked at closely, and where time went.

Plain values only. Names, messages and labels are untrusted text; the renderers escape them. What is not there is None
or an empty list with a reason beside it, and the page says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..core.records import Reject
from .view import Curve


@dataclass(frozen=True)
class Tile:
    """One frame of a strip: its time in the clip, and what there is to say about it ("no face")."""

    seconds: float
    note: str = ""


@dataclass(frozen=True)
class Envelope:
    """Peaks of a clip's sound: lowest and highest sample (-1..1) of each bin of `step_s` seconds, from time 0 on."""

    low: list[float]
    high: list[float]
    step_s: float


@dataclass(frozen=True)
class Panel:
    """Curves that share a place on the page; without curves `reason` says why."""

    title: str
    curves: list[Curve]
    reason: str = ""


@dataclass(frozen=True)
class FilterValue:
    """What a filter measured on one clip and decided; `keep` is None without a bound or a value, `reason` says why."""

    name: str
    value: float | None
    keep: bool | None
    unit: str = ""
    reason: str = ""

    @property
    def decision(self) -> str:
        """keep, drop, or why there is neither."""
        if self.keep is None:
            return "no bound" if self.value is not None else self.reason or "unknown"
        return "keep" if self.keep else "drop"


@dataclass(frozen=True)
class SampleClip:
    """A clip that is shown.

    Args:
        facts: (what, text) such as split, speaker, emotion, length.
        strip: JPEG of equally wide frames side by side; frame k of K shows the middle of the k-th K-th of the clip, so
            that the strip lies over the curves' time axis.
        notes: what is missing on the strip, and why.
        level: loudness over time, drawn over the waveform.
        faceless: (start, end) in seconds of spans without a face.
    """

    clip_id: str
    facts: list[tuple[str, str]]
    seconds: float
    strip: bytes | None = None
    tiles: list[Tile] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    sound: Envelope | None = None
    sound_reason: str = ""
    level: Curve | None = None
    panels: list[Panel] = field(default_factory=list)
    faceless: list[tuple[float, float]] = field(default_factory=list)
    filters: list[FilterValue] = field(default_factory=list)


@dataclass(frozen=True)
class SplitRow:
    """A split: its clips, speakers (None where no clip names one), seconds of video, and clips of each emotion."""

    name: str
    clips: int
    identities: int | None
    seconds: float
    emotions: dict[str, int]


@dataclass(frozen=True)
class Distribution:
    """One number a clip, for a histogram; without values `reason` says why."""

    title: str
    unit: str
    values: list[float]
    reason: str = ""


@dataclass(frozen=True)
class Spread:
    """Quantiles 0.01, 0.25, 0.5, 0.75, 0.99 of a feature over all frames, and on how many it is there."""

    name: str
    count: int
    missing: int
    quantiles: tuple[float, float, float, float, float] | None


@dataclass(frozen=True)
class SpreadGroup:
    """Features of one unit, drawn on one axis."""

    title: str
    unit: str
    rows: list[Spread]


@dataclass(frozen=True)
class FilterRow:
    """What a filter says about all clips; `keeps` pairs with `values`."""

    name: str
    values: list[float | None]
    keeps: list[bool | None]
    only: int  # clips that this filter alone would drop
    unit: str = ""


@dataclass(frozen=True)
class Stage:
    """Time of one stage over all shards; None where a shard could not measure it."""

    name: str
    wall_s: float | None
    cpu_s: float | None


@dataclass(frozen=True)
class Work:
    """Where time went.

    Args:
        stages: of the shards that carry stage times.
        video_s: seconds of video of the rows in these shards.
        timed, shards: how many shards carry stage times, and how many there are.
        total_s: wall seconds of all shards, added up.
    """

    stages: list[Stage]
    video_s: float
    timed: int
    shards: int
    total_s: float
    counters: dict[str, Any]


@dataclass(frozen=True)
class Column:
    """A column of the shards: its Arrow type as text; entries and nulls where it is a series of numbers."""

    name: str
    kind: str
    count: int | None = None
    null: int | None = None


@dataclass(frozen=True)
class DatasetView:
    """One finished build.

    Args:
        info, splits: `meta/info.json` and `meta/splits.json` as written.
        identities: speakers in all rows, None where no clip names one.
        seconds: of video in all rows.
        kept: rows that all filters together would keep, None where the build does not decide.
    """

    info: dict[str, Any]
    splits: dict[str, Any]
    identities: int | None
    seconds: float
    rows: list[SplitRow]
    distributions: list[Distribution]
    samples: list[SampleClip]
    rejects: list[Reject]
    filters: list[FilterRow]
    spreads: list[SpreadGroup]
    columns: list[Column]
    work: Work
    kept: int | None = None
