"""Numbers, plain values and untrusted text, as they are printed in every report.

A number is printed with as many digits as its interval supports; a missing one is an em dash, never a zero.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any, TypeGuard

MISSING = "—"
_DIMENSIONLESS = frozenset({"", "1"})
_MOST_DECIMALS = 6

Interval = Sequence[float]


def is_number(value: float | None) -> TypeGuard[float]:
    """True for a finite number; None, NaN and infinities are missing values."""
    return value is not None and math.isfinite(value)


def format_value(value: float | None, ci: Interval | None, unit: str = "") -> str:
    """The number with its unit, rounded where its interval says that digits stop meaning something.

    The last printed decimal is the second significant one of the interval's half-width; without a usable interval
    four significant digits are printed. None, NaN and infinities give an em dash.
    """
    return with_unit(_number(value, _decimals(ci)), unit) if is_number(value) else MISSING


def format_interval(ci: Interval | None) -> str:
    """`[low, high]` with the decimals that `format_value` gives its value, an em dash without an interval."""
    if ci is None or not all(is_number(end) for end in ci):
        return MISSING
    decimals = _decimals(ci)
    return f"[{_number(ci[0], decimals)}, {_number(ci[1], decimals)}]"


def with_unit(number: str, unit: str) -> str:
    """Number, space, unit; a dimensionless number stands alone."""
    return number if unit in _DIMENSIONLESS else f"{number} {unit}"


def _decimals(ci: Interval | None) -> int | None:
    """Decimals up to the second significant digit of the half-width; None where the interval tells nothing."""
    if ci is None or not all(is_number(end) for end in ci) or ci[1] <= ci[0]:
        return None
    decimals = 1 - math.floor(math.log10((ci[1] - ci[0]) / 2))
    return max(decimals, 0) if decimals <= _MOST_DECIMALS else None


def _number(value: float, decimals: int | None) -> str:
    if decimals is not None:
        return f"{round(value, decimals) + 0.0:.{decimals}f}"  # + 0.0 turns -0.0 into 0.0
    if abs(value) >= 1e4:
        return f"{value:.0f}" if abs(value) < 1e9 else f"{value:.3e}"
    return f"{value + 0.0:.4g}"


def plain(value: Any) -> str:
    """A protocol, counter or environment value in words: yes/no, none (also for an empty list), nested ones as JSON."""
    if isinstance(value, str):
        return value
    if value is None or value == {} or value == []:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def flat_items(mapping: dict[str, Any]) -> list[tuple[str, str]]:
    """(key, printable value) pairs in order; a nested mapping becomes dotted keys."""
    items: list[tuple[str, str]] = []
    for key, value in mapping.items():
        if isinstance(value, dict) and value:
            items += [(f"{key}.{inner}", text) for inner, text in flat_items(value)]
        else:
            items.append((str(key), plain(value)))
    return items


def printable(text: str) -> str:
    """One line of visible characters: white space becomes a blank; control characters, bidirectional overrides and
    the surrogates of undecodable file names become their escape (`\\u202e`), so that no name can disguise itself or
    break the page's encoding."""
    if text.isprintable():
        return text
    blanks = re.sub(r"\s+", " ", text)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in blanks)
