"""A run's report in GitHub-flavoured Markdown: the twin of the HTML page, without pictures and curves.

Clip names, messages and all other values are untrusted text: `escape` leaves no character that Markdown, a table or
inline HTML would read as markup.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from .against import NOTE, AgainstModel, DifferenceRow
from .formatting import MISSING, printable
from .model import ClipRow, MetricRow, RejectGroup, RunModel, run_model
from .view import RunView

# A backslash becomes an entity, so that none can eat the escape of the character after it.
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\\": "&#92;", "@": "&#64;"}
_ESCAPED = "`*_[]|~"
_CODE = re.compile(r"[\w.:/=+ -]+", re.ASCII)


def escape(text: str) -> str:
    """Text that renders as itself anywhere in a line of a paragraph, list item or table cell."""
    characters = (_ENTITIES.get(c) or (f"\\{c}" if c in _ESCAPED else c) for c in printable(text).strip())
    line = "".join(characters).replace("://", "&#58;//").replace("www.", "www&#46;")  # no automatic links
    line = re.sub(r"^(\d+)([.)])(?=\s|$)", r"\1\\\2", line)  # no numbered list,
    return re.sub(r"^([#+=-])(?=[\s#+=-]|$)", r"\\\1", line)  # heading, bullet or rule


def code(text: str) -> str:
    """A code span for plain identifiers and digests; anything else is escaped text."""
    return f"`{text}`" if _CODE.fullmatch(text) else escape(text)


def link(text: str, href: str | None) -> str:
    """A link to a percent-encoded relative `href`, or the text alone."""
    return f"[{escape(text)}](<{href}>)" if href else escape(text)


class MarkdownPage:
    """Collects blocks of Markdown. All arguments are Markdown already, so untrusted text comes through `escape`."""

    def __init__(self, title: str) -> None:
        self._blocks = [f"# {title}"]

    def heading(self, text: str, level: int = 2) -> None:
        """A heading below the title."""
        self._blocks.append(f"{'#' * level} {text}")

    def text(self, text: str) -> None:
        """A paragraph; empty text adds nothing."""
        if text:
            self._blocks.append(text)

    def bullets(self, items: Iterable[str]) -> None:
        """A list; no items add nothing."""
        self.text("\n".join(f"- {item}" for item in items))

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: int = 0) -> None:
        """A table whose last `numbers` columns are set to the right."""
        rules = ["---"] * (len(head) - numbers) + ["---:"] * numbers
        self.text("\n".join(f"| {' | '.join(row)} |" for row in (head, rules, *rows)))

    def render(self) -> str:
        """The page's text."""
        return "\n\n".join(self._blocks) + "\n"


def render_markdown(run: RunView) -> str:
    """The run's report as Markdown text, with the same numbers, reasons and provenance as the HTML page."""
    model = run_model(run)
    results = model.results
    page = MarkdownPage(f"{escape(results['method'])}: TalkForge evaluation")
    page.text(f"{escape(results['created'])}, version {escape(results['talkforge_version'])}")
    page.text(f"{model.n_attempted} clips attempted, {model.n_scored} scored, {model.n_rejected} rejected.")
    if model.warnings:
        page.heading("Warnings")
        page.bullets(map(escape, model.warnings))
    _metrics(page, model)
    if model.against:
        _against(page, model.against)
    _clips(page, model)
    _rejects(page, model)
    _protocol(page, model)
    _provenance(page, model)
    return page.render()


def _metrics(page: MarkdownPage, model: RunModel) -> None:
    page.heading("Metrics")
    if not model.rows:
        page.text("No metric was asked for.")
        return
    head = ["Metric", "Id", "Value", "95 % interval", "Scored", "Real vs real", "Comparable with papers"]
    page.table(head, [_metric_line(row) for row in model.rows])


def _metric_line(row: MetricRow) -> list[str]:
    missing = row.cell.reason is not None
    return [
        f"{escape(row.view.title)} {row.arrow}",
        code(row.metric_id),
        f"{MISSING} {escape(row.cell.explanation or '')}" if missing else f"**{escape(row.cell.text)}**",
        escape(row.cell.interval or MISSING),
        row.cell.count or MISSING,
        escape(row.reference),
        ("yes" if row.comparable else "no") + (f": {escape(row.why)}" if row.why else ""),
    ]


def _against(page: MarkdownPage, against: AgainstModel) -> None:
    page.heading(f"Against {escape(against.name)}")
    head = ["Metric", "Id", "This and the other", "Difference", "95 % interval", "p", "Clips", "This method is"]
    page.table(head, [_difference_line(row) for row in against.rows])
    page.text(NOTE)


def _difference_line(row: DifferenceRow) -> list[str]:
    text = f"{MISSING} {escape(row.reason)}" if row.reason else f"**{escape(row.text)}**"
    values, interval, p_value, verdict = map(escape, (row.values, row.interval, row.p_value, row.verdict))
    return [
        f"{escape(row.title)} {row.arrow}",
        code(row.metric_id),
        values,
        text,
        interval,
        p_value,
        row.count,
        verdict,
    ]


def _clips(page: MarkdownPage, model: RunModel) -> None:
    if model.clips:
        page.heading("Clips")
        titles = [f"{escape(column.clip_title)} {column.arrow}" for column in model.clip_columns]
        page.table(["Clip", "Status", *titles], [_clip_line(row) for row in model.clips], numbers=len(titles))


def _clip_line(row: ClipRow) -> list[str]:
    reasons = ", ".join(dict.fromkeys(reason for _, reason, _ in row.clip.reasons))
    status = f"{row.clip.status}: {escape(reasons)}" if reasons else row.clip.status
    cells = [cell.text if cell.reason is None else f"{MISSING} {escape(cell.reason)}" for cell in row.cells]
    return [escape(row.clip.clip_id), status, *cells]


def _rejects(page: MarkdownPage, model: RunModel) -> None:
    if model.rejects:
        page.heading("Rejects")
        page.table(["Reason", "Stage", "Clips", "Which, and what was said"], [_reject_line(g) for g in model.rejects])


def _reject_line(group: RejectGroup) -> list[str]:
    which = "; ".join(f"{escape(clip_id)}: {escape(message)}" for _, clip_id, message in group.clips)
    return [code(group.reason), escape(group.stage), str(len(group.clips)), which]


def _protocol(page: MarkdownPage, model: RunModel) -> None:
    page.heading("Protocol and weights")
    for row in model.rows:
        page.heading(f"{escape(row.view.title)} ({code(row.metric_id)})", 3)
        page.text(escape(row.view.description))
        page.text(escape(row.view.formula))
        page.text(escape(row.view.source))
        page.bullets(f"{escape(key)}: {escape(text)}" for key, text in row.protocol)
        page.text("Weights:" if row.weights else "Weights: none recorded")
        page.bullets(f"{escape(name)}: sha256 {code(digest)}" for name, digest in row.weights)
        if row.rejects:
            page.text("Not scored: " + ", ".join(f"{escape(reason)} {count}" for reason, count in row.rejects))


def _provenance(page: MarkdownPage, model: RunModel) -> None:
    page.heading("Counters")
    page.table(["Counter", "Count"], [[escape(key), escape(text)] for key, text in model.counters], numbers=1)
    page.heading("Environment")
    page.bullets(f"{escape(key)}: {escape(text)}" for key, text in model.environment)
    page.text(f"Configuration {code(model.results['config_digest'])}")
