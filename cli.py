"""The command `talkforge`. Rooms are imported inside commands, so that `--help` answers at once.

Exit codes: 0 done; 1 ran and is not accepted: some clips were rejected and --strict was given, or a gate (--fail-if)
failed; 2 bad arguments or input, one line on stderr; 3 interrupted, resumable.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any, NoReturn

import click

from .commands.auditing import audit
from .commands.base import JSON, Group
from .commands.data import build, serve, status
from .commands.gates import gate, history
from .commands.generation import generate, priors, testset
from .commands.methods import methods
from .commands.scoring import benchmark, eval_command, leaderboard
from .commands.training import train
from .commands.weights import weights
from .core.children import end_all
from .core.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE, TalkForgeError
from .core.terminal import say, table

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


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
@JSON
def doctor(as_json: bool) -> None:
    """What is installed, which weights are here, which metrics can run and if not why.

    \b
    talkforge doctor
    talkforge doctor --json
    """
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


for _command in (
    build,
    status,
    serve,
    train,
    eval_command,
    benchmark,
    leaderboard,
    gate,
    history,
    audit,
    generate,
    methods,
    priors,
    testset,
    weights,
):
    cli.add_command(_command)


def _interrupt(number: int, frame: Any) -> NoReturn:
    raise KeyboardInterrupt


def main() -> NoReturn:
    """Entry point: maps every expected failure to one line and its exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = cli.main(prog_name="talkforge", standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        say("talkforge: interrupted; run the same command again to go on")
        end_all()
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
