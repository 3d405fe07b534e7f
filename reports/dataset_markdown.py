"""A dataset build's report in GitHub-flavoured Markdown: the twin of its HTML page, without pictures and curves."""

from __future__ import annotations

from .dataset import (
    MOST_REJECTS,
    duration,
    emotions,
    filter_model,
    histogram,
    notes,
    reasons,
    snippets,
    spread_text,
    stage_rows,
    summary,
)
from .dataset_view import DatasetView, SampleClip
from .formatting import MISSING, flat_items
from .markdown import MarkdownPage, code, escape


def dataset_markdown(view: DatasetView) -> str:
    """The build's report as Markdown text, with the same numbers and reasons as the HTML page."""
    info = view.info
    page = MarkdownPage(f"{escape(info['dataset'])}: TalkForge dataset")
    page.text(f"{escape(info['created'])}, version {escape(info['talkforge_version'])}, build {code(info['digest'])}")
    page.text(", ".join(f"{what}: {figure}" for what, figure in summary(view)) + ".")
    if notes(view):
        page.heading("Before using the data")
        page.bullets(map(escape, notes(view)))
    _splits(page, view)
    _samples(page, view.samples)
    _lengths(page, view)
    _rejects(page, view)
    _filters(page, view)
    _features(page, view)
    _work(page, view)
    page.heading("Load it")
    for text in snippets(view):
        page.text(f"```python\n{text}\n```")
    _provenance(page, view)
    return page.render()


def _splits(page: MarkdownPage, view: DatasetView) -> None:
    page.heading("Splits")
    page.text(f"Rule {code(view.splits['name'])}: {escape(view.splits['rule'])}.")
    names = emotions(view)
    rows = []
    for row in view.rows:
        speakers = MISSING if row.identities is None else str(row.identities)
        counts = [str(row.emotions.get(name, 0)) for name in names]
        rows.append([escape(row.name), str(row.clips), speakers, duration(row.seconds), *counts])
    head = ["Split", "Clips", "Speakers", "Video", *map(escape, names)]
    if rows:
        page.table(head, rows, numbers=len(head) - 1)


def _samples(page: MarkdownPage, samples: list[SampleClip]) -> None:
    if samples:
        page.heading("Samples")
        page.text("Their pictures and curves are on the HTML page.")
        page.bullets(f"{escape(c.clip_id)}: {escape(', '.join(f'{k} {v}' for k, v in c.facts))}" for c in samples)


def _lengths(page: MarkdownPage, view: DatasetView) -> None:
    page.heading("Lengths and sizes")
    found = [(one, histogram([one.values], one.unit)) for one in view.distributions]
    page.bullets(
        f"{escape(one.title)}: {escape(bars.words if bars else f'{MISSING} {one.reason}')}" for one, bars in found
    )


def _rejects(page: MarkdownPage, view: DatasetView) -> None:
    page.heading("Rejects")
    if not view.rejects:
        page.text("None: every clip that was listed is a row.")
        return
    page.table(["Reason", "Stage", "Clips"], [[code(g.reason), escape(g.stage), str(g.clips)] for g in reasons(view)])
    listed = view.rejects[:MOST_REJECTS]
    page.text(f"The first {len(listed)} of {len(view.rejects)}:" if len(listed) < len(view.rejects) else "All of them:")
    rows = [[escape(r.clip_id), escape(r.stage), code(r.reason), escape(r.message)] for r in listed]
    page.table(["Clip", "Stage", "Reason", "Message"], rows)


def _filters(page: MarkdownPage, view: DatasetView) -> None:
    page.heading("Filters")
    if not view.filters:
        page.text("This build has no filter columns.")
        return
    models = [filter_model(row) for row in view.filters]
    counts = [[code(f.name), *map(str, (f.measured, f.dropped, f.only, f.undecided))] for f in models]
    page.table(["Filter", "Measured", "Would drop", "By it alone", "No decision"], counts, numbers=4)
    if view.kept is not None:
        page.text(f"All together would keep {view.kept} of {view.info['counts']['rows']} rows.")


def _features(page: MarkdownPage, view: DatasetView) -> None:
    page.heading("Features")
    if not view.spreads:
        page.text("This build has no columns of expression, head rotation or loudness.")
    for group in view.spreads:
        rows = [[escape(r.name), escape(spread_text(r, group)), str(r.count), str(r.missing)] for r in group.rows]
        page.heading(escape(group.title), 3)
        page.table(["Feature", "Median, 1 % to 99 %", "Frames", "Without a value"], rows, numbers=3)


def _work(page: MarkdownPage, view: DatasetView) -> None:
    page.heading("Time")
    rows = [[escape(r.name), r.wall, r.cpu, r.per_second] for r in stage_rows(view.work)]
    if rows:
        page.table(["Stage", "Wall", "CPU", "Per video second"], rows, numbers=3)
        page.text(f"{view.work.timed} of {view.work.shards} shards, {duration(view.work.video_s)} of video.")
    else:
        page.text("The shards of this build carry no times of their stages.")


def _provenance(page: MarkdownPage, view: DatasetView) -> None:
    page.heading("Extractors")
    rows = [[code(one["id"]), str(one["version"]), escape(one["what"])] for one in view.info["extractors"]]
    page.table(["Extractor", "Version", "What"], rows)
    page.bullets(f"{escape(name)}: sha256 {code(digest)}" for name, digest in view.info["weights"].items())
    page.heading("Counters")
    page.table(["Counter", "Count"], [[escape(k), escape(v)] for k, v in flat_items(view.work.counters)], numbers=1)
    page.heading("Environment")
    page.bullets(f"{escape(key)}: {escape(text)}" for key, text in flat_items(view.info["environment"]))
