"""An audit's page: metrics by corruptions as a heat map, what to trust for what, and each corruption's levels.

A cell holds a sign, a number and a colour that all say the same, so that none of them is needed alone: it reads in
print, without colour vision, and aloud.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..metrics.audit import MEANINGS, ORDERED
from .cells import arrow, direction
from .charts import TimeChart, time_chart
from .comparison import relative_href
from .formatting import MISSING, format_interval, format_value, is_number
from .html import render_page
from .markdown import MarkdownPage, code, escape
from .view import Curve

SIGNS = {
    "notices": "●",
    "weak": "◐",
    "blind": "○",
    "wrong way": "▼",
    "unaffected": "·",
    "reacts too": "◇",
    "no value": MISSING,
}
FEW_CLIPS = 20
FPS = 25.0


@dataclass(frozen=True)
class Sample:
    """A corruption's first clip: a JPEG strip for level 0 and each level, and loudness of level 0 and the last."""

    corruption: str
    clip: str
    strips: tuple[bytes | None, ...]
    sounds: tuple[list[float], ...] = ()


@dataclass(frozen=True)
class AuditView:
    """What the page shows: contents of `audit.json`, pictures, and each corruption's reports by level."""

    data: Mapping[str, Any]
    samples: tuple[Sample, ...]
    links: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class HeatCell:
    """One metric under one corruption. `name` is for the style sheet, `title` the whole story in a line."""

    verdict: str
    name: str
    sign: str
    effect: str
    rho: str
    title: str
    sort: float | None
    reason: str | None


@dataclass(frozen=True)
class HeatRow:
    """A metric and its cells in the order of the columns; None where a corruption could not be made."""

    metric: Mapping[str, Any]
    arrow: str
    direction: str
    cells: list[HeatCell | None]


@dataclass(frozen=True)
class Level:
    """One strength: its number, its label, its report, its picture as base64 (None where it is as at level 0)."""

    number: int
    label: str
    href: str | None
    strip: str | None


@dataclass(frozen=True)
class Part:
    """A corruption's section: rows are (metric, cell, values as (value, interval))."""

    entry: Mapping[str, Any]
    levels: list[Level]
    rows: list[tuple[HeatRow, HeatCell, list[tuple[str, str]]]]
    clip: str | None
    chart: TimeChart | None


@dataclass(frozen=True)
class Trust:
    """What was harmed, and which metrics claim to measure it, by how they did."""

    harm: str
    corruptions: list[str]
    notice: list[str]
    partly: list[str]
    fail: list[str]


@dataclass(frozen=True)
class AuditModel:
    """Everything on the page."""

    data: Mapping[str, Any]
    names: list[str]
    rows: list[HeatRow]
    absent: list[Mapping[str, Any]]
    parts: list[Part]
    trust: list[Trust]
    legend: list[tuple[str, str, str, str]]
    notes: list[str]


def effect_text(effect: float | None) -> str:
    """The movement in intervals, + towards the worse, with the digits that a reader can use."""
    if not is_number(effect):
        return MISSING
    if abs(effect) < 0.05:
        return "0"
    if abs(effect) >= 999.5:
        return f"{effect / 1000:+.1f}k" if abs(effect) < 99_950 else f"{effect:+.0e}"
    return f"{effect:+.0f}" if abs(effect) >= 9.95 else f"{effect:+.1f}"


def heat_cell(cell: Mapping[str, Any]) -> HeatCell:
    """A cell of `audit.json` for print."""
    verdict, effect = cell["verdict"], effect_text(cell["effect"])
    rho = f"{cell['rho']:.2f}" if is_number(cell["rho"]) else MISSING
    what = cell["reason"] or f"moves {effect} intervals towards the worse, rank correlation {rho}"
    title = f"{cell['metric']} under {cell['corruption']}: {verdict}; {what}"
    return HeatCell(
        verdict, verdict.replace(" ", "-"), SIGNS[verdict], effect, rho, title, cell["effect"], cell["reason"]
    )


def audit_model(view: AuditView) -> AuditModel:
    """Lays out the page."""
    data = view.data
    cells = {(cell["metric"], cell["corruption"]): cell for cell in data["cells"]}
    names = [one["name"] for one in data["corruptions"] if one["clips"]]
    here = [metric for metric in data["metrics"] if metric["hint"] is None]
    rows = [_row(metric, [cells.get((metric["id"], name)) for name in names]) for metric in here]
    return AuditModel(
        data,
        names,
        rows,
        [metric for metric in data["metrics"] if metric["hint"] is not None],
        [_part(view, one, rows, cells, names) for one in data["corruptions"]],
        _trust(data, cells),
        [(verdict, verdict.replace(" ", "-"), SIGNS[verdict], text) for verdict, text in MEANINGS.items()],
        _notes(data),
    )


def _row(metric: Mapping[str, Any], found: Sequence[Mapping[str, Any] | None]) -> HeatRow:
    higher = metric["higher_is_better"]
    cells = [None if cell is None else heat_cell(cell) for cell in found]
    return HeatRow(metric, arrow(higher), direction(higher), cells)


def _part(
    view: AuditView,
    entry: Mapping[str, Any],
    rows: Sequence[HeatRow],
    cells: Mapping[tuple[str, str], Mapping[str, Any]],
    names: Sequence[str],
) -> Part:
    name = entry["name"]
    sample = next((one for one in view.samples if one.corruption == name), None)
    strips = sample.strips if sample else ()
    hrefs = [None, *(relative_href(link) for link in view.links.get(name, ()))]
    labels = ["0: copy", *(f"{k + 1}: {level:g}" for k, level in enumerate(entry["levels"]))]
    levels = [
        Level(k, label, hrefs[k] if k < len(hrefs) else None, _base64(_new_strip(strips, k)))
        for k, label in enumerate(labels)
    ]
    told = []
    for row in rows if name in names else ():
        cell, shown = cells.get((row.metric["id"], name)), row.cells[names.index(name)]
        if cell is not None and shown is not None:
            told.append((row, shown, [_score(score) for score in cell["scores"]]))
    return Part(entry, levels, told, sample.clip if sample else None, _chart(sample))


def _score(score: Mapping[str, Any]) -> tuple[str, str]:
    return format_value(score["value"], score["ci95"]), format_interval(score["ci95"])


def _new_strip(strips: Sequence[bytes | None], level: int) -> bytes | None:
    """The level's pictures, unless they show what level 0 shows, as under a corruption of the sound."""
    if level >= len(strips):
        return None
    return None if level and strips[level] == strips[0] else strips[level]


def _base64(data: bytes | None) -> str | None:
    return base64.b64encode(data).decode("ascii") if data else None


def _chart(sample: Sample | None) -> TimeChart | None:
    """Loudness at both ends, where a corruption changes the sound."""
    if sample is None or not sample.sounds or sample.sounds[0] == sample.sounds[-1]:
        return None
    labels = ("level 0", "greatest level")
    return time_chart(
        [
            Curve(f"loudness, {label}", "dB", FPS, list(sound))
            for label, sound in zip(labels, sample.sounds, strict=True)
        ]
    )


def _trust(data: Mapping[str, Any], cells: Mapping[tuple[str, str], Mapping[str, Any]]) -> list[Trust]:
    """For each harm the metrics that claim it: those that notice all of its corruptions, some, or none."""
    found = []
    for harm in dict.fromkeys(harm for one in data["corruptions"] if one["clips"] for harm in one["harms"]):
        names = [one["name"] for one in data["corruptions"] if one["clips"] and harm in one["harms"]]
        groups: dict[str, list[str]] = {"notice": [], "partly": [], "fail": []}
        for metric in data["metrics"]:
            if harm not in (metric["measures"] or ()):
                continue
            verdicts = {name: cells[metric["id"], name]["verdict"] for name in names if (metric["id"], name) in cells}
            judged = [verdict for verdict in verdicts.values() if verdict != "no value"]
            if judged:
                hits = judged.count("notices")
                group = "notice" if hits == len(judged) else "partly" if hits or "weak" in judged else "fail"
                rewarded = [name for name, verdict in verdicts.items() if verdict == "wrong way"]
                groups[group].append(_tally(metric["id"], hits, len(judged), rewarded))
        if any(groups.values()):
            found.append(Trust(harm, names, **groups))
    return sorted(found, key=lambda one: one.harm)


def _tally(metric_id: str, hits: int, judged: int, rewarded: Sequence[str]) -> str:
    rewards = f"; rewards {', '.join(rewarded)}" if rewarded else ""
    return f"{metric_id} ({hits} of {judged}{rewards})"


def _notes(data: Mapping[str, Any]) -> list[str]:
    notes = []
    count = len(data["clips"])
    if count < FEW_CLIPS:
        notes.append(
            f"{count} clips are few: intervals are rough, and 'weak' and 'blind' may be for want of clips. From "
            f"{FEW_CLIPS} clips on a verdict says something about the metric."
        )
    for one in data["corruptions"]:
        if one["rejected"]:
            notes.append(f"{one['name']} could not be made of {len(one['rejected'])} of {count} clips.")
    lost = sorted(
        {
            f"{cell['metric']} under {cell['corruption']}"
            for cell in data["cells"]
            if cell["scores"][-1]["n_scored"] < cell["scores"][0]["n_scored"] and cell["scores"][-1]["n_scored"]
        }
    )
    if lost:
        notes.append(f"Scored over fewer clips at the greatest level than at level 0: {', '.join(lost)}.")
    return notes


def render_audit_html(view: AuditView) -> str:
    """One self-contained page."""
    return render_page("audit.html", model=audit_model(view), ordered=ORDERED)


def render_audit_markdown(view: AuditView) -> str:
    """The page's twin in GitHub-flavoured Markdown, without pictures."""
    model = audit_model(view)
    page = MarkdownPage("Audit of metrics")
    page.text(f"{escape(model.data['created'])}, version {escape(model.data['talkforge_version'])}")
    page.bullets(map(escape, model.notes))
    page.heading("Metrics by corruptions")
    page.table(["Metric", *map(escape, model.names)], [[_name(row), *map(_short, row.cells)] for row in model.rows])
    page.bullets(f"{sign} {escape(verdict)}: {escape(text)}" for verdict, _, sign, text in model.legend)
    page.heading("What to trust for what")
    page.table(
        ["Harm", "Corruptions", "Notice all", "Notice some", "Notice none"],
        [
            [escape(t.harm), *(escape(", ".join(x)) or MISSING for x in (t.corruptions, t.notice, t.partly, t.fail))]
            for t in model.trust
        ],
    )
    for part in model.parts:
        _section(page, part)
    page.bullets(f"{code(metric['id'])}: weights missing, {escape(metric['hint'])}" for metric in model.absent)
    return page.render()


def _name(row: HeatRow) -> str:
    return f"{code(row.metric['id'])} {row.arrow}"


def _short(cell: HeatCell | None) -> str:
    return MISSING if cell is None else f"{cell.sign} {cell.effect}" if cell.effect != MISSING else cell.sign


def _section(page: MarkdownPage, part: Part) -> None:
    page.heading(escape(part.entry["name"]))
    page.text(f"{escape(part.entry['what'])}; harms {escape(', '.join(part.entry['harms']))}")
    page.bullets(
        f"{escape(one['clip'])}: {escape(one['reason'])}, {escape(one['message'])}" for one in part.entry["rejected"]
    )
    if part.rows:
        head = ["Metric", "Verdict", *(escape(level.label) for level in part.levels), "Rank corr.", "Intervals"]
        page.table(
            head,
            [
                [
                    f"{_name(row)} {escape(row.metric['unit'])}".strip(),
                    escape(cell.verdict),
                    *(escape(value) for value, _ in values),
                    cell.rho,
                    cell.effect,
                ]
                for row, cell, values in part.rows
            ],
            numbers=len(part.levels) + 2,
        )


def audit_text(data: Mapping[str, Any]) -> str:
    """The heat map as aligned text for a terminal, signs explained below it."""
    model = audit_model(AuditView(data, (), {}))
    table = [["metric", *model.names], *([row.metric["id"], *map(_short, row.cells)] for row in model.rows)]
    widths = [max(len(line[k]) for line in table) for k in range(len(table[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]
    return "\n".join([*lines, "", *(f"{sign} {verdict}" for verdict, _, sign, _ in model.legend)])
