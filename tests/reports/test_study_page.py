"""The study page: where dots lie, what cells say, and that no text becomes markup."""

from __future__ import annotations

import numpy as np
import pytest
from talkforge.core.errors import InputError
from talkforge.metrics.replicates import repeated
from talkforge.reports.embedding import scatter
from talkforge.reports.study import (
    Heat,
    Section,
    Study,
    Table,
    path_chart,
    plain_cell,
    render_study,
    repeated_cell,
)
from talkforge.tests.reports.demo import INJECTION
from talkforge.tests.reports.page import Page

POINTS = np.array([[0.0, 0.0], [4.0, 2.0], [2.0, 1.0]])


def page_of(text: str) -> Page:
    table = Table([text, text], [(text, [repeated_cell(repeated([1.0, 2.0, 3.0])), plain_cell(text)])], text)
    picture = scatter(POINTS, [text] * 3, title=text, groups=[text] * 3, grades=[1, 2, 3])
    chart = path_chart({text: [0.0, 0.5, 1.0]}, (text, text))
    section = Section("one", text, [text], [table], [picture], [chart], [Heat(text, [text, "b"], [[1, 0.2], [0.2, 1]])])
    return Page(render_study(Study(text, text, {text: text}, [section], {text: text})))


def test_dots_keep_their_proportions() -> None:
    picture = scatter(POINTS, ["b", "a", "b"], title="t", groups=["x", "y", "x"], grades=[1, 3, 2])
    # The wider axis fills the square but its margin, y points up, the middle is in the middle.
    assert [(dot.x, dot.y) for dot in picture.dots] == [(3.0, 73.5), (97.0, 26.5), (50.0, 50.0)]
    assert [dot.color for dot in picture.dots] == [1, 0, 1] and picture.colors == ["a", "b"]
    assert [dot.shape for dot in picture.dots] == ["circle", "square", "circle"]
    radii = [dot.radius for dot in picture.dots]
    assert radii[0] < radii[2] < radii[1]
    assert picture.shapes == [("circle", "x"), ("square", "y")] and picture.grades == ["1", "2", "3"]


def test_one_place_is_the_middle_and_what_cannot_be_told_apart_is_refused() -> None:
    assert (scatter(np.zeros((2, 2)), ["a", "b"], title="t").dots[0].x) == 50.0
    for points, classes in ((POINTS, ["a"]), (POINTS * np.nan, list("abc")), (np.zeros((9, 2)), list("abcdefghi"))):
        with pytest.raises(InputError):
            scatter(points, classes, title="t")
    with pytest.raises(InputError):
        scatter(POINTS, list("abc"), title="t", groups=list("abc"))


def test_cells() -> None:
    cell = repeated_cell(repeated([1.0, 2.0, 3.0]))
    assert (cell.text, cell.interval) == ("2.0", "[-0.5, 4.5]")
    assert repeated_cell(repeated([1.0, 2.0, 3.0]), signed=True).text == "+2.0"
    assert repeated_cell(repeated([0.125, 0.125])).interval is None
    assert repeated_cell(None, "why").reason == "why"


def test_shades_and_the_ends_of_a_path() -> None:
    assert Heat("t", ["a", "b"], [[1.0, 0.2], [0.0, 2.0]]).rows == [
        ("a", [(9, "1.00"), (2, "0.20")]),
        ("b", [(0, "0.00"), (9, "2.00")]),
    ]
    chart = path_chart({"x": [0.0, 1.0, 2.0], "y": [2.0, 1.0, 0.0]}, ("happy", "sad"))
    assert [label for _, label in chart.ticks] == ["happy", "half way", "sad"]
    last = float(chart.series[0].path.split("L")[-1].split()[0])
    assert chart.ticks[-1][0] == pytest.approx(last / 10, abs=0.01)  # the box is 1000 wide


def test_the_page_shows_what_it_was_given() -> None:
    page = page_of("words")
    assert len(page.all("circle", class_="c0 g2")) == 1 and len(page.all("table")) == 2
    texts = " ".join(element.text for element in page.all("td"))
    assert "2.0" in texts and "[-0.5, 4.5]" in texts and "0.20" in texts


def test_no_text_becomes_markup() -> None:
    assert page_of(INJECTION).skeleton() == page_of("words").skeleton()
