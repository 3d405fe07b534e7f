"""The benchmark flow: methods over one set of real clips, each evaluated the same way, and one page that compares."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import ConfigError, InputError
from ..core.registry import did_you_mean
from ..core.shards import write_json, write_text
from ..reports.comparison import comparison_model, comparison_page
from ..reports.comparison_markdown import HEAD, markdown_page
from ..reports.drilldown_page import COMPARE
from ..reports.latex import PREAMBLE
from ..reports.leaderboard_data import CSV_HEAD, KIND, leaderboard_json, render_leaderboard_csv
from ..reports.leaderboard_latex import render_leaderboard_latex
from ..reports.leaderboard_published import corresponding
from ..reports.published import PROTOCOL, load_published
from ..reports.published_page import (
    published_json,
    render_published_csv,
    render_published_html,
    render_published_latex,
    render_published_markdown,
)
from ..tasks.external import External
from ..tasks.methods import TestItem
from ..tasks.methods import methods as method_registry
from .drilldown import write_drilldown
from .drilldown_files import Videos
from .drilldown_methods import page_folder
from .engine import run
from .evaluate import EvalConfig, Outcome, current, evaluate
from .finished import finished_results
from .generate import Generated, generate, is_current, items_from_clips, method_of
from .leaderboard import pairing, scored_runs

VIDEOS = "_videos"
CLIPS = "_clips"  # pages of single clips
PAGE_MARKS = ('content="TalkForge"', f"# {HEAD}", PREAMBLE, ",".join(CSV_HEAD), f'"kind": "{KIND}"', PROTOCOL)
PUBLISHED = {
    "index.html": render_published_html,
    "leaderboard.md": render_published_markdown,
    "leaderboard.tex": render_published_latex,
    "leaderboard.csv": render_published_csv,
}


@dataclass(frozen=True)
class Benchmark:
    """What a benchmark left behind: an evaluation a method, and the items that no video came of."""

    outcomes: dict[str, Outcome]
    failed: dict[str, list[Generated]]
    fresh_videos: int

    @property
    def fresh(self) -> bool:
        """Whether any work was done."""
        return self.fresh_videos > 0 or any(outcome.fresh for outcome in self.outcomes.values())


def benchmark(base: EvalConfig, methods: Sequence[str]) -> Benchmark:
    """Generates with each method from the real clips' first frames and sounds, and evaluates against the clips.

    Args:
        base: `real`, `out` and all settings; `generated` and `method` are set a method at a time.
        methods: ids of built-in methods.

    Raises:
        What `check_methods` raises; InputError: `out` is inside `real`, or a method made no video.
    """
    check_methods(methods)  # what is wrong with them is said before any work
    if base.out.resolve().is_relative_to(base.real.resolve()):
        raise InputError(f"--out {base.out} is inside --real {base.real}", hint="its videos would be taken for clips")
    items = items_from_clips(base.real)
    if all(_is_done(base, method, items) for method in methods):
        # Nothing will be made, so no flow engine is started to say so.
        base = base.model_copy(update={"prefect": False})
    return run("benchmark", lambda engine: _body(base, methods, items), workers=1, use_prefect=base.prefect)


def check_methods(methods: Sequence[str]) -> None:
    """Refuses methods that a benchmark cannot run.

    Raises:
        ConfigError: an unknown method. InputError: none at all, or one that needs options, such as a run.
    """
    if not methods:
        plain = [one.id for one in method_registry.all() if not one.options]
        raise InputError("no method is named", hint=f"methods: {', '.join(plain)}")
    for method in methods:
        chosen = method_of(method)
        if chosen.options and not isinstance(chosen, External):
            text = f"method {method} needs options, which benchmark has none of"
            raise InputError(text, hint="use talkforge generate, then talkforge eval")


def _is_done(base: EvalConfig, method: str, items: Sequence[TestItem]) -> bool:
    chosen, videos = method_of(method), base.out / VIDEOS / method
    opened = chosen.open()  # once, not once an item: an external method asks for its version
    made = all(is_current(chosen, videos, item, opened) for item in items)
    return made and current(_config(base, method)) is not None


def _config(base: EvalConfig, method: str) -> EvalConfig:
    places = {"generated": base.out / VIDEOS / method, "out": base.out / method}
    return base.model_copy(update=places | {"method": method})


def _body(base: EvalConfig, methods: Sequence[str], items: Sequence[TestItem]) -> Benchmark:
    outcomes: dict[str, Outcome] = {}
    failed: dict[str, list[Generated]] = {}
    fresh = 0
    for method in methods:
        config = _config(base, method)
        made = generate(method, items, config.generated, workers=base.workers, use_prefect=base.prefect)
        fresh += sum(one.fresh for one in made)
        failed[method] = [one for one in made if one.reason]
        if len(failed[method]) == len(made):
            raise InputError(f"method {method} made no video; {made[0].id}: {made[0].reason}: {made[0].message}")
        outcomes[method] = evaluate(config)
    write_comparison(base.out, list(outcomes.values()))
    return Benchmark(outcomes, failed, fresh)


def write_comparison(
    out: Path,
    outcomes: Sequence[Outcome],
    *,
    links: Mapping[str, str] | None = None,
    published: bool = True,
    pair_distances: bool = False,
    videos: Videos | None = "link",
    priors: Mapping[str, Path] | None = None,
) -> None:
    """Writes `index.html` over finished evaluations, its Markdown twin, and the same as LaTeX, CSV and JSON.

    Args:
        links: for a method the page that its name leads to, relative to `out`; its clips' page where none is given.
        published: add what papers print for the same metrics, in tables of their own.
        pair_distances: draw clips jointly also for metrics that are no mean of their clips, from stored features;
            long work for many clips.
        videos: how pages of single clips have their videos; None: no such pages, names lead to the runs' reports.
        priors: for a method, an `.npz` of `talkforge priors --by clip`, for a t-SNE on its page.

    Raises:
        InputError: a file that is not ours is in the way, or a run's details cannot be read.
        ConfigError: priors of a method that is not there, or without pages to show them on; and what
            `comparison.comparison_model` raises.
    """
    for name in (*PUBLISHED, "leaderboard.json"):
        check_page(out / name)
    reports = {one.results["method"]: one.out / "report.html" for one in outcomes}
    _check_priors(priors or {}, reports, pages=videos is not None)
    there = {method: Path(os.path.relpath(path, out)).as_posix() for method, path in reports.items() if path.is_file()}
    pages = {} if videos is None else {method: f"{CLIPS}/{page_folder(method)}/index.html" for method in reports}
    hrefs = there | pages | dict(links or {})
    runs = scored_runs(outcomes)
    facts = {method: run.facts() for method, run in runs.items()}
    evidence = pairing(runs) if pair_distances else None
    model = comparison_model([one.results for one in outcomes], hrefs, facts, evidence)
    families = {family for board in model.boards for family in board.families}
    tables = corresponding(load_published(), families) if published else []
    if videos is not None:
        write_drilldown([one.out for one in outcomes], out / CLIPS, videos=videos, priors=priors, index="../index.html")
    compared = f"{CLIPS}/{COMPARE}" if len(pages) > 1 else None
    write_text(out / "index.html", comparison_page(model, tables, clips=compared))
    write_text(out / "leaderboard.md", markdown_page(model, tables))
    write_text(out / "leaderboard.tex", render_leaderboard_latex(model, tables))
    write_text(out / "leaderboard.csv", render_leaderboard_csv(model, tables))
    write_json(out / "leaderboard.json", leaderboard_json(model, tables))


def _check_priors(priors: Mapping[str, Path], methods: Collection[str], *, pages: bool) -> None:
    """See `write_comparison`."""
    if priors and not pages:
        raise ConfigError("priors are shown on pages of clips, which are left out", hint="leave out --videos none")
    for method in priors:
        if method not in methods:
            hint = did_you_mean(method, methods) or f"methods: {', '.join(sorted(methods))}"
            raise ConfigError(f"priors are given for {method!r}, which is no method of the runs", hint=hint)


def write_published(out: Path) -> None:
    """Writes the published tables as a page, its Markdown twin, LaTeX, CSV and JSON."""
    tables = load_published()
    for name in (*PUBLISHED, "leaderboard.json"):
        check_page(out / name)
    for name, render in PUBLISHED.items():
        write_text(out / name, render(tables))
    write_json(out / "leaderboard.json", published_json(tables))


def check_page(path: Path) -> None:
    """Refuses to write over a page that is not ours."""
    if path.exists() and not any(mark in path.read_text(encoding="utf-8", errors="replace") for mark in PAGE_MARKS):
        raise InputError(f"{path} is not a page of ours", hint="give --out another folder")


def read_run(folder: Path) -> Outcome:
    """A finished evaluation from its folder.

    Raises:
        InputError: there is no `results.json`, or it cannot be read.
    """
    return Outcome(folder, finished_results(folder), fresh=False, rejected=0)
