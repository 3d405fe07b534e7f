"""The training page's charts, and what it leaves out."""

from __future__ import annotations

from typing import Any

import pytest
from talkforge.reports.training import TrainingView, render_training, step_charts
from talkforge.tests.reports.demo import INJECTION
from talkforge.tests.reports.page import Page


def row(step: int, loss: float, **more: Any) -> dict[str, Any]:
    return {"step": step, "loss": loss, "parts": {}, "clips_per_s": None, **more}


def test_a_chart_has_its_points_at_their_steps() -> None:
    (chart,) = step_charts([row(10, 3.0), row(20, 2.0), row(30, 1.0), row(35, 1.5)])
    assert chart.label == "loss over 35 steps: last 1.5, least 1, most 3"
    assert [label for _, label in chart.ticks] == ["0", "10", "20", "30", "40", "50"]
    points = [float(pair.split()[0]) for pair in chart.series[0].path[1:].split("L")]
    assert points == pytest.approx([200, 400, 600, 800])  # of an axis of 50 steps; the last one stands at 40


def test_a_curve_over_many_sizes_is_drawn_over_its_logarithm() -> None:
    even = step_charts([row(1, 10.0), row(2, 1.0), row(3, 0.1)])[0]
    heights = [float(pair.split()[1]) for pair in even.series[0].path[1:].split("L")]
    assert heights[1] - heights[0] == pytest.approx(heights[2] - heights[1])
    assert "logarithmic" in even.label
    assert "logarithmic" not in step_charts([row(1, 10.0), row(2, 0.0)])[0].label


def test_what_was_not_measured_has_no_chart_and_no_step_is_no_error() -> None:
    assert step_charts([]) == []
    names = [
        chart.series[0].name for chart in step_charts([row(1, 1.0, lr=0.1), row(2, 1.0, lr=0.1, parts={"kl": 2.0})])
    ]
    assert names == ["loss", "loss: kl", "lr"]
    assert "No step has been logged yet" in render_training(TrainingView("toy", {}, {}, [], []))


def test_old_pictures_go_first_and_are_counted() -> None:
    view = TrainingView("toy", {}, {}, [], [(1, b"a" * 10), (2, b"b" * 10), (3, b"c" * 10)])
    page = Page(render_training(view, max_picture_bytes=25))
    assert [image.attributes["alt"] for image in page.all("img")] == ["Samples at step 3", "Samples at step 2"]
    assert "1 older picture left out" in page.elements[0].text


def test_no_text_becomes_markup() -> None:
    rows = [row(1, 1.0, parts={INJECTION: 1.0})]
    plain = [row(1, 1.0, parts={"x": 1.0})]
    hostile = TrainingView(INJECTION, {INJECTION: INJECTION}, {INJECTION: INJECTION}, rows, [])
    tame = TrainingView("x", {"x": "x"}, {"x": "x"}, plain, [])
    assert Page(render_training(hostile)).skeleton() == Page(render_training(tame)).skeleton()
