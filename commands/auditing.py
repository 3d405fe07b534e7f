"""The command audit: which metric notices what."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from ..core.errors import EXIT_OK, EXIT_REJECTS
from ..core.terminal import listed, say
from .base import FILE, FOLDER
from .scoring import eval_config, run_options


@click.command()
@click.option("--real", type=FOLDER, required=True, help="Folder of real clips.")
@click.option("--out", type=FOLDER, required=True, help="Gets the corrupted sets, their reports, and index.html.")
@click.option("--corruptions", help="Comma-separated names.  [default: all]")
@click.option("--levels", type=click.IntRange(1, 4), default=4, show_default=True, help="Strengths of each.")
@click.option("--limit", type=click.IntRange(1), help="Only the first clips.")
@click.option("--manifest", type=FILE, help="Parquet or CSV: 'clip' lists the stems, 'emotion', 'identity' label them.")
@click.option("--dry-run", is_flag=True, help="Say how many videos would be made and how long it takes; do nothing.")
@run_options
def audit(
    corruptions: str | None, levels: int, limit: int | None, dry_run: bool, strict: bool, out: Path, **options: Any
) -> None:
    """Makes real clips worse in steps and tells which metric notices: what to trust for what.

    \b
    talkforge audit --real data/real --out runs/audit --dry-run
    talkforge audit --real data/real --out runs/audit --corruptions sound-shift,blur --metrics av_sync,fvd
    talkforge audit --real data/real --out runs/audit --levels 2 --limit 10
    """
    from ..flows.audit import AuditConfig, describe_audit
    from ..flows.audit import audit as run_audit
    from ..reports.audit import audit_text

    base = eval_config(generated=out, out=out, method="-", **options)
    config = AuditConfig(base, listed(corruptions), levels, limit)
    if dry_run:
        click.echo(describe_audit(config))
        return
    done = run_audit(config)
    click.echo(audit_text(done.data))
    for one in done.data["corruptions"]:
        for clip in one["rejected"]:
            say(f"no {one['name']} of {clip['clip']}: {clip['reason']}: {clip['message']}")
    say(f"audit: {out / 'index.html'}" + ("" if done.fresh else " (nothing to do: everything is up to date)"))
    sys.exit(EXIT_REJECTS if strict and done.rejected else EXIT_OK)
