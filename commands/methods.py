"""`talkforge methods`: published methods, and what they need on this machine."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from ..core.errors import EXIT_OK, EXIT_USAGE
from ..core.terminal import say, table
from .base import JSON, Group


@click.group(cls=Group)
def methods() -> None:
    """Published methods, run by their own programs: which there are, and what is missing here.

    \b
    talkforge methods list
    talkforge methods check sadtalker
    TALKFORGE_METHODS=/data/methods talkforge methods check ./mine.yaml --json
    talkforge generate sadtalker --testset set.yaml --out videos/sadtalker
    """


@methods.command("list")
@JSON
def list_command(as_json: bool) -> None:
    """Each method with its condition, licence and what is missing.

    \b
    talkforge methods list
    talkforge methods list --json
    """
    from ..flows.method_status import list_methods

    rows = list_methods()
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    shown = [row | {"missing": _short(row["missing"]), "licence": row["licence"] or "not established"} for row in rows]
    table(shown, ["name", "condition", "licence", "ready", "missing"])
    say("talkforge methods check NAME says how to get what is missing")


def _short(missing: list[str]) -> str:
    more = len(missing) - 3
    return ", ".join(missing[:3]) + (f" and {more} more" if more > 0 else "")


@methods.command("check")
@click.argument("name")
@JSON
def check_command(name: str, as_json: bool) -> None:
    """What NAME (a published method, or an adapter file) needs, line by line. Exit code 0 when it can run, else 2.

    \b
    talkforge methods check dice-talk-release
    talkforge methods check ./mine.yaml
    """
    from ..flows.method_status import check_method

    found = check_method(name)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        _show(found)
    sys.exit(EXIT_OK if found["ready"] else EXIT_USAGE)


def _show(found: dict[str, Any]) -> None:
    click.echo(f"{found['name']}: {found['what']}")
    licence = found["licence"]
    click.echo(f"licence: {licence['code'] or 'not established'}; weights: {licence['weights'] or 'not established'}")
    table(found["requirements"], ["name", "state", "detail"])
    for row in found["requirements"]:
        if row["way"]:
            click.echo(f"{row['name']}: {row['way']}")
    for title in ("unknown", "notes"):
        for line in found[title]:
            click.echo(f"{title.removesuffix('s')}: {line}")
    say(f"{found['name']} {'can run' if found['ready'] else 'cannot run here'}")
