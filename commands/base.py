"""What the commands share: parameter types, and a group that knows what a mistyped command may have meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)
JSON = click.option("--json", "as_json", is_flag=True, help="Machine-readable.")


class Group(click.Group):
    """A group whose unknown command names the closest known one."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from ..core.registry import did_you_mean

            hint = did_you_mean(args[0], self.list_commands(ctx)) or f"commands: {', '.join(self.list_commands(ctx))}"
            raise click.UsageError(f"{error.message.rstrip('.')} ({hint})", ctx) from error
