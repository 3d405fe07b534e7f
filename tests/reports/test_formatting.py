"""Numbers and text as printed: expected strings follow from the stated rule by hand."""

from __future__ import annotations

import math

import pytest
from talkforge.reports.formatting import MISSING, flat_items, format_interval, format_value, plain, printable


@pytest.mark.parametrize(
    ("value", "ci", "unit", "text"),
    [
        (412.37, [355.2, 486.1], "", "412"),  # half-width 65: its second digit is the units
        (0.58412, [0.512, 0.651], "", "0.584"),  # half-width 0.070: thousandths
        (38.112, [33.9, 44.8], "px", "38.1 px"),  # half-width 5.5: tenths
        (12345.6, [9000.0, 16000.0], "", "12346"),  # never coarser than units
        (-0.0004, [-0.5, 0.5], "", "0.00"),  # no negative zero
        (7.31, [7.31, 7.31], "", "7.31"),  # an interval without width says nothing
        (0.123456, None, "", "0.1235"),
        (412.37, None, "%", "412.4 %"),
        (2.0, None, "frames", "2 frames"),
        (31234.5, None, "", "31234"),
        (0.0000123, None, "", "1.23e-05"),
        (3e-9, [1e-9, 5e-9], "", "3e-09"),  # an interval finer than six decimals
        (0.0, [-0.15, 0.15], "", "0.00"),  # a measured zero is a number
    ],
)
def test_precision_follows_the_interval(value: float, ci: list[float] | None, unit: str, text: str) -> None:
    assert format_value(value, ci, unit) == text


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_a_missing_number_is_a_dash_without_a_unit(value: float | None) -> None:
    assert format_value(value, [0.0, 1.0], "px") == MISSING


def test_interval_has_the_decimals_of_its_value() -> None:
    assert format_interval([0.5121, 0.6514]) == "[0.512, 0.651]"
    assert format_interval([355.2, 486.1]) == "[355, 486]"
    assert format_interval(None) == format_interval([math.nan, 1.0]) == MISSING


def test_nested_values_become_dotted_keys_and_words() -> None:
    nested = {"crop": "face", "window": None, "smooth": {"frames": 3, "on": True}, "sizes": [1, 2], "empty": {}}
    assert flat_items(nested) == [
        ("crop", "face"),
        ("window", "none"),
        ("smooth.frames", "3"),
        ("smooth.on", "yes"),
        ("sizes", "[1, 2]"),
        ("empty", "none"),
    ]
    assert plain(0) == "0" and plain(False) == "no"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain name é 中.mp4", "plain name é 中.mp4"),
        ("two\nlines\tand more", "two lines and more"),
        ("gpj\u202e.exe", "gpj\\u202e.exe"),  # right-to-left override
        ("bad\udcffbyte", "bad\\udcffbyte"),  # how Python spells an undecodable file name
        ("bell\x07", "bell\\x07"),
    ],
)
def test_printable_text_can_be_written_and_hides_nothing(text: str, shown: str) -> None:
    assert printable(text) == shown
    printable(text).encode("utf-8")
