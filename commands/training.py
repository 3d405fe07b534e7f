"""The command train."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import click

from ..core.errors import InputError
from ..core.terminal import say
from .base import FOLDER, JSON


@click.command()
@click.argument("system")
@click.option("--data", type=FOLDER, help="Folder of a build.")
@click.option("--out", type=FOLDER, help="Gets checkpoints, log.jsonl, samples and train.html.")
@click.option("--preset", default="full", show_default=True, help="Settings to begin from: tiny or full.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Any setting, e.g. optimiser.lr=1e-4.")
@click.option("--resume", is_flag=True, help="Go on where the training in --out stopped.")
@click.option("--dry-run", is_flag=True, help="Count parameters and show settings; allocate and write nothing.")
@click.option("--prefect", is_flag=True, help="Show the training as a Prefect flow run.")
@JSON
def train(
    system: str,
    data: Path | None,
    out: Path | None,
    preset: str,
    overrides: tuple[str, ...],
    resume: bool,
    dry_run: bool,
    prefect: bool,
    as_json: bool,
) -> None:
    """Trains SYSTEM on a build: dice-embedder, dice-talk, which needs a trained embedder, or mf-etalk in two stages.

    A build of the default extractors hears with Whisper's English network: add --set
    audio_column=whisper_tiny_en_states to all but mf-etalk's stage image.

    \b
    talkforge train dice-embedder --data built/mead --out runs/embedder --preset tiny
    talkforge train dice-embedder --data built/mead --out runs/embedder --preset tiny --resume --set optimiser.lr=5e-5
    talkforge train dice-talk --data built/mead --out runs/dice --preset tiny --set embedder=runs/embedder
    talkforge train mf-etalk --data built/mead --out runs/mf-image --preset tiny --set stage=image
    talkforge train mf-etalk --data built/mead --out runs/mf --preset tiny --set init=runs/mf-image
    talkforge train mf-etalk --preset full --dry-run --json
    """
    from ..flows.train import systems
    from ..flows.train import train as run_train

    systems.get(system)
    if dry_run:
        if data is not None and not data.is_dir():
            raise InputError(f"{data} is not a folder")
        _describe(system, preset, overrides, as_json)
        return
    if data is None or out is None:
        text = "Missing option '--data' (a folder of talkforge build)." if data is None else "Missing option '--out'."
        raise click.UsageError(text)
    done = run_train(system, data, out, preset, overrides, resume=resume, use_prefect=prefect)
    if as_json:
        click.echo(json.dumps({"out": str(done.out), "steps": done.steps, "fresh": done.fresh}, indent=2))
    ending = "" if done.fresh else " (nothing to do: the training is finished)"
    say(f"training: {done.steps} steps, {done.out / 'train.html'}{ending}")


def _describe(system: str, preset: str, overrides: tuple[str, ...], as_json: bool) -> None:
    import yaml

    from ..flows.train import describe

    found = describe(system, preset, overrides)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    click.echo(f"{found['system']}: {found['what']}, preset {preset}")
    for name, count in found["parameters"].items():
        click.echo(f"  {name:24s} {count:>14,} parameters")
    click.echo("settings:")
    click.echo(textwrap.indent(yaml.safe_dump(found["settings"], sort_keys=False), "  "), nl=False)
