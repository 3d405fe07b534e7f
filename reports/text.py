"""An evaluation in a few lines of plain text, for the terminal."""

from __future__ import annotations

from typing import Any

from .against import against_lines
from .formatting import MISSING, format_interval, format_value


def summary(results: dict[str, Any]) -> str:
    """The method, how many clips were matched, and a line a metric with value, interval, n and rejects.

    Then a line a metric with the difference from another run, where the run was compared with one.
    """
    clips = results["clips"]
    lines = [f"{results['method']}: {clips['matched']} of {clips['attempted']} clips matched"]
    for name, result in results["results"].items():
        lines.append(f"  {name:28s} {_figures(result)}")
        lines += [f"    note: {note}" for note in result.get("notes", [])]
    return "\n".join([*lines, *against_lines(results)])


def _figures(result: dict[str, Any]) -> str:
    if result["value"] is None:
        way = result.get("hint") or ", ".join(f"{name} {count}" for name, count in result["rejects"].items())
        return f"{MISSING}  {result['reason']}" + (f" ({way})" if way else "")
    arrow = "↑" if result["higher_is_better"] else "↓"
    value = format_value(result["value"], result["ci95"], result["unit"])
    rejects = "".join(f", {count} {name}" for name, count in result["rejects"].items())
    counted = f"n {result['n_scored']}/{result['n_attempted']}{rejects}"
    real = result["real_vs_real"]
    beside = "" if real is None else f", real clips {format_value(real, result['ci95'])}"
    return f"{arrow} {value}  {format_interval(result['ci95'])}  {counted}{beside}"
