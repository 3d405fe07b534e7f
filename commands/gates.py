"""Commands that follow finished runs: gate, history; and the options that eval and benchmark share with them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import click

from ..core.errors import EXIT_OK, EXIT_REJECTS
from ..core.terminal import say
from .base import FILE, FOLDER


def _file(context: click.Context, option: click.Parameter, value: str | None) -> Path | None:
    """A file, or none for empty text: outside a job `--summary "$GITHUB_STEP_SUMMARY"` asks for no summary."""
    if value and Path(value).is_dir():
        raise click.BadParameter(f"{value} is a folder", context, option)
    return Path(value) if value else None


GATE_OPTIONS = [
    click.option(
        "--fail-if", multiple=True, metavar="EXPR", help="Exit with 1 if it holds, e.g. 'fvd>300'. May be repeated."
    ),
    click.option("--allow-missing", is_flag=True, help="A gate whose number is missing does not fail."),
    click.option(
        "--summary", metavar="FILE", callback=_file, help='Appends Markdown to it, e.g. "$GITHUB_STEP_SUMMARY".'
    ),
    click.option("--history", metavar="FILE", callback=_file, help="JSON lines; gets an entry a run."),
    click.option("--commit", metavar="SHA", help="Of the history's entries.  [default: GITHUB_SHA, or git's]"),
]
NAMES = ("fail_if", "allow_missing", "summary", "history", "commit")


def gate_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options, which reach the command as the one argument `asked`."""

    @wraps(command)
    def inner(*args: Any, **options: Any) -> Any:
        from ..flows.gates import Asked

        return command(*args, asked=Asked(**{name: options.pop(name) for name in NAMES}), **options)

    wrapped: Any = inner
    for option in reversed(GATE_OPTIONS):
        wrapped = option(wrapped)
    return wrapped


def tell_settled(asked: Any, outcomes: Sequence[Any]) -> bool:
    """Does what was asked for with finished runs, says a line a gate, and whether one failed."""
    from ..flows.gates import settle
    from ..reports.gates import gate_lines, tally

    settled = settle(asked, outcomes)
    verdicts = [one for judged in settled.verdicts for one in judged]
    for line in gate_lines(verdicts, several=len(outcomes) > 1):
        click.echo(line)
    for kept in settled.kept or ():
        what = f"{kept.entry.method} at {kept.entry.name}"
        why = f" (no commit: {kept.entry.commit_reason})" if kept.entry.commit is None else ""
        say(f"history: {what} {_HOW[kept.recorded.how]} {asked.history}{why}")
    if verdicts:
        say(f"talkforge: {tally(verdicts)}")
    return settled.failed


_HOW = {"added": "added to", "replaced": "replaces its earlier entry in", "there": "is already in"}


@click.command()
@click.argument("runs", nargs=-1, type=FOLDER, required=True)
@gate_options
def gate(runs: tuple[Path, ...], asked: Any) -> None:
    """Holds finished evaluations (RUNS: their --out folders) against conditions. Scores nothing.

    A condition is a metric or its family, > >= < <= and a number. A number that is missing fails it. `.ci_low` and
    `.ci_high` are the ends of the interval, `.coverage` is clips scored of clips attempted.

    \b
    talkforge gate runs/mine --fail-if 'fvd>300' --fail-if 'av_sync<0.4' --fail-if 'coverage<0.9'
    talkforge gate runs/mine --fail-if 'fvd:i3d-k400-16f.ci_low>300' --history history.jsonl
    talkforge gate runs/bounds/copy runs/bounds/warp --fail-if 'copy/fvd>100'
    """
    from ..flows.benchmark import read_run

    if not (asked.fail_if or asked.summary or asked.history):
        raise click.UsageError("nothing is asked for; give --fail-if, --summary or --history")
    sys.exit(EXIT_REJECTS if tell_settled(asked, [read_run(run) for run in runs]) else EXIT_OK)


@click.command()
@click.argument("file", type=FILE)
@click.option("--out", type=FOLDER, required=True, help="Gets index.html and a plot for each metric, .svg.")
def history(file: Path, out: Path) -> None:
    """A page with each metric over the commits of a history FILE, as eval, benchmark and gate --history write it.

    \b
    talkforge history history.jsonl --out runs/history
    """
    from ..flows.history import write_history

    files = write_history(file, out)
    say(f"history: {files[0]}, with {len(files) - 1} plots beside it")
