"""A training's log: one JSON object a line, and TensorBoard's event files where wanted."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...core.errors import InputError, MissingPackage, extra_hint
from ...core.shards import write_text


def read_log(path: Path) -> list[dict[str, Any]]:
    """The log's lines; none where there is no file. A last line that a kill cut off is left out.

    Raises:
        InputError: a line before it is no JSON object.
    """
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    whole = [line for line in lines if line.endswith("\n")]  # only the last one can be without
    try:
        return [json.loads(line) for line in whole]
    except ValueError as error:
        raise InputError(f"{path} is not a log: {error}") from error


class StepLog:
    """Appends to `log.jsonl`; what a killed run logged behind its last checkpoint is taken out first.

    Args:
        out: the training's folder.
        after: the step at which this run begins.
        tensorboard: write event files to `out/tensorboard`; None: if it is installed.

    Raises:
        MissingPackage: TensorBoard is asked for and not installed.
    """

    def __init__(self, out: Path, after: int, tensorboard: bool | None = False) -> None:
        path = out / "log.jsonl"
        kept = [row for row in read_log(path) if row["step"] <= after]
        write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = path.open("a", encoding="utf-8")
        self._board = _board(out / "tensorboard", after, tensorboard)

    def write(self, row: Mapping[str, Any]) -> None:
        """Adds a line. It has `step`; numbers are finite."""
        self._file.write(json.dumps(row, allow_nan=False) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in {**row, **row.get("parts", {})}.items():
                if isinstance(value, int | float) and name != "step":
                    self._board.add_scalar(name, value, row["step"])

    def sync(self) -> None:
        """Makes the lines durable, before the checkpoint that relies on them."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Ends the log."""
        self._file.close()
        if self._board is not None:
            self._board.close()


def _board(folder: Path, after: int, wanted: bool | None) -> Any:
    if wanted is False:
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        if wanted is None:
            return None
        raise MissingPackage("tensorboard is not installed", hint=extra_hint("train")) from error
    return SummaryWriter(str(folder), purge_step=after + 1)
