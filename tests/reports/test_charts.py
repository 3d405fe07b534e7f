"""Chart geometry against places worked out by hand."""

from __future__ import annotations

import math
import re

import pytest
from talkforge.core.errors import ConfigError
from talkforge.reports.charts import MAX_SAMPLES, Scale, interval_plot, scale_over, time_chart
from talkforge.reports.view import Curve


def points(path: str) -> list[list[tuple[float, float]]]:
    """Sub-paths of path data as lists of points."""
    return [
        [(float(x), float(y)) for x, y in re.findall(r"(-?[\d.]+) (-?[\d.]+)", part)] for part in path.split("M")[1:]
    ]


@pytest.mark.parametrize(("low", "high"), [(0.0, 6.0), (0.031, 0.047), (-3.2, 8.0), (149.0, 1200.0), (1e-6, 2e-6)])
def test_ticks_are_round_inside_and_evenly_spaced(low: float, high: float) -> None:
    ticks = Scale(low, high).ticks()
    assert 2 <= len(ticks) <= 7
    assert all(-0.01 <= place <= 100.01 for place, _ in ticks)
    values = [float(label) for _, label in ticks]
    steps = {round((b - a) / 10 ** math.floor(math.log10((high - low) / 5)), 6) for a, b in zip(values, values[1:])}  # noqa: B905, RUF007
    assert len(steps) == 1 and steps <= {1.0, 2.0, 5.0, 10.0}
    for place, label in ticks:
        assert place == pytest.approx(100 * (float(label) - low) / (high - low), abs=0.01)


def test_scale_ignores_what_is_missing_and_survives_a_single_value() -> None:
    assert scale_over([None, math.nan]) is None
    scale = scale_over([None, 5.0, math.inf])
    assert scale is not None and scale.low < 5.0 < scale.high
    assert scale_over([0.0, 10.0], margin=0.1) == Scale(-1.0, 11.0)


def test_interval_plot_places_everything_on_one_axis() -> None:
    plot = interval_plot(Scale(0.0, 200.0), 50.0, [40.0, 80.0], reference=10.0, points=[100.0])
    assert (plot.value, plot.low, plot.high, plot.reference, plot.points) == (25.0, 20.0, 40.0, 5.0, (50.0,))
    bare = interval_plot(Scale(0.0, 1.0), None, None)
    assert (bare.value, bare.low, bare.high, bare.reference) == (None, None, None, None)


def test_samples_stand_at_their_second_whatever_the_frame_rate() -> None:
    slow = Curve("slow", "", 10.0, [float(i) for i in range(20)])  # 2 s
    fast = Curve("fast", "px", 25.0, [float(i) for i in range(100)])  # 4 s: sets the axis
    chart = time_chart([slow, fast])
    assert chart is not None and chart.seconds == 4.0
    assert [place for place, _ in chart.ticks] == [0.0, 25.0, 50.0, 75.0, 100.0]
    for series, fps in zip(chart.series, (10.0, 25.0), strict=True):
        (run,) = points(series.path)
        assert [x for x, _ in run] == pytest.approx([1000 * i / fps / 4.0 for i in range(len(run))], abs=0.05)


def test_a_missing_stretch_is_a_gap_and_a_lone_sample_a_dot() -> None:
    chart = time_chart([Curve("mouth", "", 25.0, [1.0, 2.0, None, 1.5, math.nan, 1.0, 1.0])])
    assert chart is not None
    assert [len(run) for run in points(chart.series[0].path)] == [2, 1, 2]
    assert "h0" in chart.series[0].path
    assert "2 of 7 samples missing" in chart.series[0].legend


def test_lines_of_one_unit_share_their_scale_and_an_area_stands_on_zero() -> None:
    chart = time_chart(
        [
            Curve("real", "px", 25.0, [0.0, 10.0]),
            Curve("generated", "px", 25.0, [5.0, 2.0]),
            Curve("other", "mm", 25.0, [0.0, 400.0]),
            Curve("envelope", "", 25.0, [2.0, 4.0], "area"),
        ]
    )
    assert chart is not None
    assert [series.name for series in chart.series] == [
        "envelope",
        "real",
        "generated",
        "other",
    ]  # the area lies behind
    area, _, generated, _ = chart.series
    assert [y for _, y in points(generated.path)[0]] == pytest.approx(
        [50.0, 100 - 100 * 2.4 / 10.8], abs=0.05
    )  # 4 % margins
    assert [y for _, y in points(area.path)[0]] == pytest.approx([100.0, 50.0, 0.0, 100.0])


def test_an_area_below_zero_stands_on_its_lowest_value() -> None:
    chart = time_chart([Curve("loudness", "dB", 25.0, [-60.0, -20.0, -40.0], "area")])
    assert chart is not None
    assert [y for _, y in points(chart.series[0].path)[0]][1:-1] == pytest.approx([100.0, 0.0, 50.0])


def test_a_long_curve_is_binned_by_means_and_keeps_its_length() -> None:
    values: list[float | None] = [float(i % 2) for i in range(10 * MAX_SAMPLES)]
    chart = time_chart([Curve("long", "", 25.0, values), Curve("other", "", 25.0, [0.0, 1.0])])
    assert chart is not None and chart.seconds == 10 * MAX_SAMPLES / 25
    (run,) = points(chart.series[0].path)
    assert len(run) == MAX_SAMPLES
    assert {y for _, y in run} == {50.0}  # every bin holds five zeros and five ones
    assert run[-1][0] == pytest.approx(1000 * (MAX_SAMPLES - 1) / MAX_SAMPLES, abs=0.05)


def test_nothing_to_draw_is_no_chart() -> None:
    assert time_chart([]) is None
    assert time_chart([Curve("lost", "", 25.0, [None, math.nan])]) is None
    with pytest.raises(ConfigError, match="fps"):
        Curve("still", "", 0.0, [1.0])
