"""Commands that score videos: eval, benchmark, leaderboard."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from ..core.errors import EXIT_OK, EXIT_REJECTS
from ..core.terminal import listed, say
from .base import FILE, FOLDER

RUN_OPTIONS = [
    click.option("--crop", type=click.Choice(["face", "none"]), help="Picture that is scored.  [default: face]"),
    click.option("--metrics", help="Comma-separated ids, or families such as 'fvd'; default: the default set."),
    click.option("--config", type=FILE, help="YAML with any of the settings; options win over it."),
    click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Any setting, e.g. bootstrap=500."),
    click.option("--workers", type=click.IntRange(1), help="Threads.  [default: one a core]"),
    click.option("--cache", type=FOLDER, help="Where feature rows are kept.  [default: the user's cache folder]"),
    click.option("--no-prefect", is_flag=True, help="Run in this process alone, without Prefect."),
    click.option("--strict", is_flag=True, help="Exit with 1 when any clip was rejected."),
]


def run_options(command: Any) -> Any:
    """The options that every scoring command shares."""
    for option in reversed(RUN_OPTIONS):
        command = option(command)
    return command


def eval_config(
    overrides: tuple[str, ...], config: Path | None, no_prefect: bool, metrics: str | None, **values: Any
) -> Any:
    from ..flows.evaluate import EvalConfig

    prefect = False if no_prefect else None
    return EvalConfig.load(config, overrides, prefect=prefect, metrics=listed(metrics), **values)


@click.command("eval")
@click.option("--real", type=FOLDER, required=True, help="Folder of real clips.")
@click.option("--generated", type=FOLDER, required=True, help="Folder of generated clips, matched by file stem.")
@click.option("--out", type=FOLDER, required=True, help="Report folder; replaced as a whole when the run is done.")
@click.option("--method", help="Name in tables.  [default: name of the generated folder]")
@click.option("--manifest", type=FILE, help="Parquet or CSV whose column 'clip' lists the stems to score.")
@click.option("--against", type=FOLDER, help="Report folder of an earlier eval of the same real clips: who is better?")
@click.option("--dry-run", is_flag=True, help="Say what would be scored and what is missing; do nothing.")
@run_options
def eval_command(generated: Path, method: str | None, dry_run: bool, strict: bool, **options: Any) -> None:
    """Scores a folder of generated clips against real ones.

    \b
    talkforge eval --real data/real --generated runs/mine --out runs/eval/mine
    talkforge eval --real R --generated G --out O --metrics fvd,av_sync --crop none --no-prefect
    talkforge eval --real R --generated G --out O --against runs/eval/theirs
    """
    from ..flows.evaluate import describe_plan, evaluate

    config = eval_config(generated=generated, method=method, **options)
    if dry_run:
        click.echo(describe_plan(config))
        return
    outcome = evaluate(config)
    _tell(outcome)
    sys.exit(EXIT_REJECTS if strict and outcome.rejected else EXIT_OK)


def _tell(outcome: Any) -> None:
    """The outcome of one evaluation, for people."""
    from ..reports.text import summary

    click.echo(summary(outcome.results))
    if all(result["value"] is None for result in outcome.results["results"].values()):
        say("talkforge: no metric has a value; the reasons are above")
    if outcome.fresh:
        say(f"report: {outcome.out / 'report.html'}")
    else:
        say(f"nothing to do: {outcome.out} is up to date")


@click.command()
@click.option("--real", required=True, help="Folder of real clips, or 'samples' for the sample clips.")
@click.option("--methods", default="copy,warp,still", show_default=True, help="Comma-separated ids, not of trainings.")
@click.option("--out", type=FOLDER, required=True, help="Gets a report folder a method and index.html.")
@run_options
def benchmark(real: str, methods: str, out: Path, strict: bool, **options: Any) -> None:
    """Generates with built-in methods from real clips, scores each and compares them on one page.

    \b
    talkforge benchmark --real samples --out runs/eval
    talkforge benchmark --real data/real --methods copy,still --out runs/bounds
    """
    from ..core.weights import cache_root
    from ..datasets.samples import cut_samples
    from ..flows.benchmark import benchmark as run_benchmark
    from ..flows.benchmark import check_methods

    names = listed(methods) or []
    check_methods(names)  # before sample clips are cut
    folder = Path(real)
    if real == "samples":
        folder = cache_root() / "clips"
        cut_samples(folder)
    config = eval_config(real=folder, generated=out, out=out, method="-", **options)
    result = run_benchmark(config, names)
    for outcome in result.outcomes.values():
        _tell(outcome)
    for one in (item for failed in result.failed.values() for item in failed):
        say(f"no video for {one.id}: {one.reason}: {one.message}")
    say(f"comparison: {out / 'index.html'}" + ("" if result.fresh else " (nothing to do: everything is up to date)"))
    rejected = any(outcome.rejected for outcome in result.outcomes.values())
    sys.exit(EXIT_REJECTS if strict and rejected else EXIT_OK)


@click.command()
@click.argument("runs", nargs=-1, type=FOLDER)
@click.option("--out", type=FOLDER, required=True, help="Gets index.html and leaderboard.md; see above for more.")
def leaderboard(runs: tuple[Path, ...], out: Path) -> None:
    """One comparison page over finished evaluations (RUNS: their --out folders).

    Without RUNS: the tables that papers published, also as leaderboard.tex, .csv and .json. Their protocol is unstated,
    so they stand by themselves, each with its source.
    """
    from ..flows.benchmark import read_run, write_comparison, write_published

    if runs:
        write_comparison(out, [read_run(run) for run in runs])
    else:
        write_published(out)
    say(f"comparison: {out / 'index.html'}")
