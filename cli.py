"""The command `talkforge`. Rooms are imported inside commands, so that `--help` answers at once.

Exit codes: 0 done; 1 some clips were rejected and --strict was given; 2 bad arguments or input, one line on stderr;
3 interrupted, resumable.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from .core.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_REJECTS, EXIT_USAGE, TalkForgeError
from .core.terminal import listed, say, table

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


class Group(click.Group):
    """A group whose unknown command names the closest known one."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from .core.registry import did_you_mean

            hint = did_you_mean(args[0], self.list_commands(ctx)) or f"commands: {', '.join(self.list_commands(ctx))}"
            raise click.UsageError(f"{error.message.rstrip('.')} ({hint})", ctx) from error


@click.group(cls=Group, context_settings=CONTEXT)
@click.version_option(package_name="talkforge", message="%(prog)s %(version)s")
def cli() -> None:
    """Evaluation and dataset tools for emotional talking heads.

    \b
    talkforge doctor                                     what can run here
    talkforge build --dataset mead --root R --out O      shards from raw clips
    talkforge eval --real R --generated G --out O        score a method's videos
    talkforge benchmark --real R --methods copy,still --out O
    """


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def doctor(as_json: bool) -> None:
    """What is installed, which weights are here, which metrics can run and if not why."""
    from .flows.doctor import examine

    report = examine()
    if as_json:
        click.echo(json.dumps(report, indent=2))
        return
    click.echo(f"talkforge {report['talkforge']}, Python {report['python']}, {report['platform']}, {report['device']}")
    click.echo("\nPackages")
    table(report["packages"], ["name", "version", "extra", "wanted_for"])
    click.echo(f"\nWeights in {report['weights_folder']}")
    table(report["weights"], ["name", "state", "megabytes", "licence", "way"])
    click.echo("\nMetrics")
    table(report["metrics"], ["id", "runs", "why_not"])


@cli.group(cls=Group)
def weights() -> None:
    """The store of network weights, each pinned by its sha256.

    \b
    talkforge weights list
    talkforge weights pull --preset ci
    TALKFORGE_WEIGHTS=/data/weights talkforge weights verify
    """


PRESET = click.option("--preset", type=click.Choice(["ci", "eval", "train", "all"]), help="A named set of entries.")
SAMPLES = click.option("--samples", is_flag=True, help="Work on the sample media instead of the weights.")


def _store(samples: bool) -> Any:
    from .core.weights import samples_store, weights_store

    return samples_store() if samples else weights_store()


def _chosen(store: Any, names: tuple[str, ...], preset: str | None) -> list[str]:
    return list(names) or store.names(None if preset in (None, "all") else preset)


@weights.command("list")
@PRESET
@SAMPLES
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def weights_list(preset: str | None, samples: bool, as_json: bool) -> None:
    """Entries with state, size, licence and where they come from."""
    from .core.asset_store import list_rows

    rows = list_rows(_store(samples), None if preset == "all" else preset)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        row["megabytes"] = None if row["bytes"] is None else f"{row['bytes'] / 1e6:.1f}"
        row["sources"] = ", ".join(row["sources"]) or "by hand"
    table(rows, ["name", "state", "megabytes", "licence", "sources", "what"])


@weights.command("pull")
@click.argument("names", nargs=-1)
@PRESET
@SAMPLES
def weights_pull(names: tuple[str, ...], preset: str | None, samples: bool) -> None:
    """Gets entries (NAMES, or a preset) from their first source that answers; resumes, refuses a wrong hash."""
    from .core.asset_files import terminal_progress
    from .core.asset_store import pull_rows

    store = _store(samples)
    if not names and preset is None:
        raise click.UsageError("say what to get: names, or --preset ci|eval|train|all")
    with terminal_progress() as progress:
        rows = pull_rows(store, _chosen(store, names, preset), progress)
    table(rows, ["name", "outcome", "reason", "message"])
    failed = [row for row in rows if row["outcome"] == "failed"]
    for row in failed:
        say(f"talkforge: {row['name']}: {row['message']}")
    if failed:
        sys.exit(EXIT_USAGE)


@weights.command("verify")
@click.argument("names", nargs=-1)
@PRESET
@SAMPLES
def weights_verify(names: tuple[str, ...], preset: str | None, samples: bool) -> None:
    """Hashes files anew and compares with what is declared; a missing file is reported, a wrong one fails."""
    from .core.asset_store import verify_rows

    store = _store(samples)
    rows = verify_rows(store, _chosen(store, names, preset))
    table(rows, ["name", "state", "note"])
    if any(row["state"] == "wrong_hash" for row in rows):
        sys.exit(EXIT_USAGE)


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


def _eval_config(
    overrides: tuple[str, ...], config: Path | None, no_prefect: bool, metrics: str | None, **values: Any
) -> Any:
    from .flows.evaluate import EvalConfig

    prefect = False if no_prefect else None
    return EvalConfig.load(config, overrides, prefect=prefect, metrics=listed(metrics), **values)


@cli.command("eval")
@click.option("--real", type=FOLDER, required=True, help="Folder of real clips.")
@click.option("--generated", type=FOLDER, required=True, help="Folder of generated clips, matched by file stem.")
@click.option("--out", type=FOLDER, required=True, help="Report folder; replaced as a whole when the run is done.")
@click.option("--method", help="Name in tables.  [default: name of the generated folder]")
@click.option("--manifest", type=FILE, help="Parquet or CSV whose column 'clip' lists the stems to score.")
@click.option("--dry-run", is_flag=True, help="Say what would be scored and what is missing; do nothing.")
@run_options
def eval_command(generated: Path, method: str | None, dry_run: bool, strict: bool, **options: Any) -> None:
    """Scores a folder of generated clips against real ones.

    \b
    talkforge eval --real data/real --generated runs/mine --out runs/eval/mine
    talkforge eval --real R --generated G --out O --metrics fvd,av_sync --crop none --no-prefect
    """
    from .flows.evaluate import describe_plan, evaluate

    config = _eval_config(generated=generated, method=method, **options)
    if dry_run:
        click.echo(describe_plan(config))
        return
    outcome = evaluate(config)
    _tell(outcome)
    sys.exit(EXIT_REJECTS if strict and outcome.rejected else EXIT_OK)


def _tell(outcome: Any) -> None:
    """The outcome of one evaluation, for people."""
    from .reports.text import summary

    click.echo(summary(outcome.results))
    if all(result["value"] is None for result in outcome.results["results"].values()):
        say("talkforge: no metric has a value; the reasons are above")
    if outcome.fresh:
        say(f"report: {outcome.out / 'report.html'}")
    else:
        say(f"nothing to do: {outcome.out} is up to date")


@cli.command()
@click.option("--real", required=True, help="Folder of real clips, or 'samples' for the sample clips.")
@click.option("--methods", default="copy,warp,still", show_default=True, help="Comma-separated method ids.")
@click.option("--out", type=FOLDER, required=True, help="Gets a report folder a method and index.html.")
@run_options
def benchmark(real: str, methods: str, out: Path, strict: bool, **options: Any) -> None:
    """Generates with built-in methods from real clips, scores each and compares them on one page.

    \b
    talkforge benchmark --real samples --out runs/eval
    talkforge benchmark --real data/real --methods copy,still --out runs/bounds
    """
    from .core.weights import cache_root
    from .datasets.samples import cut_samples
    from .flows.benchmark import benchmark as run_benchmark

    folder = Path(real)
    if real == "samples":
        folder = cache_root() / "clips"
        cut_samples(folder)
    config = _eval_config(real=folder, generated=out, out=out, method="-", **options)
    result = run_benchmark(config, listed(methods) or [])
    for outcome in result.outcomes.values():
        _tell(outcome)
    for one in (item for failed in result.failed.values() for item in failed):
        say(f"no video for {one.id}: {one.reason}: {one.message}")
    say(f"comparison: {out / 'index.html'}" + ("" if result.fresh else " (nothing to do: everything is up to date)"))
    rejected = any(outcome.rejected for outcome in result.outcomes.values())
    sys.exit(EXIT_REJECTS if strict and rejected else EXIT_OK)


@cli.command()
@click.argument("runs", nargs=-1, required=True, type=FOLDER)
@click.option("--out", type=FOLDER, required=True, help="Gets index.html and leaderboard.md.")
def leaderboard(runs: tuple[Path, ...], out: Path) -> None:
    """One comparison page over finished evaluations (RUNS: their --out folders)."""
    from .flows.benchmark import read_run, write_comparison

    write_comparison(out, [read_run(run) for run in runs])
    say(f"comparison: {out / 'index.html'}")


@cli.command()
@click.argument("method")
@click.option("--portrait", type=FILE, help="Image, or a clip whose first frame is taken.")
@click.option("--audio", type=FILE, help="Sound file, or a clip with sound.")
@click.option("--emotion", help="Name of the emotion, for methods that take one.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="MP4 file, or a folder for many items.")
@click.option("--testset", type=FILE, help="YAML with items (id, portrait, audio, video).")
@click.option("--real", type=FOLDER, help="Folder of real clips: each drives its own first frame.")
@click.option("--workers", type=click.IntRange(1), help="Threads.  [default: one a core]")
@click.option("--no-prefect", is_flag=True, help="Run in this process alone, without Prefect.")
@click.option("--strict", is_flag=True, help="Exit with 1 when any item gave no video.")
def generate(method: str, out: Path, workers: int | None, no_prefect: bool, strict: bool, **source: Any) -> None:
    """Makes videos with METHOD (copy, still, warp).

    \b
    talkforge generate warp --portrait face.png --audio speech.wav --out out.mp4
    talkforge generate still --real data/real --out runs/still
    """
    from .flows.generate import generate as run_generate
    from .flows.generate import generate_one, items_of

    if source["testset"] is None and source["real"] is None:
        generate_one(method, out, source["portrait"], source["audio"], source["emotion"])
        say(f"video: {out}")
        return
    from .flows.engine import default_workers

    items = items_of(source["testset"], source["real"])
    done = run_generate(method, items, out, workers=workers or default_workers(), use_prefect=not no_prefect)
    failed = [one for one in done if one.reason]
    for one in failed:
        say(f"no video for {one.id}: {one.reason}: {one.message}")
    fresh = sum(one.fresh for one in done)
    say(f"{len(done) - len(failed)} of {len(done)} videos in {out}, {fresh} made now")
    sys.exit(EXIT_REJECTS if strict and failed else EXIT_OK)


@cli.command()
@click.option("--dataset", required=True, help="mead, hdtf, voxceleb2 or folder.")
@click.option("--root", type=FOLDER, required=True, help="The dataset's folder.")
@click.option("--out", type=FOLDER, required=True, help="Gets shards, crop videos, rejects and description.")
@click.option("--annotations", type=click.Path(path_type=Path), help="Annotations, or a folder's manifest.")
@click.option("--limit", type=click.IntRange(1), help="Only the first clips.")
@click.option("--split", help="auto, none, or a rule such as identity-ratio.  [default: auto]")
@click.option("--extractors", help="Comma-separated ids instead of the default set.")
@click.option("--workers", type=click.IntRange(1), help="Threads.  [default: one a core]")
@click.option("--config", type=FILE, help="YAML with any of the settings; options win over it.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Any setting, e.g. size=256.")
@click.option("--cache", type=FOLDER, help="Where feature rows are kept.  [default: the user's cache folder]")
@click.option("--no-prefect", is_flag=True, help="Run in this process alone, without Prefect.")
@click.option("--dry-run", is_flag=True, help="Say what would be built and what is missing; write nothing.")
@click.option("--strict", is_flag=True, help="Exit with 1 when any clip was rejected.")
def build(
    config: Path | None, overrides: tuple[str, ...], no_prefect: bool, dry_run: bool, strict: bool, **values: Any
) -> None:
    """Turns a dataset's raw clips into Parquet shards and crop videos; finished shards are kept.

    \b
    talkforge build --dataset mead --root data/MEAD --out built/mead
    talkforge build --dataset folder --root clips --out built/clips --annotations labels.csv --dry-run
    """
    from .flows.build_dataset import BuildConfig, describe_build
    from .flows.build_dataset import build as run_build

    values["extractors"] = listed(values["extractors"])
    settings = BuildConfig.load(config, overrides, prefect=False if no_prefect else None, **values)
    if dry_run:
        click.echo(describe_build(settings))
        return
    outcome = run_build(settings)
    counts = outcome.info["counts"]
    say(f"{counts['clips']} clips: {counts['rows']} rows, {counts['rejects']} rejects in {outcome.out}")
    say("nothing to do: the build is up to date" if outcome.done else f"{outcome.fresh} shards built now")
    sys.exit(EXIT_REJECTS if strict and outcome.rejected else EXIT_OK)


@cli.command()
@click.argument("folder", type=FOLDER)
@click.option("--failed", is_flag=True, help="List the rejected clips with their reasons.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def status(folder: Path, failed: bool, as_json: bool) -> None:
    """How far the build in FOLDER is: shards done, rejects by reason, seconds."""
    from .flows.status import build_status

    state = build_status(folder)
    if as_json:
        click.echo(json.dumps(state, indent=2))
    elif failed:
        table(state["failed"], ["clip_id", "stage", "reason", "message"])
    else:
        word = "complete" if state["complete"] else "not complete"
        click.echo(f"{word}: {state['shards_done']} of {state['shards']} shards, {state['rows']} rows")
        click.echo(f"{state['seconds']} s of work in shards")
        table([{"reason": name, "clips": n} for name, n in state["rejects"].items()], ["reason", "clips"])


def _interrupt(number: int, frame: Any) -> NoReturn:
    raise KeyboardInterrupt


def main() -> NoReturn:
    """Entry point: maps every expected failure to one line and its exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = cli.main(prog_name="talkforge", standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        say("talkforge: interrupted; run the same command again to go on")
        # Rows and reports appear whole or not at all: threads that are under way need not be waited for.
        os._exit(EXIT_INTERRUPTED)
    except click.ClickException as error:
        say(f"talkforge: {error.format_message()}")
        code = EXIT_USAGE
    except TalkForgeError as error:
        say(f"talkforge: {error}")
        code = error.exit_code
    except OSError as error:  # a disk or folder that refuses; everything else of the kind is typed where it happens
        say(f"talkforge: {error.strerror or error}: {error.filename or ''}".rstrip(": "))
        code = EXIT_USAGE
    sys.exit(code if isinstance(code, int) else EXIT_OK)


if __name__ == "__main__":
    main()
