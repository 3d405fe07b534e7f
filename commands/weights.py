"""`talkforge weights`: the store of network weights and of sample media."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from ..core.errors import EXIT_USAGE
from ..core.terminal import say, table
from .base import JSON, Group


@click.group(cls=Group)
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
    from ..core.weights import samples_store, weights_store

    return samples_store() if samples else weights_store()


def _chosen(store: Any, names: tuple[str, ...], preset: str | None) -> list[str]:
    return list(names) or store.names(None if preset in (None, "all") else preset)


@weights.command("list")
@PRESET
@SAMPLES
@JSON
def weights_list(preset: str | None, samples: bool, as_json: bool) -> None:
    """Entries with state, size, licence and where they come from.

    \b
    talkforge weights list --preset eval
    talkforge weights list --samples --json
    """
    from ..core.asset_store import list_rows

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
    """Gets entries (NAMES, or a preset) from their first source that answers; resumes, refuses a wrong hash.

    \b
    talkforge weights pull --preset ci
    talkforge weights pull i3d-k400
    """
    from ..core.asset_files import terminal_progress
    from ..core.asset_store import pull_rows

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
    """Hashes files anew and compares with what is declared; a missing file is reported, a wrong one fails.

    \b
    talkforge weights verify
    talkforge weights verify i3d-k400
    """
    from ..core.asset_store import verify_rows

    store = _store(samples)
    rows = verify_rows(store, _chosen(store, names, preset))
    table(rows, ["name", "state", "note"])
    if any(row["state"] == "wrong_hash" for row in rows):
        sys.exit(EXIT_USAGE)
