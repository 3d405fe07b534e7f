"""Commands that score videos: eval, benchmark, leaderboard."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from ..core.errors import EXIT_OK, EXIT_REJECTS, ConfigError, InputError
from ..core.terminal import listed, say
from .base import FILE, FOLDER
from .gates import gate_options, tell_settled

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
@click.option("--real", type=FOLDER, help="Folder of real clips.  [default: none; metrics without reference]")
@click.option("--generated", type=FOLDER, required=True, help="Folder of generated clips, matched by file stem.")
@click.option("--out", type=FOLDER, required=True, help="Report folder; replaced as a whole when the run is done.")
@click.option("--method", help="Name in tables.  [default: name of the generated folder]")
@click.option("--manifest", type=FILE, help="Parquet or CSV whose column 'clip' lists the stems to score.")
@click.option("--against", type=FOLDER, help="Report folder of an earlier eval of the same real clips: who is better?")
@click.option("--dry-run", is_flag=True, help="Say what would be scored and what is missing; do nothing.")
@gate_options
@run_options
def eval_command(generated: Path, method: str | None, dry_run: bool, strict: bool, asked: Any, **options: Any) -> None:
    """Scores a folder of generated clips against real ones.

    \b
    talkforge eval --real data/real --generated runs/mine --out runs/eval/mine
    talkforge eval --real R --generated G --out O --metrics fvd,av_sync --crop none --no-prefect
    talkforge eval --real R --generated G --out O --against runs/eval/theirs
    talkforge eval --real R --generated G --out O --fail-if 'fvd>300' --history history.jsonl
    talkforge eval --generated G --out O --metrics lse_c,lse_d,emo_score
    """
    from ..flows.evaluate import describe_plan, evaluate, plan
    from ..flows.gates import check

    config = eval_config(generated=generated, method=method, reference=_reference(**options), **options)
    if not config.reference:
        _tell_reference(config)
    ids = [one.spec.id for one in plan(config).metrics]
    check(asked, {config.method or generated.resolve().name: ids}, [config.out])
    if dry_run:
        click.echo(describe_plan(config))
        return
    outcome = evaluate(config)
    _tell(outcome)
    failed = tell_settled(asked, [outcome])
    sys.exit(EXIT_REJECTS if failed or (strict and outcome.rejected) else EXIT_OK)


def _reference(real: Path | None, config: Path | None, overrides: tuple[str, ...], **_: Any) -> bool | None:
    """Whether there are real clips, None where the file of settings says so: without --real there are none."""
    from ..core.config import read_yaml

    told = {text.partition("=")[0].strip() for text in overrides} | set(read_yaml(config) if config else ())
    return True if real else None if "real" in told else False


def _tell_reference(config: Any) -> None:
    """Without real clips: what will be computed, and what of the same set cannot be."""
    from ..flows.evaluate import plan

    able = [one.spec.id for one in plan(config).metrics]
    everything = plan(config.model_copy(update={"reference": True})).metrics
    wanting = [one.spec.id for one in everything if one.spec.id not in able]
    say(f"no --real: metrics that need no reference: {', '.join(able)}")
    if wanting:
        say(f"left out, they need real clips: {', '.join(wanting)}")


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
@gate_options
@run_options
def benchmark(real: str, methods: str, out: Path, strict: bool, asked: Any, **options: Any) -> None:
    """Generates with built-in methods from real clips, scores each and compares them on one page.

    \b
    talkforge benchmark --real samples --out runs/eval
    talkforge benchmark --real data/real --methods copy,still --out runs/bounds
    talkforge benchmark --real samples --out runs/eval --fail-if 'copy/fvd>100' --fail-if 'coverage<1'
    """
    from ..core.weights import cache_root
    from ..datasets.samples import cut_samples
    from ..flows.benchmark import benchmark as run_benchmark
    from ..flows.benchmark import check_methods
    from ..flows.evaluate import plan
    from ..flows.gates import check

    names = listed(methods) or []
    check_methods(names)
    folder = cache_root() / "clips" if real == "samples" else Path(real)
    config = eval_config(real=folder, reference=True, generated=out, out=out, method="-", **options)
    ids = [one.spec.id for one in plan(config).metrics]
    check(asked, dict.fromkeys(names, ids), [out / name for name in names])
    if real == "samples":  # only now: what is wrong with the arguments is said before clips are cut
        cut_samples(folder)
    result = run_benchmark(config, names)
    for outcome in result.outcomes.values():
        _tell(outcome)
    for one in (item for failed in result.failed.values() for item in failed):
        say(f"no video for {one.id}: {one.reason}: {one.message}")
    say(f"comparison: {out / 'index.html'}" + ("" if result.fresh else " (nothing to do: everything is up to date)"))
    failed = tell_settled(asked, list(result.outcomes.values()))
    rejected = any(outcome.rejected for outcome in result.outcomes.values())
    sys.exit(EXIT_REJECTS if failed or (strict and rejected) else EXIT_OK)


@click.command()
@click.argument("runs", nargs=-1, type=FOLDER)
@click.option("--out", type=FOLDER, required=True, help="Gets index.html and leaderboard.md, .tex, .csv, .json.")
@click.option("--no-published", is_flag=True, help="Leave out what papers print for the same metrics.")
@click.option("--pair-distances", is_flag=True, help="Draw clips jointly for distances such as FVD too; slow.")
@click.option(
    "--videos",
    type=click.Choice(["link", "copy", "embed", "none"]),
    default="link",
    show_default=True,
    help="How pages of single clips get their videos; none: no such pages.",
)
@click.option(
    "--priors",
    multiple=True,
    metavar="METHOD=FILE",
    help="Clips' emotion priors (talkforge priors --by clip), for a t-SNE on the method's page; repeatable.",
)
def leaderboard(
    runs: tuple[Path, ...],
    out: Path,
    no_published: bool,
    pair_distances: bool,
    videos: str,
    priors: tuple[str, ...],
) -> None:
    """Finished evaluations (RUNS: their --out folders) on one page, and as tables for papers and programs.

    Runs share a column only with the same real clips, protocol, weights and version; else they stand apart, and the
    page says where they differ. What papers print stands below, by itself. --pair-distances reads the clips' stored
    features, for ranks and p-values of metrics that are no means; that takes minutes for many clips.

    A method's name leads to its clips: real and generated videos side by side, worst and best ones, curves. The page
    links to the videos where they lie; --videos copy or embed makes it one that can be moved.

    Without RUNS: the tables that papers published. Their protocol is unstated, and each has its source.

    \b
    talkforge leaderboard runs/eval/mine runs/eval/theirs --out runs/board
    talkforge leaderboard runs/eval/* --out page --videos copy --priors mine=clips.npz
    talkforge leaderboard --out published
    """
    from ..flows.benchmark import read_run, write_comparison, write_published

    pictured = _by_method(priors)
    if pictured and not runs:
        raise ConfigError("--priors belongs to runs, and none is given", hint="name the evaluations: RUNS")
    if runs:
        outcomes = [read_run(run) for run in runs]
        shown: Any = None if videos == "none" else videos
        write_comparison(
            out,
            outcomes,
            published=not no_published,
            pair_distances=pair_distances,
            videos=shown,
            priors=pictured,
        )
    else:
        write_published(out)
    say(f"comparison: {out / 'index.html'}")


def _by_method(texts: tuple[str, ...]) -> dict[str, Path]:
    """Files by method from METHOD=FILE, cut at the last equals sign."""
    found: dict[str, Path] = {}
    for text in texts:
        method, sign, path = text.rpartition("=")
        if not (method and sign and path):
            raise ConfigError(f"--priors {text!r} is not METHOD=FILE", hint="such as --priors mine=clips.npz")
        if not Path(path).is_file():
            raise InputError(f"there is no file {path}", hint="make one with: talkforge priors --by clip --out FILE")
        found[method] = Path(path)
    return found
