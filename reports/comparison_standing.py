"""Where a method stands in a metric's table: the ranks that it may have, and whether it differs from the row above.

Clips are drawn jointly where the metric is the mean of its clips' values and the runs' details hold these. Elsewhere
ranks come from the methods' own intervals, and a difference from whoever has held the two runs against each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from ..metrics.compare import Difference
from ..metrics.paired import LEVEL, Engine, PairedDifference, paired_mean, paired_statistic
from ..metrics.ranking import FEWEST_CLIPS, Rank, holm, joint_means, ranks_of_draws, ranks_of_intervals
from .against import p_text
from .agreement import Measured
from .cells import shortfall, usable_interval
from .comparison_facts import Compare, Draw, Evidence
from .formatting import is_number

DRAWS = 1000
NOT_ESTABLISHED = "order not established"
NEVER_HELD = "not drawn in pairs; --pair-distances does it"
TOO_FEW = "too few clips"
LEVEL_UNKNOWN = "the real clips' level differs or is unknown"
Values = Mapping[str, float]  # of clips, by id


@dataclass(frozen=True)
class Above:
    """The difference from the row above: its p-value, and `holm`, what is left of it among all rows of the table.

    `reason` is set exactly where there is no p-value; `apart` says whether the two intervals have nothing in common,
    None where one is missing or of too few clips.
    """

    method: str
    difference: float | None
    p_value: float | None
    holm: float | None
    clips: int
    established: bool
    reason: str | None = None
    apart: bool | None = None

    @property
    def text(self) -> str:
        """For people: verdict, p-values and clips."""
        if self.p_value is None:
            return f"{'not tested' if self.apart else NOT_ESTABLISHED}{self._intervals} ({self.reason})"
        return f"{'established' if self.established else NOT_ESTABLISHED}: {self.brief}"

    @property
    def brief(self) -> str:
        """The p-values and clips alone, or that there is no test."""
        if self.p_value is None:
            return f"not tested{self._intervals}"
        return f"p {p_text(self.p_value)}, Holm {p_text(self.holm)}, {self.clips} clips"

    @property
    def _intervals(self) -> str:
        return "" if self.apart is None else f", intervals {'lie apart' if self.apart else 'overlap'}"


@dataclass(frozen=True)
class Standing:
    """A method's place: its rank by the value, the ranks that it may have, and the row above.

    Attributes:
        clips: how many were drawn jointly; None where the ranks come from intervals.
        best: share of joint draws in which the method is the best.
        above: None in the first row.
        tested: the ranks come from paired differences of neighbours, too.
    """

    rank: int
    low: int
    high: int
    of: int
    clips: int | None
    best: float | None
    above: Above | None
    tested: bool = False

    @property
    def text(self) -> str:
        """The ranks that are open: "2" or "1–3"."""
        return f"{self.low}" if self.low == self.high else f"{self.low}–{self.high}"

    @property
    def basis(self) -> str:
        """How the ranks were found."""
        if self.clips:
            return f"{self.clips} clips drawn jointly"
        return "from intervals and paired differences" if self.tested else "from intervals"


def standings(
    ordered: Sequence[Measured], metric_id: str, clips: Mapping[str, Mapping[str, Values]], evidence: Evidence
) -> list[Standing]:
    """Standings of scored entries.

    Args:
        ordered: of one table, the best first.
        clips: by method and metric the clips' values.
        evidence: what the clips' values do not tell.
    """
    if len(ordered) < 2:
        return []
    gaps = [shortfall(entry.result) or 0.0 for entry in ordered]
    means = [_mean_of(entry, clips.get(entry.method, {}).get(metric_id)) for entry in ordered]
    both = zip(pairwise(ordered), pairwise(means), strict=True)
    pairs = [_above(upper, lower, found, metric_id, evidence.compare) for (upper, lower), found in both]
    ends = [_interval(entry) for entry in ordered]
    apart = [None if one is None or two is None else one[1] < two[0] for one, two in pairwise(ends)]
    above = [replace(pair, apart=far) for pair, far in zip(_corrected(pairs), apart, strict=True)]
    steps = [None if pair.p_value is None else pair.established for pair in above]
    ranks, drawn = _ranks(ordered, means, metric_id, evidence.draw) or (ranks_of_intervals(ends, steps), None)
    tested = drawn is None and any(step is not None for step in steps)
    points = [1 + sum(other < gap for other in gaps) for gap in gaps]
    return [
        Standing(point, min(rank.low, point), max(rank.high, point), len(ordered), drawn, rank.best, pair, tested)
        for point, rank, pair in zip(points, ranks, [None, *above], strict=True)
    ]


def _mean_of(entry: Measured, values: Values | None) -> Values | None:
    """The clips' values whose mean the metric is, without their sign where it takes the mean so; else None."""
    if not values or any(not is_number(value) for value in values.values()):
        return None
    for read in (float, abs):
        found = {clip: float(read(value)) for clip, value in values.items()}
        if math.isclose(float(np.mean(list(found.values()))), entry.result["value"], rel_tol=1e-9, abs_tol=1e-12):
            return found
    return None


def _gap(entry: Measured) -> Callable[[np.ndarray], np.ndarray] | None:
    """From values to their distance from the best, as `shortfall`; None where the best is not known."""
    result = entry.result
    if not result.get("best_is_real"):
        sign = -1.0 if result["higher_is_better"] else 1.0
        return lambda values: sign * values
    level = result["real_vs_real"]
    return (lambda values: np.abs(values - level)) if is_number(level) else None


def _ranks(
    ordered: Sequence[Measured], means: Sequence[Values | None], metric_id: str, draw: Draw
) -> tuple[list[Rank], int] | None:
    """Ranks, and how many clips were drawn for them; None where they cannot be."""
    found = _drawn_means(means) or draw(metric_id, [entry.method for entry in ordered])
    gaps = [gap for entry in ordered if (gap := _gap(entry))]
    if found is None or len(gaps) < len(ordered):
        return None
    draws, clips = found
    return ranks_of_draws(np.stack([gap(draws[:, k]) for k, gap in enumerate(gaps)], axis=1)), clips


def _drawn_means(means: Sequence[Values | None]) -> tuple[np.ndarray, int] | None:
    known = [one for one in means if one is not None]
    common = sorted(set.intersection(*map(set, known))) if len(known) == len(means) else []
    if len(common) < FEWEST_CLIPS:
        return None
    return joint_means(np.array([[one[clip] for clip in common] for one in known]), n=DRAWS), len(common)


def _interval(entry: Measured) -> tuple[float, float] | None:
    """The interval of the entry's distance from the best; None where there is none, or clips too few to order by."""
    ci95, gap = usable_interval(entry.result["ci95"]), _gap(entry)
    if ci95 is None or gap is None or entry.result["n_scored"] < FEWEST_CLIPS:
        return None
    ends = sorted(gap(np.array(ci95)).tolist())
    level = entry.result["real_vs_real"]
    inside = entry.result.get("best_is_real") and ci95[0] <= level <= ci95[1]
    return (0.0 if inside else ends[0]), ends[1]


def _above(
    upper: Measured, lower: Measured, means: tuple[Values | None, Values | None], metric_id: str, compare: Compare
) -> Above:
    """The lower row's value minus the upper's, from their clips or from whoever has compared them."""
    paired = _of_clips(upper, lower, *means)
    if paired is not None:
        reason = None if paired.p_value is not None else TOO_FEW
        return Above(upper.method, paired.value, paired.p_value, None, paired.clips, paired.established, reason)
    if lower.result.get("best_is_real"):
        # Elsewhere differences are of the values: which is larger, not which is nearer to the real clips' level.
        return Above(upper.method, None, None, None, 0, False, LEVEL_UNKNOWN)
    return _told(upper.method, compare(metric_id, lower.method, upper.method))


def _of_clips(
    upper: Measured, lower: Measured, upper_means: Values | None, lower_means: Values | None
) -> PairedDifference | None:
    common = sorted(set(upper_means or ()) & set(lower_means or ()))
    if upper_means is None or lower_means is None or not common:
        return None
    return _paired(upper, lower, [np.array([one[clip] for clip in common]) for one in (lower_means, upper_means)])


def _told(method: str, gap: Difference | None) -> Above:
    if gap is None:
        return Above(method, None, None, None, 0, False, NEVER_HELD)
    if gap.p_value is None:
        reason = ": ".join(filter(None, [gap.reason or TOO_FEW, gap.message]))
        return Above(method, gap.difference, None, None, gap.n_common, False, reason)
    paired = PairedDifference(gap.difference or 0.0, gap.ci95, gap.p_value, gap.n_common)
    return Above(method, gap.difference, gap.p_value, None, gap.n_common, paired.established)


def _paired(upper: Measured, lower: Measured, sides: Sequence[np.ndarray]) -> PairedDifference | None:
    """Of the values; where best is the real clips' level, of the distances from it."""
    if not lower.result.get("best_is_real"):
        return paired_mean(sides[0], sides[1], DRAWS)
    gaps = [_gap(entry) for entry in (lower, upper)]
    engines = [_distance(side, gap) for side, gap in zip(sides, gaps, strict=True) if gap]
    if len(engines) < 2:
        return None
    clips = len(sides[0])
    a, b = (engine(np.ones(clips)) for engine in engines)
    return paired_statistic(a - b, engines[0], engines[1], clips, DRAWS)


def _distance(values: np.ndarray, gap: Callable[[np.ndarray], np.ndarray]) -> Engine:
    return lambda counts: float(gap(counts @ values / counts.sum()))


def _corrected(pairs: Sequence[Above]) -> list[Above]:
    """With Holm's p-values; a difference is established where that is below 0.05 too."""
    adjusted = holm([pair.p_value for pair in pairs])
    return [
        replace(pair, holm=p, established=pair.established and p is not None and p < LEVEL)
        for pair, p in zip(pairs, adjusted, strict=True)
    ]
