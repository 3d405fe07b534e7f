"""What a finished evaluation left in its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..core.errors import ConfigError, InputError
from ..reports.view import check_results

UNREADABLE = (OSError, ValueError, TypeError, AttributeError, ConfigError)


def read_results(out: Path) -> dict[str, Any] | None:
    """An evaluation's results from its folder, None when there are none or they are not ours."""
    try:
        return _checked(out / "results.json")
    except UNREADABLE:
        return None


def finished_results(out: Path) -> dict[str, Any]:
    """An evaluation's results from its folder.

    Raises:
        InputError: there are none, or they are broken or another version's.
    """
    try:
        return _checked(out / "results.json")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{out} is no evaluation", hint="make one with: talkforge eval") from error
    except UNREADABLE as error:
        raise InputError(f"{out / 'results.json'} cannot be read: {error}", hint="run talkforge eval again") from error


def _checked(file: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    check_results(results)
    return results
