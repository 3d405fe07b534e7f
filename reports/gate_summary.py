"""Gates and numbers of finished runs as Markdown for a job's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .cells import arrow, metric_cell
from .formatting import MISSING
from .gates import Verdict, tally
from .markdown import MarkdownPage, code, escape


def render_summary(
    runs: Sequence[Mapping[str, Any]],
    verdicts: Sequence[Sequence[Verdict]],
    changed: Sequence[Mapping[str, str]] | None = None,
) -> str:
    """A heading, a table of metrics and the gates of each run.

    Args:
        runs: contents of `results.json`.
        verdicts: for each run what its gates say.
        changed: for each run, metric id -> change since the entry before; None without a history.
    """
    blocks = []
    for place, (results, judged) in enumerate(zip(runs, verdicts, strict=True)):
        blocks.append(_run(results, judged, None if changed is None else changed[place]))
    return "\n".join(blocks)


def _run(results: Mapping[str, Any], verdicts: Sequence[Verdict], changed: Mapping[str, str] | None) -> str:
    said = f": {tally(verdicts)}" if verdicts else ""
    page = MarkdownPage(f"{escape(results['method'])}{said}")
    gate_head = ["Gate"] if verdicts else []
    change_head = [] if changed is None else ["Change"]
    rows = []
    for name, result in results["results"].items():
        gates = [_verdicts(name, verdicts)] if verdicts else []
        rows.append([*_figures(name, result), *gates, *([] if changed is None else [escape(changed[name])])])
    page.table(["Metric", "Value", "95 % interval", "n", *gate_head, *change_head], rows)
    if verdicts:
        page.table(["Gate: fail if", "Metric", "Value", "Threshold", "Result"], list(map(_gate, verdicts)))
    page.text(f"TalkForge {escape(results['talkforge_version'])}, configuration {code(results['config_digest'])}")
    return page.render()


def _figures(name: str, result: Mapping[str, Any]) -> list[str]:
    cell = metric_cell(result)
    sign = arrow(result["higher_is_better"], result.get("best_is_real", False))
    value = escape(cell.text) if cell.reason is None else f"{MISSING} {escape(cell.explanation or '')}"
    return [f"{code(name)} {sign}", value, escape(cell.interval or MISSING), cell.count or MISSING]


def _verdicts(name: str, verdicts: Sequence[Verdict]) -> str:
    return "<br>".join(f"{_state(one)}: {escape(one.gate.text)}" for one in verdicts if one.metric_id == name)


def _state(one: Verdict) -> str:
    return f"**{one.state}**" if one.failed else one.state


def _gate(one: Verdict) -> list[str]:
    about = code(one.metric_id) if one.metric_id else MISSING
    figure = f"{MISSING} {escape(one.reason)}" if one.reason else f"{one.figure} {escape(one.interval)}".strip()
    return [escape(one.gate.text), about, figure, f"{one.gate.threshold:g}", _state(one)]
