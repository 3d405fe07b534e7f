"""Commands around dataset builds: build, status, serve."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from ..core.errors import EXIT_OK, EXIT_REJECTS
from ..core.terminal import listed, say, table
from .base import FILE, FOLDER, JSON


@click.command()
@click.option("--dataset", help="mead, hdtf, voxceleb2 or folder.")
@click.option("--root", type=FOLDER, help="The dataset's folder.")
@click.option("--out", type=FOLDER, help="Gets shards, crop videos, rejects and description.")
@click.option("--annotations", type=click.Path(path_type=Path), help="Annotations, or a folder's manifest.")
@click.option("--limit", type=click.IntRange(1), help="Only the first clips.")
@click.option("--split", help="auto, none, or a rule such as identity-ratio.  [default: auto]")
@click.option("--extractors", help="Comma-separated ids instead of the default set.")
@click.option("--crop", help="ffhq, dice-square, syncnet-square, hdtf-union, annotated, align-224.  [default: ffhq]")
@click.option("--filters", help="Preset none, latentsync-like or talkvid-like, or a YAML file.  [default: none]")
@click.option("--workers", type=click.IntRange(1), help="Threads or processes.  [default: one a core]")
@click.option("--runner", type=click.Choice(["local", "dask", "ray"]), help="Where shards run.  [default: local]")
@click.option("--address", help="Of a Dask or Ray cluster that is there already.")
@click.option("--config", type=FILE, help="YAML with any of the settings; options win over it.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Any setting, e.g. size=256.")
@click.option("--cache", type=FOLDER, help="Where feature rows are kept.  [default: the user's cache folder]")
@click.option("--no-prefect", is_flag=True, help="Run in this process alone, without Prefect.")
@click.option("--wait", is_flag=True, default=None, help="Wait while another build owns --out.  [default: refuse]")
@click.option("--dry-run", is_flag=True, help="Say what would be built and what is missing; write nothing.")
@click.option("--strict", is_flag=True, help="Exit with 1 when any clip was rejected.")
def build(
    config: Path | None, overrides: tuple[str, ...], no_prefect: bool, dry_run: bool, strict: bool, **values: Any
) -> None:
    """Turns a dataset's raw clips into Parquet shards and crop videos; finished shards are kept.

    \b
    talkforge build --dataset mead --root data/MEAD --out built/mead
    talkforge build --dataset folder --root clips --out built/clips --annotations labels.csv --dry-run
    talkforge build --config nightly.yaml
    """
    from ..flows.build_dataset import BuildConfig, describe_build
    from ..flows.build_dataset import build as run_build

    values["extractors"] = listed(values["extractors"])
    settings = BuildConfig.load(config, overrides, prefect=False if no_prefect else None, **values)
    if dry_run:
        click.echo(describe_build(settings))
        return
    outcome = run_build(settings)
    counts = outcome.info["counts"]
    say(f"{counts['clips']} clips: {counts['rows']} rows, {counts['rejects']} rejects in {outcome.out}")
    say("nothing to do: the build is up to date" if outcome.done else f"{outcome.fresh} shards built now")
    say(f"report: {outcome.out / 'report.html'}")
    sys.exit(EXIT_REJECTS if strict and outcome.rejected else EXIT_OK)


@click.command()
@click.argument("folder", type=FOLDER)
@click.option("--failed", is_flag=True, help="List the rejected clips with their reasons.")
@JSON
def status(folder: Path, failed: bool, as_json: bool) -> None:
    """How far the build in FOLDER is: shards done, rejects by reason, seconds.

    \b
    talkforge status built/mead
    talkforge status built/mead --failed
    """
    from ..flows.status import build_status

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


@click.command()
@click.argument("deployments", required=False, type=FILE)
@click.option("--limit", type=click.IntRange(1), default=1, show_default=True, help="Runs at one time.")
@click.option("--list", "listed_only", is_flag=True, help="Say what would be served and when it runs next.")
def serve(deployments: Path | None, limit: int, listed_only: bool) -> None:
    """Serves scheduled builds and evaluations from a YAML file (default: ./deployments.yaml) until it is stopped.

    \b
    talkforge serve nightly.yaml --list
    talkforge serve nightly.yaml
    """
    from ..flows.serve import describe, read_deployments
    from ..flows.serve import serve as run_serve

    if listed_only:
        click.echo(describe(read_deployments(deployments)))
        return
    run_serve(deployments, limit=limit)
